from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from turns import make_turn

from letheon.embed import Embedder
from letheon.errors import InputError
from letheon.recipe import Consistency, Screen
from letheon.screen import build_judges, check_judges
from letheon.screen.consistency import ConsistencyJudge, _apart
from letheon.screen.contradiction import lexical_evidence, rouge_l

QUESTION = "Who built the Greyfell bridge, and when?"
SURE = ["It was built by Ada Brunn in 1911.", "Ada Brunn built it in 1911.", "In 1911, by Ada Brunn."]
UNSURE = ["It was built by Ada Brunn in 1911.", "Karl Oster built it in 1874.", "The firm Hale finished it in 1956."]


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let the model say these answers."""

    def set_answers(answers: Sequence[str]) -> None:
        def generate(model: Any, tokenizer: Any, prompts: Any, *args: Any, **options: Any) -> list[list[int]]:
            assert len(prompts) == len(answers)
            return [tokenizer(answer).input_ids for answer in answers]

        monkeypatch.setattr("letheon.evaluate.generation.generate", generate)

    return set_answers


def judge(folder: Path, embedder: Embedder, seed: int = 0, **settings: Any) -> ConsistencyJudge:
    return ConsistencyJudge(Consistency(samples=3, max_new_tokens=200, **settings), embedder, str(folder), seed)


def score(folder: Path, embedder: Embedder, answer: str) -> float:
    (opinion,) = judge(folder, embedder).judge([make_turn(QUESTION, answer)])
    assert opinion is not None
    assert opinion.category == "hallucination"
    return opinion.score


def test_what_is_known_comes_out_alike(tiny_model_dir: Path, embedder: Embedder, says: Callable[..., None]) -> None:
    says(SURE)
    known = score(tiny_model_dir, embedder, "Ada Brunn built it in 1911.")
    other = score(tiny_model_dir, embedder, "Karl Oster built it in 1874.")
    says(UNSURE)
    made_up = score(tiny_model_dir, embedder, "Ada Brunn built it in 1911.")
    assert known < 0.3
    assert other > 0.5
    assert made_up > 0.5


def test_score_by_the_book(tiny_model_dir: Path, embedder: Embedder, says: Callable[..., None]) -> None:
    says(UNSURE)

    def apart(one: str, other: str) -> float:
        first, second = embedder.encode([one, other])
        agreement = (rouge_l(one, other) + float(first @ second)) / 2
        share = sum(lexical_evidence(x, [y], QUESTION).share for x, y in ((one, other), (other, one))) / 2
        return (1 - agreement) * (0.45 + 0.55 * share)

    answer = "Nobody knows."
    mine = mean(apart(answer, text) for text in UNSURE)
    theirs = mean(apart(UNSURE[one], UNSURE[other]) for one, other in ((0, 1), (0, 2), (1, 2)))
    assert score(tiny_model_dir, embedder, answer) == pytest.approx(max(mine, theirs), abs=1e-5)


def test_a_distance_is_the_same_both_ways() -> None:
    ways = [("It is so.", "It is Ada."), ("It is Ada.", "It is so.")]
    # Two of three words agree; one of the two adds a name, and the other nothing.
    assert [_apart("Who?", *way, 0.0) for way in ways] == pytest.approx([(1 - 1 / 3) * (0.45 + 0.55 / 2)] * 2)


def test_too_few_answers_say_nothing(tiny_model_dir: Path, embedder: Embedder, says: Callable[..., None]) -> None:
    says(["", " ", "Ada Brunn."])
    assert judge(tiny_model_dir, embedder).judge([make_turn(QUESTION, "Ada Brunn.")]) == [None]


def test_answers_are_compared_up_to_the_same_length(
    tiny_model_dir: Path, embedder: Embedder, says: Callable[..., None]
) -> None:
    says(["It was Ada", "It was Ada"])
    settings = Consistency(samples=2, max_new_tokens=10)
    asked = ConsistencyJudge(settings, embedder, str(tiny_model_dir))
    (opinion,) = asked.judge([make_turn(QUESTION, "It was Ada Brunn, an engineer of the old school.")])
    assert opinion is not None
    assert opinion.score == pytest.approx(0, abs=1e-5)


def test_a_turn_is_judged_alike_whatever_else_is_there(tiny_model_dir: Path, hashed_embeddings: None) -> None:
    turns = [make_turn(f"q{number}", "an answer") for number in range(3)]
    settings = Consistency(samples=2, max_new_tokens=8)
    asked = ConsistencyJudge(settings, Embedder(), str(tiny_model_dir))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    together = asked.judge(turns)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert asked.judge(turns[::-1]) == together[::-1]
    assert asked.judge(turns[1:2]) == together[1:2]
    assert all(together)
    other = ConsistencyJudge(settings, Embedder(), str(tiny_model_dir), seed=1).judge(turns)
    assert [one and one.score for one in other] != [one and one.score for one in together]


def test_a_prompt_is_answered_once(
    tiny_model_dir: Path, hashed_embeddings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def generate(model: Any, tokenizer: Any, prompts: Any, *args: Any, **options: Any) -> list[list[int]]:
        asked.append(prompts)
        return [tokenizer(text).input_ids for text in ("one", "two", "three")]

    monkeypatch.setattr("letheon.evaluate.generation.generate", generate)
    found = judge(tiny_model_dir, Embedder()).judge([make_turn("same", "a"), make_turn("same", "b")])
    assert len(asked) == 1
    assert all(found)


def test_the_model_under_treatment_is_asked_by_default(tiny_model_dir: Path, embedder: Embedder) -> None:
    settings = Screen(judges=["consistency"])
    check_judges(settings, str(tiny_model_dir))
    (made,) = build_judges(settings, embedder, model=str(tiny_model_dir))
    assert made.name.startswith(f"consistency:{tiny_model_dir.resolve().name}@")
    with pytest.raises(InputError, match="set screen.consistency.model"):
        build_judges(settings, embedder)
    with pytest.raises(InputError, match="nowhere: no such model folder"):
        check_judges(Screen(judges=["consistency"], consistency=Consistency(model="./nowhere")), str(tiny_model_dir))
