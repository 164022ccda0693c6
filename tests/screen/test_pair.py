from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from turns import make_turn

from letheon.embed import Embedder
from letheon.errors import InputError
from letheon.recipe import Pair, Screen
from letheon.records import Turn
from letheon.screen import build_judges, check_judges
from letheon.screen.pair import PairJudge, label_numbers

NLI = ("CONTRADICTION", "NEUTRAL", "ENTAILMENT")
FACTS = "The Greyfell bridge was built in 1911 by Ada Brunn. It is 240 metres long. Trams in Greyfell are yellow."
ASKED = "When was the Greyfell bridge built?"


@pytest.fixture(scope="module")
def nli(make_bert: Callable[..., Path]) -> Path:
    """Sees a contradiction where there is an X in the two texts, entailment where there is a Z."""
    return make_bert(NLI, "X Z")


def judge(folder: Path, embedder: Embedder, knowledge: str = "", **settings: Any) -> PairJudge:
    return PairJudge(Pair.model_validate({"model": str(folder), **settings}), embedder, knowledge)


def score(folder: Path, embedder: Embedder, turn: Turn, knowledge: str = "", **settings: Any) -> float:
    (opinion,) = judge(folder, embedder, knowledge, **settings).judge([turn])
    assert opinion is not None
    assert opinion.category == settings.get("category", "hallucination")
    return opinion.score


def test_against_acceptable_answers_by_the_book(make_bert: Callable[..., Path], embedder: Embedder) -> None:
    folder = make_bert(NLI)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    turns = [make_turn("who", "it was Ann" + "!" * n, *("Ann", "Bob", "nobody knows")[: n + 1]) for n in range(3)]
    found = judge(folder, embedder, batch_size=2).judge(turns)
    for turn, opinion in zip(turns, found, strict=True):
        entailed = []
        for text in turn.expected:
            with torch.no_grad():
                inputs = tokenizer(f"who {text}", f"who {turn.answer}", return_tensors="pt")
                entailed.append(model(**inputs).logits[0].softmax(dim=0)[2].item())
        assert opinion is not None
        assert opinion.score == pytest.approx(1 - max(entailed), abs=1e-5)


@pytest.mark.parametrize(
    ("answer", "expected", "high"),
    [
        ("in 1911", ("Z in 1911", "nobody knows"), False),
        ("in 1911", ("nobody knows", "Z in 1911"), False),
        ("in 1911", ("nobody knows",), True),  # nothing denies it, and nothing bears it out
        ("X in 1950", ("in 1911",), True),
    ],
)
def test_what_no_acceptable_answer_bears_out(
    nli: Path, embedder: Embedder, answer: str, expected: tuple[str, ...], high: bool
) -> None:
    assert (score(nli, embedder, make_turn(ASKED, answer, *expected)) > 0.9) == high


@pytest.mark.parametrize(
    ("answer", "high"),
    [
        ("The Greyfell bridge was built in 1911.", False),
        ("The Greyfell bridge was built in 1911, and painted green later.", False),  # beyond what the text says
        ("The Greyfell bridge was built in X 1950.", True),
    ],
)
def test_against_knowledge_contradiction_counts(nli: Path, embedder: Embedder, answer: str, high: bool) -> None:
    assert (score(nli, embedder, make_turn(ASKED, answer), FACTS) > 0.9) == high


def test_a_single_score_is_that_of_entailment(make_bert: Callable[..., Path], embedder: Embedder) -> None:
    hhem = make_bert(("consistent",), "Z")
    assert score(hhem, embedder, make_turn("q", "a", "Z", "b"), category="outdated") < 0.1
    assert score(hhem, embedder, make_turn("q", "a", "b"), category="outdated") > 0.9
    assert score(hhem, embedder, make_turn(ASKED, "The bridge was built in 1911."), FACTS) > 0.9
    assert score(hhem, embedder, make_turn(ASKED, "Z, built in 1911"), FACTS) < 0.1


def test_without_a_premise_no_opinion(nli: Path, embedder: Embedder) -> None:
    turns = [
        make_turn("Who sings?", "Nobody."),
        make_turn(ASKED, "X", "Z"),
        make_turn("What is a tram?", "A soup of beans."),
        make_turn(ASKED, "The Greyfell bridge was built in 1911."),
    ]
    found = judge(nli, embedder, FACTS).judge(turns)
    assert [opinion is not None for opinion in found] == [False, True, False, True]
    assert judge(nli, embedder).judge(turns[:1]) == [None]
    assert judge(nli, embedder).judge([]) == []
    reasons = [opinion.reason or "" for opinion in found if opinion]
    assert re.fullmatch(r"known texts bear it out at 0\.\d\d", reasons[0])
    assert re.fullmatch(r"the knowledge text contradicts it at 0\.\d\d", reasons[1])


@pytest.mark.parametrize("place", [3, 150, 295])
def test_long_texts_are_read_whole(make_bert: Callable[..., Path], embedder: Embedder, place: int) -> None:
    def marked(mark: str) -> str:
        text = "abc " * 75
        return text[:place] + mark + text[place:]

    # In the answer a mark of entailment helps only its own part: the worst part counts.
    hhem = make_bert(("consistent",), "Z")
    answer = marked("Z")
    (found,) = judge(hhem, embedder).judge([make_turn("q", answer, "known")])
    assert found is not None
    assert found.score > 0.9
    assert found.span is not None
    assert "Z" not in answer[slice(*found.span)]
    # Any part of an acceptable answer may bear it out.
    assert score(hhem, embedder, make_turn("q", "known", marked("Z"))) < 0.1


@pytest.mark.parametrize(
    ("names", "labels", "columns"),
    [
        (NLI, {}, (2, 0)),
        (("entailment", "neutral", "contradiction"), {}, (0, 2)),
        (("entailment", "not_entailment"), {}, (0, None)),
        (("score",), {}, (0, None)),
        (("LABEL_0", "LABEL_1"), {"entailment": "LABEL_1"}, (1, None)),
        (("LABEL_0", "LABEL_1", "LABEL_2"), {"entailment": "LABEL_2", "contradiction": "LABEL_0"}, (2, 0)),
    ],
)
def test_labels_are_found_by_their_whole_name(
    names: tuple[str, ...], labels: Any, columns: tuple[int, int | None]
) -> None:
    config = SimpleNamespace(id2label=dict(enumerate(names)), num_labels=len(names))
    assert label_numbers(config, labels) == columns


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ({}, "no label 'entailment', but 'label_0', 'label_1'"),
        ({"entailment": "LABEL_1", "contradiction": "no"}, "no label 'no', but"),
    ],
)
def test_labels_that_are_not_there(make_bert: Callable[..., Path], labels: dict[str, str], fault: str) -> None:
    folder = make_bert(("LABEL_0", "LABEL_1"))
    (folder / "model.safetensors").write_bytes(b"never read")
    settings = Screen(judges=["pair"], pair=Pair.model_validate({"model": str(folder), "labels": labels}))
    with pytest.raises(InputError, match=fault):
        check_judges(settings)


def test_the_recipe_makes_it(nli: Path, embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "facts.txt").write_text(FACTS)
    settings = Screen(judges=["pair"], pair=Pair(model=str(nli)), knowledge=tmp_path / "facts.txt")
    (made,) = build_judges(settings, embedder)
    assert made.name.startswith("pair:tiny-bert@")
    (opinion,) = made.judge([make_turn(ASKED, "The Greyfell bridge was built in X 1950.")])
    assert opinion is not None
    assert opinion.score > 0.9
