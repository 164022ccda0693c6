from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from letheon.embed import Embedder
from letheon.errors import InputError
from letheon.recipe import Screen
from letheon.records import Dialogue, Message, Turn, Verdict, write_jsonl
from letheon.screen import Judge, Opinion, build_judges, score_screening, screen
from letheon.screen.embedding import everyday
from letheon.screen.labels import LabelsJudge


def dialogue(name: str, *answers: str, label: str | None = None, category: str | None = None) -> Dialogue:
    messages = [
        Message(role=role, content=text)
        for answer in answers or ("a",)
        for role, text in (("user", "q"), ("assistant", answer))
    ]
    return Dialogue.model_validate({"id": name, "messages": messages, "label": label, "category": category})


class Fixed:
    def __init__(self, name: str, *opinions: Opinion | None):
        self.name = name
        self.opinions = opinions

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        return [self.opinions[number % len(self.opinions)] for number in range(len(turns))]


def one(*judges: Judge, forget_above: float = 0.7, normal_below: float = 0.3) -> Verdict:
    (verdict,) = screen([dialogue("x")], judges, forget_above=forget_above, normal_below=normal_below)
    return verdict


@pytest.mark.parametrize(
    ("score", "decision", "category"),
    [
        (0.0, "normal", "normal"),
        (0.29, "normal", "normal"),
        (0.3, "review", "harmful"),
        (0.69, "review", "harmful"),
        (0.7, "forget", "harmful"),
        (1.0, "forget", "harmful"),
    ],
)
def test_thresholds(score: float, decision: str, category: str) -> None:
    verdict = one(Fixed("j", Opinion("harmful", score, (0, 1), "why")))
    assert (verdict.decision, verdict.category, verdict.score) == (decision, category, score)
    assert verdict.span == (None if decision == "normal" else (0, 1))


def test_equal_thresholds_leave_no_review_band() -> None:
    assert one(Fixed("j", Opinion("harmful", 0.5)), forget_above=0.5, normal_below=0.5).decision == "forget"
    assert one(Fixed("j", Opinion("harmful", 0.49)), forget_above=0.5, normal_below=0.5).decision == "normal"


def test_the_highest_category_decides_and_its_judge_is_named() -> None:
    judges = [
        Fixed("a", Opinion("harmful", 0.6)),
        Fixed("b", Opinion("privacy", 0.8, (1, 2))),
        Fixed("c", Opinion("harmful", 0.7)),
        Fixed("d", None),
    ]
    verdict = one(*judges)
    assert (verdict.judge, verdict.category, verdict.score, verdict.span) == ("b", "privacy", 0.8, (1, 2))


def test_at_a_tie_the_earlier_judge_decides() -> None:
    assert one(Fixed("a", Opinion("harmful", 0.8)), Fixed("b", Opinion("privacy", 0.8))).judge == "a"


def test_without_any_opinion_a_person_looks() -> None:
    verdict = one(Fixed("a", None))
    assert (verdict.decision, verdict.judge, verdict.score) == ("review", "none", 0.5)


@pytest.mark.parametrize(
    ("opinions", "decision", "judge", "score"),
    [
        ([Opinion("harmful", 0.0, reason="spent", unable=True)], "review", "0", 0.5),
        ([Opinion("privacy", 0.1), Opinion("harmful", 0.2, reason="spent", unable=True)], "review", "1", 0.5),
        ([Opinion("privacy", 0.9), Opinion("harmful", 0.0, reason="spent", unable=True)], "forget", "0", 0.9),
        ([Opinion("privacy", 0.1), Opinion("harmful", 0.8, unable=True)], "forget", "1", 0.8),
        ([Opinion("privacy", 0.5), Opinion("harmful", 0.0, reason="spent", unable=True)], "review", "1", 0.5),
    ],
)
def test_where_a_judge_could_not_look_a_person_does(
    opinions: list[Opinion], decision: str, judge: str, score: float
) -> None:
    verdict = one(*(Fixed(str(number), opinion) for number, opinion in enumerate(opinions)))
    assert (verdict.decision, verdict.judge, verdict.score) == (decision, judge, score)
    assert (verdict.reason == "spent") == (decision == "review")


def test_a_judge_that_could_not_look_is_no_reason_to_forget() -> None:
    silent = Fixed("j", Opinion("harmful", 0.0, unable=True))
    assert one(silent, forget_above=0.5, normal_below=0.5).decision == "review"


def test_who_finds_nothing_is_no_reason_to_forget() -> None:
    assert one(Fixed("j", Opinion("normal", 0.9))).decision == "review"


