from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from letheon.records import Dialogue, Message, Turn, Verdict, read_verdicts
from letheon.screen import stream
from letheon.screen.duplicates import Duplicates
from letheon.screen.stream import clear_left, screen_stream

LONG = " ".join(f"word{n} is said" for n in range(40))


def dialogue(number: int, *answers: str, **more: object) -> Dialogue:
    messages = [Message(role="user", content=f"Question of {number % 3}?")]
    messages += [Message(role="assistant", content=answer) for answer in answers]
    return Dialogue(id=f"d{number}", messages=tuple(messages), **more)  # type: ignore[arg-type]


class Counting:
    """Remembers what it has judged; takes so many batches before it gives the first one's verdicts."""

    def __init__(self, ahead: int = 0) -> None:
        self.judged: list[str] = []
        self.ahead = ahead

    def __call__(self, batches: Iterator[list[Turn]]) -> Iterator[list[Verdict]]:
        waiting: list[list[Turn]] = []
        for turns in batches:
            waiting.append(turns)
            if len(waiting) > self.ahead:
                yield self.judge(waiting.pop(0))
        yield from map(self.judge, waiting)

    def judge(self, turns: list[Turn]) -> list[Verdict]:
        verdicts = []
        for turn in turns:
            self.judged.append(turn.dialogue.id)
            score = len(turn.answer) % 100 / 100
            place = {"id": turn.dialogue.id, "turn": turn.index, "span": (0, 1)}
            verdicts.append(
                Verdict.model_validate(
                    {**place, "decision": "review", "category": "x", "score": score, "judge": "counting"}
                )
            )
        return verdicts


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "BATCH", 4)


LOG = [dialogue(n, f"a{n % 7}" * (n % 5 + 1), *(["more"] if n % 4 == 0 else [])) for n in range(30)]


def test_every_turn_gets_a_verdict_in_the_order_of_the_log(tmp_path: Path) -> None:
    into = tmp_path / "verdicts.jsonl"
    batches = list(screen_stream(LOG, Counting(), into, "key"))
    assert [len({turn.dialogue.id for turn in turns}) for turns, _ in batches] == [4] * 7 + [2]
    wanted = [(one.id, turn.index) for one in LOG for turn in one.turns()]
    assert [(verdict.id, verdict.turn) for verdict in read_verdicts(into)] == wanted
    clear_left(into)
    assert [path.name for path in tmp_path.iterdir()] == ["verdicts.jsonl"]


OTHER = b'{"id": "other", "turn": 1, "decision": "normal", "category": "normal", "score": 0, "judge": "j"}\n'


def cut_off(log: Sequence[Dialogue], at: int) -> Iterator[Dialogue]:
    """A log that the machine dies over."""
    for number, one in enumerate(log):
        if number == at:
            raise KeyboardInterrupt
        yield one


@pytest.mark.parametrize("ahead", [0, 1, 3])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("torn", [b"", b'{"id": "d', b"\n\n", b'{"id": "other", "turn": 1}\n', OTHER * 8])
def test_a_screening_that_was_cut_off_twice_is_the_unbroken_one(
    tmp_path: Path, torn: bytes, shared: bool, ahead: int
) -> None:
    def known() -> Duplicates | None:
        return Duplicates() if shared else None

    whole = Counting()
    list(screen_stream(LOG, whole, tmp_path / "whole.jsonl", "key", known()))
    into, judge = tmp_path / "broken.jsonl", Counting(ahead)
    for end in (9, 21):
        with pytest.raises(KeyboardInterrupt):
            list(screen_stream(cut_off(LOG, end), judge, into, "key", known()))
        assert not into.exists()
        with into.with_name(into.name + ".partial").open("ab") as file:
            file.write(torn)
    last = list(screen_stream(LOG, judge, into, "key", known()))
    assert into.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    # What had been taken and not yet judged is taken again.
    assert [known for _, known in last] == [True] * (5 - ahead) + [False] * (3 + ahead)
    assert judge.judged == whole.judged


def test_a_screening_that_was_cut_off_at_its_end_judges_nothing_again(tmp_path: Path) -> None:
    into, judge = tmp_path / "verdicts.jsonl", Counting()
    list(screen_stream(LOG, judge, into, "key"))
    whole = into.read_bytes()
    # What was to follow had begun.
    into.write_bytes(b"")
    judge.judged.clear()
    list(screen_stream(LOG, judge, into, "key"))
    assert (judge.judged, into.read_bytes()) == ([], whole)
    clear_left(into)
    list(screen_stream(LOG, judge, into, "key"))
    assert judge.judged


def test_what_was_left_by_other_settings_is_judged_again(tmp_path: Path) -> None:
    into, judge = tmp_path / "verdicts.jsonl", Counting()
    with pytest.raises(KeyboardInterrupt):
        list(screen_stream(cut_off(LOG, 9), judge, into, "old", None))
    list(screen_stream(LOG, judge, into, "new", None))
    assert len(judge.judged) == 8 + 2 + len(read_verdicts(into))


