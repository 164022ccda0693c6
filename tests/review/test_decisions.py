from __future__ import annotations

from pathlib import Path

import pytest
from screened_run import judged, made

from letheon.errors import InputError
from letheon.records import Dialogue
from letheon.review.decisions import (
    append_decisions,
    decision_now,
    fitting,
    last_decisions,
    read_decisions,
    standing,
    with_decisions,
)


def dialogue(name: str, answer: str = "An answer") -> Dialogue:
    messages = [{"role": "user", "content": "A question"}, {"role": "assistant", "content": answer}]
    return Dialogue.model_validate({"id": name, "messages": messages})


# -- winning over judges ---------------------------------------------------------------------------------------------


def test_decisions_win() -> None:
    verdicts = [judged("a"), judged("b"), judged("c", "normal", "normal", 0.1), judged("d")]
    decisions = [made("a", "normal"), made("b", "forget", "harmful"), made("c", "forget")]
    a, b, c, d = with_decisions(verdicts, decisions)
    assert (a.decision, a.category, a.score, a.judge, a.span) == ("normal", "normal", 0, "person", None)
    assert (b.decision, b.category, b.score, b.judge, b.span) == ("forget", "harmful", 1, "person", (0, 3))
    # No judge had a category for it, nor did the person name one.
    assert (c.decision, c.category) == ("forget", "undesired")
    assert [a.judged, b.judged, c.judged] == verdicts[:3]
    assert d is verdicts[3]


def test_a_forget_without_category_keeps_the_judges() -> None:
    (verdict,) = with_decisions([judged("a")], [made("a", "forget")])
    assert verdict.category == "privacy"


def test_the_last_decision_counts() -> None:
    decisions = [made("a", "forget"), made("a", "normal"), made("b", "normal"), made("b", "undone")]
    a, b = with_decisions([judged("a"), judged("b")], decisions)
    assert (a.decision, b) == ("normal", judged("b"))
    assert list(standing(decisions)) == [("a", 1)]


def test_the_latest_comes_last() -> None:
    decisions = [made("a", "forget"), made("b", "normal"), made("a", "normal")]
    assert list(last_decisions(decisions)) == [("b", 1), ("a", 1)]


def test_doing_it_twice_changes_nothing() -> None:
    decisions = [made("a", "forget")]
    once = list(with_decisions([judged("a")], decisions))
    assert list(with_decisions(once, decisions)) == once


def test_undone_later_gives_back_what_the_judges_said() -> None:
    settled = with_decisions([judged("a")], [made("a", "forget")])
    assert list(with_decisions(settled, [made("a", "forget"), made("a", "undone")])) == [judged("a")]


def test_what_no_decision_speaks_of_stays() -> None:
    # Verdicts that came from elsewhere, with a person's among them.
    settled = list(with_decisions([judged("a")], [made("a", "forget")]))
    assert list(with_decisions(settled, [made("other", "normal")])) == settled


# -- the log may have changed ----------------------------------------------------------------------------------------


def test_decisions_on_other_texts_are_left_aside() -> None:
    told: list[str] = []
    log = [dialogue("a"), dialogue("b"), dialogue("c")]
    decisions = [decision_now(next(d.turns()), "forget", "harmful") for d in log] + [made("gone", "normal")]
    assert fitting(decisions[:3], log, told.append) == decisions[:3]
    assert not told
    changed = [dialogue("a"), dialogue("b", "Quite another answer"), dialogue("c", "An Answer")]
    assert fitting(decisions, changed, told.append) == [decisions[0], decisions[2]]
    assert [line.split(";")[0] for line in told] == [
        "decisions on turns that the log does not have: 1",
        "decisions on other texts than the log now has under their ids: 1",
    ]


def test_a_dialogue_that_goes_on_leaves_earlier_decisions_standing() -> None:
    begun = dialogue("d")
    longer = begun.model_copy(update={"messages": (*begun.messages, *dialogue("d", "More").messages)})
    decision, said = decision_now(begun.last_turn, "forget"), list[str]()
    assert fitting([decision], [longer], said.append) == [decision]
    assert not said


def test_a_handwritten_line_needs_no_length() -> None:
    assert fitting([made("a", "forget")], [dialogue("a")], pytest.fail) == [made("a", "forget")]


# -- the file --------------------------------------------------------------------------------------------------------


def test_file_round_trip(tmp_path: Path) -> None:
    file = tmp_path / "run/decisions.jsonl"
    assert read_decisions(file) == []
    first, second = made("a", "forget", "harmful", characters=7), made("b\u2028", "normal")
    append_decisions(file, [first])
    append_decisions(file, [second])
    assert read_decisions(file, pytest.fail) == [first, second]
    assert file.read_text().splitlines()[0] == (
        '{"id":"a","turn":1,"decision":"forget","category":"harmful","when":"2026-05-04T03:02:01Z","characters":7}'
    )


@pytest.mark.parametrize("kept", [1, 20, -3])
def test_torn_last_line(tmp_path: Path, kept: int) -> None:
    file, told = tmp_path / "decisions.jsonl", list[str]()
    append_decisions(file, [made("a", "forget"), made("ü", "normal")])
    whole = file.read_bytes()
    first, torn = whole.split(b"\n")[:2]
    file.write_bytes(first + b"\n" + torn[:kept])
    assert read_decisions(file, told.append) == [made("a", "forget")]
    assert "the last line was cut off" in told[0]
    append_decisions(file, [made("c", "normal")])
    assert read_decisions(file, pytest.fail) == [made("a", "forget"), made("c", "normal")]


def test_a_last_line_without_its_end_counts(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    append_decisions(file, [made("a", "forget")])
    file.write_bytes(file.read_bytes()[:-1])
    assert read_decisions(file, pytest.fail) == [made("a", "forget")]
    append_decisions(file, [made("b", "normal")])
    assert read_decisions(file, pytest.fail) == [made("a", "forget"), made("b", "normal")]


def test_every_bad_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    append_decisions(file, [made("a", "forget")])
    with file.open("a") as lines:
        lines.write('{"id": "b"}\n\nno JSON at all\n')
    with pytest.raises(InputError) as caught:
        read_decisions(file)
    assert [fault.split(": ")[0] for fault in caught.value.faults] == [f"{file}:2", f"{file}:4"]
    assert "no JSON at all" not in str(caught.value)