def test_every_assistant_turn_is_judged_in_order() -> None:
    verdicts = screen([dialogue("x", "a", "b"), dialogue("y")], [Fixed("j", Opinion("harmful", 0.1))])
    assert [(v.id, v.turn) for v in verdicts] == [("x", 1), ("x", 3), ("y", 1)]


def test_labels() -> None:
    log = [
        dialogue("bad", "a", "b", label="forget", category="harmful"),
        dialogue("unnamed", label="forget"),
        dialogue("good", label="normal", category="harmful"),
        dialogue("unknown"),
    ]
    turns = [turn for d in log for turn in d.turns()]
    opinions = [o and (o.category, o.score) for o in LabelsJudge().judge(turns)]
    assert opinions == [("normal", 0), ("harmful", 1), ("undesired", 1), ("normal", 0), None]


def test_score_screening_counts_review_as_not_forgotten() -> None:
    log = [
        dialogue(name, label=label)
        for name, label in zip("abcd", ["forget", "forget", "forget", "normal"], strict=True)
    ]
    judge = Fixed("j", *(Opinion("harmful", score) for score in (0.9, 0.5, 0.1, 0.9)))
    found = score_screening(screen(log, [judge], forget_above=0.7, normal_below=0.3), log)
    assert (found.precision, found.recall) == (1 / 2, 1 / 3)
    assert (found.n, found.forget, found.review, found.normal) == (4, 2, 1, 1)


def test_scores_say_how_many_decisions_they_expect_to_be_wrong() -> None:
    log = [dialogue(name, "answer") for name in "abcd"]
    scores = iter([0.9, 0.7, 0.2, 0.4])
    verdicts = [verdict for row in log for verdict in screen([row], [Fixed("j", Opinion("harmful", next(scores)))])]
    found = score_screening(verdicts, log)
    assert (found.forget, found.normal) == (2, 2)
    assert found.wrongly_forgotten == pytest.approx(0.1 + 0.3)
    assert found.missed == pytest.approx(0.2 + 0.4)


def test_score_screening_looks_at_last_turns_only() -> None:
    log = [dialogue("x", "a", "b", label="forget")]
    found = score_screening(screen(log, [Fixed("j", Opinion("harmful", 0.9))]), log)
    assert (found.precision, found.recall, found.n) == (1, 1, 2)


def test_a_label_neither_misses_nor_wrongs_an_earlier_turn() -> None:
    log = [dialogue("x", "a", "b", label="forget"), dialogue("y", "a", "b", label="normal")]
    judge = Fixed("j", *(Opinion("harmful", score) for score in (0.1, 0.9, 0.9, 0.1)))
    found = score_screening(screen(log, [judge]), log)
    assert (found.precision, found.recall, found.n) == (1, 1, 4)


def test_without_labels_there_is_no_precision_or_recall() -> None:
    log = [dialogue("x")]
    found = score_screening(screen(log, [Fixed("j", Opinion("harmful", 0.9))]), log)
    assert (found.precision, found.recall, found.forget) == (None, None, 1)


def test_the_embedding_judge_learns_from_ordinary_dialogues_too(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Sequence[Dialogue]] = []

    def fit(
        examples: Sequence[Dialogue], embedder: Embedder, background: Sequence[Dialogue], *_: int, **__: object
    ) -> Fixed:
        given.extend((examples, background))
        return Fixed("embedding")

    monkeypatch.setattr("letheon.screen.EmbeddingJudge.fit", fit)
    own = [dialogue("x", label="normal")]
    write_jsonl(tmp_path / "own.jsonl", own)
    build_judges(Screen(judges=["embedding"], examples=tmp_path / "own.jsonl"), embedder)
    assert given == [own, everyday()]


def test_judges_come_in_the_recipes_order(embedder: Embedder) -> None:
    judges = build_judges(Screen(judges=["contradiction", "labels", "privacy"]), embedder)
    assert [judge.name.split("@")[0] for judge in judges] == ["contradiction", "labels", "privacy"]


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"judges": []}, "name at least one of labels, embedding"),
        ({"judges": ["embedding"], "examples": "none.jsonl"}, "none.jsonl: no such file"),
        ({"judges": ["contradiction"], "knowledge": "none.txt"}, "no such file .screen.knowledge"),
        ({"judges": ["contradiction"], "knowledge": "empty.txt"}, "empty .screen.knowledge"),
        ({"judges": ["contradiction"], "knowledge": "latin.txt"}, "not readable as UTF-8"),
    ],
)
def test_bad_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, object], fault: str, embedder: Embedder
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.txt").write_text("\n")
    Path("latin.txt").write_bytes("é".encode("latin-1"))
    with pytest.raises(InputError, match=fault):
        build_judges(Screen.model_validate(settings), embedder)