def test_what_a_longer_log_has_left_does_not_stay(tmp_path: Path) -> None:
    into = tmp_path / "verdicts.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(screen_stream(cut_off(LOG, 12), Counting(), into, "key"))
    list(screen_stream(LOG[:8], Counting(), into, "key"))
    assert {verdict.id for verdict in read_verdicts(into)} == {one.id for one in LOG[:8]}


def verdicts_of(
    tmp_path: Path, log: Sequence[Dialogue], duplicates: Duplicates, ahead: int = 0
) -> tuple[list[str], list[Verdict]]:
    judge = Counting(ahead)
    list(screen_stream(log, judge, tmp_path / "verdicts.jsonl", "key", duplicates))
    clear_left(tmp_path / "verdicts.jsonl")
    return judge.judged, read_verdicts(tmp_path / "verdicts.jsonl")


def test_like_turns_are_judged_once(tmp_path: Path) -> None:
    near = LONG.replace("word20", "phrase20").upper()
    log = [
        dialogue(0, LONG),
        dialogue(3, LONG),
        dialogue(6, near + "!"),
        dialogue(9, f"{LONG} so that none of them will ever tell again what had been heard of those others"),
    ]
    judged, verdicts = verdicts_of(tmp_path, log, Duplicates())
    assert judged == ["d0", "d9"]
    assert verdicts[1] == verdicts[0].model_copy(update={"id": "d3"})
    assert verdicts[2] == verdicts[0].model_copy(update={"id": "d6", "span": None})


def test_a_turn_may_repeat_one_that_waits_for_its_verdict(tmp_path: Path) -> None:
    log = [dialogue(3 * n, "Yes." if n in (0, 5, 11) else f"no {n}") for n in range(12)]
    judged, verdicts = verdicts_of(tmp_path, log, Duplicates(), ahead=2)
    assert judged == [one.id for number, one in enumerate(log) if number not in (5, 11)]
    assert [verdicts[n] for n in (5, 11)] == [verdicts[0].model_copy(update={"id": f"d{3 * n}"}) for n in (5, 11)]


def test_a_turn_may_repeat_one_that_was_judged_before_a_screening_was_cut_off(tmp_path: Path) -> None:
    log = [dialogue(3 * n, "Yes." if n in (0, 6) else f"no {n}") for n in range(8)]
    into, judge = tmp_path / "verdicts.jsonl", Counting()
    with pytest.raises(KeyboardInterrupt):
        list(screen_stream(cut_off(log, 5), judge, into, "key", Duplicates()))
    list(screen_stream(log, judge, into, "key", Duplicates()))
    assert judge.judged == [one.id for number, one in enumerate(log) if number != 6]


def test_exact_repetitions_alone(tmp_path: Path) -> None:
    log = [dialogue(0, "Yes."), dialogue(3, "Yes."), dialogue(6, "yes")]
    assert verdicts_of(tmp_path, log, Duplicates(near=False))[0] == ["d0", "d6"]
    assert verdicts_of(tmp_path, log, Duplicates())[0] == ["d0"]


@pytest.mark.parametrize(
    "other",
    [
        dialogue(3, "Call 555-0193 now"),
        dialogue(1, "Call 555-0192 now"),
        dialogue(3, "Call 555-0192 now", label="forget"),
        dialogue(3, "Call 555-0192 now", expected=("No.",)),
        dialogue(3, "Call 555-0192 now", category="privacy"),
        dialogue(3, "Do not call 555-0192 now"),
    ],
    ids=["another number", "another question", "a label", "an expected answer", "a category", "a not"],
)
def test_what_a_judge_might_see_makes_a_turn_another(tmp_path: Path, other: Dialogue) -> None:
    judged, _ = verdicts_of(tmp_path, [dialogue(0, "Call 555-0192 now"), other], Duplicates())
    assert judged == ["d0", other.id]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("वह लड़का है", "वह लड़की है"),
        ("เสือ", "เสื้อ"),
        ("-39 degrees", "39 degrees"),
        ("3 > 2", "3 < 2"),
        ("C++", "C#"),
        ("C#", "C"),
        ("👍", "👎"),
    ],
)
def test_marks_and_symbols_make_a_turn_another(tmp_path: Path, one: str, other: str) -> None:
    assert verdicts_of(tmp_path, [dialogue(0, one), dialogue(3, other)], Duplicates())[0] == ["d0", "d3"]


def test_an_accent_of_its_own_and_a_hyphen_make_no_turn_another(tmp_path: Path) -> None:
    log = [dialogue(0, "Caf\u00e9 at 555-0192, `open`"), dialogue(3, "cafe\u0301 at 555 0192: open!")]
    assert verdicts_of(tmp_path, log, Duplicates())[0] == ["d0"]


def test_the_oldest_turns_are_forgotten(tmp_path: Path) -> None:
    duplicates = Duplicates(remembered=2)
    log = [dialogue(3 * n, answer) for n, answer in enumerate(["a", "b", "c", "c", "b", "a", "c"])]
    assert verdicts_of(tmp_path, log, duplicates)[0] == ["d0", "d3", "d6", "d15"]
