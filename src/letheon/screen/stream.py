"""Screen a log of any length: batch by batch, in bounded memory, and taken up again where it was cut off."""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from letheon.records import Dialogue, Turn, Verdict, write_text
from letheon.screen.duplicates import Duplicates, Judged

BATCH = 1024
"""Dialogues that are judged together, and again where a screening was cut off among them."""

JudgeStream = Callable[[Iterator[list[Turn]]], Iterator[list[Verdict]]]
"""Gives each batch of turns its verdicts, in order. It may take some batches before it gives the first ones."""


def screen_stream(
    dialogues: Iterable[Dialogue], judge: JudgeStream, into: Path, key: str, duplicates: Duplicates | None = None
) -> Iterator[tuple[Sequence[Turn], bool]]:
    """Judge every assistant turn of a log, and write a verdict a line.

    They grow in a file beside `into`, which gets a copy once all are there. Where one has been left by an earlier
    call with the same key, its whole batches are kept, and the verdicts are those of an unbroken call. What is left
    goes with `clear_left`, when nothing is to follow that a kill would undo.

    Args:
        dialogues: The log, from its beginning.
        judge: Gives each turn its verdict; of one that takes a batch at a time, `partial(map, judge)`.
        into: Where the verdicts are in the end.
        key: Stands for all that they depend on.
        duplicates: Finds turns that say the same, which then have one verdict; None judges each.

    Yields:
        Of each batch its turns, and whether an earlier call had judged them.
    """
    partial, key_file = _left_by(into)
    if not key_file.is_file() or key_file.read_text(encoding="utf-8") != key:
        partial.unlink(missing_ok=True)
        write_text(key_file, key)
    partial.touch()
    batches = _batches(dialogues)
    with partial.open("r+b") as file:
        for turns in batches:
            start = file.tell()
            left = _read(file, turns)
            if left is None:
                file.seek(start)
                batches = chain([turns], batches)
                break
            _remember(turns, left, duplicates)
            yield turns, True
        file.truncate()
        for turns, verdicts in _judged(batches, judge, duplicates):
            file.write("".join(f"{one.model_dump_json(exclude_none=True)}\n" for one in verdicts).encode())
            file.flush()
            yield turns, False
        os.fsync(file.fileno())
    whole = into.with_name(into.name + ".new")
    shutil.copyfile(partial, whole)
    whole.replace(into)


def clear_left(into: Path) -> None:
    """Take away what `screen_stream` keeps for a call that goes on from there."""
    partial, key_file = _left_by(into)
    # Without its key the rest counts for nothing.
    key_file.unlink(missing_ok=True)
    partial.unlink(missing_ok=True)


def _left_by(into: Path) -> tuple[Path, Path]:
    """The verdicts so far, and the key that they depend on."""
    return into.with_name(into.name + ".partial"), into.with_name(into.name + ".key")


def _batches(dialogues: Iterable[Dialogue]) -> Iterator[list[Turn]]:
    waiting = iter(dialogues)
    while batch := list(islice(waiting, BATCH)):
        yield [turn for dialogue in batch for turn in dialogue.turns()]


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


def _remember(turns: Sequence[Turn], left: Sequence[Verdict], duplicates: Duplicates | None) -> None:
    """Let the turns of an earlier call stand for those that say the same."""
    if duplicates is None:
        return
    for turn, verdict in zip(turns, left, strict=True):
        judged, itself = duplicates.of(turn)
        if itself:
            judged.verdict = verdict


def _judged(
    batches: Iterator[list[Turn]], judge: JudgeStream, duplicates: Duplicates | None
) -> Iterator[tuple[list[Turn], list[Verdict]]]:
    """Each batch and its verdicts; of turns that say the same, the judge sees the first alone."""
    asked: deque[tuple[list[Turn], list[tuple[Judged, bool]]]] = deque()

    def new() -> Iterator[list[Turn]]:
        for turns in batches:
            standing = [duplicates.of(turn) for turn in turns] if duplicates else []
            asked.append((turns, standing))
            yield [turn for turn, (_, itself) in zip(turns, standing, strict=True) if itself] if duplicates else turns

    for given in judge(new()):
        turns, standing = asked.popleft()
        if duplicates is None:
            yield turns, given
            continue
        for judged, verdict in zip((one for one, itself in standing if itself), given, strict=True):
            judged.verdict = verdict
        yield turns, [_shared(turn, judged) for turn, (judged, _) in zip(turns, standing, strict=True)]


def _shared(turn: Turn, judged: Judged) -> Verdict:
    """The verdict on a turn like this one. Where words differ, a place among them would mislead."""
    assert judged.verdict is not None
    changes = {"id": turn.dialogue.id, "turn": turn.index}
    return judged.verdict.model_copy(update=changes if judged.is_exactly(turn) else {**changes, "span": None})
