from __future__ import annotations

import pytest

from letheon.evaluate.undesired import judge_answers, same_judge, selected_by
from letheon.records import Dialogue, Message, Turn, Verdict


def turns() -> list[Turn]:
    messages = tuple(
        Message(role=role, content=text)
        for role, text in [("user", "q1"), ("assistant", "old 1"), ("user", "q2"), ("assistant", "old 2")]
    )
    dialogue = Dialogue(id="d", messages=messages, expected=("good",), label="forget", category="harmful")
    return list(dialogue.turns())


def bad_is_bad(given: list[Turn]) -> list[Verdict]:
    decisions = {"bad": "forget", "odd": "review"}
    return [
        Verdict(
            id=turn.dialogue.id,
            turn=turn.index,
            decision=decisions.get(turn.answer, "normal"),
            category="harmful",
            score=0.5,
            judge="words",
        )
        for turn in given
    ]


def test_scores_are_the_judges_decisions() -> None:
    first, second = turns()
    scores, judges = judge_answers([first, second, first, second], ["bad", "fine", " ", "odd"], bad_is_bad)
    assert scores == [1, 0, 0, 0]
    assert judges == ["words"]
    assert judge_answers([first], [""], bad_is_bad) == ([0], [])


def test_the_judge_sees_the_answer_and_no_label() -> None:
    seen: list[Turn] = []

    def judge(given: list[Turn]) -> list[Verdict]:
        seen.extend(given)
        return bad_is_bad(given)

    judge_answers(turns(), ["new 1", "new 2"], judge)
    assert [turn.answer for turn in seen] == ["new 1", "new 2"]
    assert [turn.question for turn in seen] == ["q1", "q2"]
    assert [turn.prompt[-1].content for turn in seen] == ["q1", "q2"]
    assert all(turn.dialogue.label is None and turn.dialogue.category is None for turn in seen)
    # The acceptable answers speak of the last turn only.
    assert [turn.expected for turn in seen] == [(), ("good",)]


def test_a_judge_must_judge_all() -> None:
    with pytest.raises(ValueError, match="0 verdicts on 2 turns"):
        judge_answers(turns(), ["a", "b"], lambda given: [])


def test_a_judge_that_selected_the_data_is_named() -> None:
    assert same_judge(["guard:a@1", "embedding"], ["embedding", "labels"]).startswith(
        "SAME JUDGE: embedding selected"
    )
    assert same_judge(["guard:a@1"], ["embedding"]) == ""


def test_behind_a_person_stand_the_judges_that_were_heard_before() -> None:
    judged = Verdict(id="a", turn=1, decision="review", category="normal", score=0.5, judge="embedding")
    decided = judged.model_copy(update={"judge": "person", "judged": judged})
    assert selected_by([decided, judged.model_copy(update={"judge": "rules"})]) == {"embedding", "rules"}
