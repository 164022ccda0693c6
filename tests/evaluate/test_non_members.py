from __future__ import annotations

import pytest

from letheon.errors import InputError
from letheon.evaluate.non_members import check_non_members, learnable, pairs_of
from letheon.records import Dialogue, Message

LONG = "She was born in the little town of Hay-on-Wye in 1951."
TRAINED = {"forget.jsonl": [("Where was she born?", LONG)], "normal.jsonl": [("Can you swim?", "Yes, I can.")]}


def test_others_pass() -> None:
    others = [("Where was he born?", "In Rome."), ("Can you run?", "Yes, I can."), ("", "")]
    check_non_members("holdout.jsonl", others, TRAINED)
    check_non_members("holdout.jsonl", [], TRAINED)


@pytest.mark.parametrize(
    "pair",
    [
        ("Where was she born?", LONG),
        ("where was she born", LONG.upper().replace("-", " ")),
        # A long answer is known again under any question, and without one.
        ("Her birthplace?", LONG),
        ("", LONG),
        ("Can you swim?", "Yes, I can!"),
    ],
)
def test_what_was_trained_on_is_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(InputError, match=r"holdout\.jsonl: row 2 stands in (forget|normal)\.jsonl as well") as error:
        check_non_members("holdout.jsonl", [("Who?", "Nobody."), pair], TRAINED)
    assert "Hay" not in str(error.value)
    assert "swim" not in str(error.value)


def test_a_long_answer_may_have_no_spaces() -> None:
    trained = {"log.jsonl": [("她在哪里出生？", "她出生在北京市海淀区中关村大街。"), ("会吗？", "我会。")]}
    with pytest.raises(InputError, match="row 2 stands in"):
        check_non_members(
            "holdout.jsonl", [("能吗？", "我会。"), ("出生地？", "她出生在北京市海淀区中关村大街")], trained
        )


def test_many_are_counted_and_every_file_named() -> None:
    others = [*TRAINED["normal.jsonl"], *TRAINED["forget.jsonl"] * 7]
    with pytest.raises(InputError) as error:
        check_non_members("holdout.jsonl", others, TRAINED)
    one, other = error.value.faults
    assert "rows 2, 3, 4, 5, 6 and 2 more stand in forget.jsonl" in one
    assert "row 1 stands in normal.jsonl" in other


def test_what_was_trained_on_is_not_held() -> None:
    # A log is longer than there is memory for.
    log = ((f"Question {n}?", f"{n}.") for n in range(1000))
    check_non_members("holdout.jsonl", [("Question 1000?", "1000.")], {"log.jsonl": log})
    assert next(log, None) is None


def test_pairs_of_turns() -> None:
    messages = [("user", "Who?"), ("assistant", "Ada."), ("user", "Who else?"), ("assistant", "Bob.")]
    talk = Dialogue(id="a", messages=tuple(Message(role=role, content=text) for role, text in messages))  # type: ignore[arg-type]
    assert list(pairs_of(talk.turns())) == [("Who?", "Ada."), ("Who else?", "Bob.")]
    # What is expected may have been learnt as well.
    expecting = talk.model_copy(update={"expected": ("Nobody.",)})
    assert list(learnable([expecting])) == [("Who?", "Ada."), ("Who else?", "Bob."), ("Who else?", "Nobody.")]
