"""Screen a log of any length: batch by batch, in bounded memory, and taken up again where it was cut off."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from letheon.records import Dialogue, Turn, Verdict, write_text
from letheon.screen.duplicates import Duplicates, Judged

BATCH = 1024
"""Dialogues that are judged together, and again where a screening was cut off among them."""

Judge = Callable[[list[Turn]], list[Verdict]]


def screen_stream(
    dialogues: Iterable[Dialogue], judge: Judge, into: Path, key: str, duplicates: Duplicates | None = None
) -> Iterator[tuple[Sequence[Turn], bool]]:
    """Judge every assistant turn of a log, and write a verdict a line.

    Until all are there they grow in a file beside `into`. Where one has been left by an earlier call with the same
    key, its whole batches are kept, and the verdicts are those of an unbroken call.

    Args:
        dialogues: The log, from its beginning.
        judge: Gives each turn its verdict.
        into: Where the verdicts are in the end.
        key: Stands for all that they depend on.
        duplicates: Finds turns that say the same, which then have one verdict; None judges each.

    Yields:
        Of each batch its turns, and whether an earlier call had judged them.
    """
    partial, key_file = into.with_name(into.name + ".partial"), into.with_name(into.name + ".key")
    if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
        partial.unlink(missing_ok=True)
        write_text(key_file, key)
    partial.touch()
    with partial.open("r+b") as file:
        known = True
        for batch in _batches(dialogues):
            turns = [turn for dialogue in batch for turn in dialogue.turns()]
            start = file.tell()
            left = _read(file, turns) if known else None
            known = left is not None
            verdicts = _judge(turns, judge, duplicates, left)
            if not known:
                file.seek(start)
                file.truncate()
                file.write("".join(f"{one.model_dump_json(exclude_none=True)}\n" for one in verdicts).encode())
                file.flush()
            yield turns, known
        file.truncate()
        os.fsync(file.fileno())
    partial.replace(into)
    key_file.unlink()


def _batches(dialogues: Iterable[Dialogue]) -> Iterator[list[Dialogue]]:
    waiting = iter(dialogues)
    while batch := list(islice(waiting, BATCH)):
        yield batch


def _read(file: IO[bytes], turns: Sequence[Turn]) -> list[Verdict] | None:
    """The verdicts on these turns that an earlier call has left; None where it was cut off among them."""
    verdicts = []
    for turn in turns:
        line = file.readline()
        try:
            verdict = Verdict.model_validate_json(line) if line.endswith(b"\n") else None
        except ValidationError:
            verdict = None
        if verdict is None or (verdict.id, verdict.turn) != (turn.dialogue.id, turn.index):
            return None
        verdicts.append(verdict)
    return verdicts


def _judge(
    turns: list[Turn], judge: Judge, duplicates: Duplicates | None, left: list[Verdict] | None
) -> list[Verdict]:
    """Verdicts on the turns of a batch; those that are left from an earlier call are remembered alone."""
    if duplicates is None:
        return left if left is not None else judge(turns)
    standing = [duplicates.of(turn) for turn in turns]
    new = [number for number, (_, itself) in enumerate(standing) if itself]
    given = [left[number] for number in new] if left is not None else judge([turns[number] for number in new])
    for number, verdict in zip(new, given, strict=True):
        standing[number][0].verdict = verdict
    return left or [_shared(turn, judged) for turn, (judged, _) in zip(turns, standing, strict=True)]


def _shared(turn: Turn, judged: Judged) -> Verdict:
    """The verdict on a turn like this one. Where words differ, a place among them would mislead."""
    assert judged.verdict is not None
    changes = {"id": turn.dialogue.id, "turn": turn.index}
    return judged.verdict.model_copy(update=changes if judged.is_exactly(turn) else {**changes, "span": None})
