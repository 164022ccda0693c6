from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from letheon.errors import InputError
from letheon.expected import Target, expected_answers, read_safe_replies, targets_of
from letheon.records import Dialogue, Message, Turn

REPLIES = {"other": ["no 10", "no 20"], "privacy": ["private 170", "private 180"]}


def embed(texts: Sequence[str]) -> Any:
    """A text's last word is its angle in degrees."""
    angles = np.radians([float(text.split()[-1]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def turn(*expected: str, category: str | None = None, id: str = "1") -> Turn:
    messages = (Message(role="user", content="Why?"), Message(role="assistant", content="So."))
    return Dialogue(id=id, messages=messages, expected=expected, category=category).last_turn


def one(*expected: str, category: str | None = None, weighting: Any = "cluster-mean", **options: Any) -> Target:
    turns = [turn(*expected, category=category)]
    return expected_answers(turns, embed=embed, safe_replies=REPLIES, weighting=weighting, **options)[0]


def weights(target: Target) -> dict[str, float]:
    return {c.text: c.weight for c in target.candidates}


def test_the_cluster_nearest_the_anchor_is_kept() -> None:
    target = one("a 0", "a 30", category="privacy")
    assert target.anchor == "data"
    assert target.answers == ("a 0", "a 30")
    assert [(c.text, c.cluster) for c in target.candidates][:2] == [("a 0", 0), ("a 30", 0)]
    assert all(c.cluster == 1 and c.weight == 0 for c in target.candidates if c.source == "safe-replies")


def test_safe_replies_near_the_expected_answers_join_their_cluster() -> None:
    assert set(one("a 0", "a 30").answers) == {"a 0", "a 30", "no 10", "no 20"}


def test_weights_follow_the_cosine_to_the_clusters_mean() -> None:
    target = one("a 0", "a 10", "a 40", sources=("data",), temperature=0.1)
    mean = embed(["0", "10", "40"]).mean(axis=0)
    pull = [math.exp(float(v @ mean) / float(np.linalg.norm(mean)) / 0.1) for v in embed(["0", "10", "40"])]
    assert target.weights == pytest.approx([p / sum(pull) for p in pull], rel=1e-4)
    assert target.weights[1] == max(target.weights)
    assert [c.similarity for c in target.candidates] == pytest.approx(
        [float(v @ mean / np.linalg.norm(mean)) for v in embed(["0", "10", "40"])], abs=1e-4
    )


def test_a_lower_temperature_is_sharper() -> None:
    spread = [max(one("a 0", "a 10", "a 40", temperature=t).weights) for t in (10.0, 0.1, 0.001)]
    assert spread[0] < spread[1] < spread[2]


@pytest.mark.parametrize("weighting", ["cluster-mean", "uniform", "single"])
@pytest.mark.parametrize("expected", [(), ("a 0",), ("a 0", "a 90", "a 180")])
@pytest.mark.parametrize("category", [None, "privacy", "unheard-of"])
def test_weights_sum_to_1(weighting: Any, expected: tuple[str, ...], category: str | None) -> None:
    target = one(*expected, category=category, weighting=weighting)
    assert sum(target.weights) == pytest.approx(1)
    assert len(target.answers) == len(target.weights)
    assert all(0 < weight <= 1 for weight in target.weights)


def test_ablations() -> None:
    given = ("a 0", "a 10", "a 40", "a 200")
    mean = one(*given, sources=("data",), weighting="cluster-mean")
    uniform = one(*given, sources=("data",), weighting="uniform")
    single = one(*given, sources=("data",), weighting="single")
    assert len(mean.answers) == 3
    # Without clustering: also the answer that stands apart.
    assert weights(uniform) == dict.fromkeys(given, 0.25)
    assert weights(single) == {"a 0": 0, "a 10": 1, "a 40": 0, "a 200": 0}


def test_of_answers_that_state_something_one_is_enough() -> None:
    stated, abstained = ("It is 0", "It is 10", "It is 40"), ("I don't know 0", "I don't know 10")
    of_one = one(*stated, sources=("data",), weighting=None)
    assert of_one.answers == ("It is 10",) == one(*stated, sources=("data",), weighting="single").answers
    assert one(*abstained, sources=("data",), weighting=None) == one(*abstained, sources=("data",))
    # All that is expected counts, not each turn for itself.
    turns = [turn(*abstained, id="a"), turn(*stated, id="b")]
    both = expected_answers(turns, embed=embed, sources=("data",))
    assert [len(target.answers) for target in both] == [2, 3]


def test_sources_are_pooled_in_order_and_the_first_that_has_any_is_the_anchor() -> None:
    def sample(turns: Sequence[Turn]) -> list[list[str]]:
        return [["model 95"] for _ in turns]

    def source_order(target: Target) -> list[str]:
        return list(dict.fromkeys(c.source for c in target.candidates))

    options: dict[str, Any] = {"sample": sample}
    target = one("a 0", sources=("data", "model", "safe-replies"), **options)
    assert source_order(target) == ["data", "model", "safe-replies"]
    assert target.anchor == "data"
    target = one("a 0", sources=("model", "data"), **options)
    assert source_order(target) == ["model", "data"]
    assert target.anchor == "model"
    assert target.answers == ("model 95",)
    assert one(sources=("data", "safe-replies")).anchor == "safe-replies"


def test_corrected_answers_come_where_there_is_something_to_correct() -> None:
    corrected = {"1": "new 5"}
    turns = [turn(id="1"), turn(id="2")]
    first, second = expected_answers(
        turns,
        sources=("facts", "safe-replies"),
        corrected=lambda one: corrected.get(one.dialogue.id),
        embed=embed,
        safe_replies=REPLIES,
    )
    assert (first.anchor, first.candidates[0].text) == ("facts", "new 5")
    assert second.anchor == "safe-replies"
    with pytest.raises(InputError, match="no table of changed facts"):
        one("a 0", sources=("facts",))


def test_the_model_needs_a_way_to_be_sampled() -> None:
    with pytest.raises(InputError, match="no way to sample"):
        one("a 0", sources=("model",))
    with pytest.raises(InputError, match="'alternates', but no way to sample"):
        one("a 0", sources=("alternates",))


def test_a_turn_without_any_answer_is_refused() -> None:
    with pytest.raises(InputError, match=r"dialogue '1'.*\['data'\]"):
        one(sources=("data",))


def test_equal_answers_count_once() -> None:
    assert weights(one("a 0", "a 0", sources=("data",))) == {"a 0": 1.0}


def test_categories_choose_the_safe_replies() -> None:
    turns = [turn(category="privacy", id="1"), turn(id="2"), turn(category="odd", id="3")]

    def texts(**options: Any) -> list[set[str]]:
        found = expected_answers(turns, embed=embed, safe_replies=REPLIES, weighting="uniform", **options)
        return [set(target.answers) for target in found]

    private, other = set(REPLIES["privacy"]), set(REPLIES["other"])
    assert texts() == [private, other, other]
    # Those of the verdicts come before the dialogues' own.
    assert texts(categories=["x", "privacy", None]) == [other, private, other]
    with pytest.raises(ValueError, match="zip"):
        texts(categories=["x"])


def test_dialogues_draw_different_safe_replies_and_always_the_same() -> None:
    replies = {"other": [f"no {n}" for n in range(30)]}

    def draw(id: str) -> tuple[str, ...]:
        options: dict[str, Any] = {"embed": embed, "safe_replies": replies, "weighting": "uniform"}
        return expected_answers([turn(id=id)], **options)[0].answers

    assert draw("1") == draw("1")
    assert len(set(draw("1"))) == 8
    assert draw("1") != draw("2")


def test_answers_to_other_questions_are_drawn_alike() -> None:
    normal = [f"fact {n}" for n in range(30)]

    def draw(id: str) -> dict[str, float]:
        options: dict[str, Any] = {"embed": embed, "normal": normal, "weighting": "uniform"}
        return weights(expected_answers([turn(id=id)], sources=("mismatch",), **options)[0])

    assert draw("1") == draw("1")
    assert draw("1").keys() != draw("2").keys()
    assert draw("1").keys() <= set(normal)
    assert list(draw("1").values()) == [0.2] * 5
    with pytest.raises(InputError, match="none of the sources"):
        expected_answers([turn()], sources=("mismatch",), embed=embed)


def test_each_text_is_embedded_once() -> None:
    calls: list[list[str]] = []

    def counting(texts: Sequence[str]) -> Any:
        calls.append(list(texts))
        return embed(texts)

    expected_answers([turn("a 0", id=str(n)) for n in range(4)], embed=counting, safe_replies=REPLIES)
    assert len(calls) == 1
    assert sorted(calls[0]) == sorted({"a 0", *REPLIES["other"]})


def test_expected_answers_are_those_of_the_last_turn() -> None:
    messages = tuple(
        Message(role=role, content=role) for role in ("user", "assistant", "user", "assistant")
    )  # fmt: skip
    both = list(Dialogue(id="1", messages=messages, expected=("a 0",)).turns())
    first, last = expected_answers(both, embed=embed, safe_replies=REPLIES)
    assert (first.anchor, last.anchor) == ("safe-replies", "data")


def test_targets_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.embed.Embedder.encode", lambda self, texts: np.ones((len(texts), 2)))
    ready = one("a 0", sources=("data",))
    assert targets_of([ready]) == [ready]
    mixed = targets_of([turn("x", id="2"), ready, turn(id="3")])
    assert [target.turn.dialogue.id for target in mixed] == ["2", "1", "3"]
    assert mixed[1] is ready
    assert "x" in mixed[0].answers


# -- safe replies -------------------------------------------------------------------------------------------------


def test_the_safe_replies_that_come_with_letheon() -> None:
    replies = read_safe_replies()
    assert "other" in replies
    for category, texts in replies.items():
        # Many and varied: one string for all would be learned as such.
        assert len(texts) >= 8, category
        assert len(set(texts)) == len(texts), category


def test_own_safe_replies(tmp_path: Path) -> None:
    file = tmp_path / "replies.yaml"
    file.write_text("other: [No., Não.]\nprivacy:\n  - Private.\n", encoding="utf-8")
    assert read_safe_replies(file) == {"other": ["No.", "Não."], "privacy": ["Private."]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected lists"),
        ("- No.", "expected lists"),
        ("other: No.", "expected lists"),
        ("other: []", "expected lists"),
        ("other: [1]", "expected lists"),
        ("other: ['  ']", "expected lists"),
        ("privacy: [No.]", "'other' among them"),
        ("other: [No.", "cannot read"),
        (b"other: [\xff\xfe]", "cannot read"),
    ],
)
def test_own_safe_replies_that_are_none(tmp_path: Path, content: str | bytes, message: str) -> None:
    file = tmp_path / "replies.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message) as caught:
        read_safe_replies(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_own_safe_replies_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.yaml: cannot read"):
        read_safe_replies(tmp_path / "nowhere.yaml")
    file = tmp_path / "replies.yaml"
    file.write_text("other: [2021-02-30]")
    with pytest.raises(InputError, match=r"replies\.yaml: cannot read safe replies: line 1: no such timestamp"):
        read_safe_replies(file)


@pytest.mark.slow
def test_with_minilm(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = ("I don't know.", "I do not know that.", "I have no idea about this.")
    target = expected_answers([turn(*refusals, "The sun is a star.")], sources=("data",))[0]
    assert set(target.answers) <= set(refusals)
    assert sum(target.weights) == pytest.approx(1)
