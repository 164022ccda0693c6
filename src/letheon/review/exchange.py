"""Decisions by file: out as labelled dialogues, or in from a queue that was filled in without a browser."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from letheon.console import Console
from letheon.dialogues import BAD_JSON, SHOWN_FAULTS, why_bad_json
from letheon.errors import InputError
from letheon.records import NORMAL, Dialogue, Message, PersonDecision, Record, Turn, first_fault, write_jsonl
from letheon.review.decisions import append_decisions, category_of, decision_now, standing
from letheon.review.serve import open_session
from letheon.review.session import checked_category
from letheon.review.settle import decisions_of, settle_unless_busy
from letheon.run import Run


class QueueRow(Record):
    """A line of the queue file. A person fills in `decision`, and may correct `category`.

    Attributes:
        decision: "" for undecided, "forget" or "normal".
        id: The dialogue's id.
        turn: Index of the judged message.
        category: What the judges think; of a "forget", what the person says.
        score: The judges'.
        judge: Whose score decided.
        reason: Why, in a sentence that quotes nothing.
        messages: The dialogue up to the judged answer, which comes last.
    """

    decision: Literal["", "forget", "normal"]
    id: str
    turn: int
    category: str = NORMAL
    score: float | None = None
    judge: str | None = None
    reason: str | None = None
    messages: tuple[Message, ...] = Field(default=())


def export_decided(run: Run, file: Path, console: Console) -> None:
    """Write the decided turns as labelled dialogues, texts and all, as `screen.examples` takes them.

    Raises:
        InputError: The file is there already, or nothing has been decided.
    """
    _refuse_to_overwrite(file, "--export")
    decided = standing(decisions_of(run, console.warn))
    if not decided:
        raise InputError(f"--export: nothing is decided yet; run 'letheon review {run.folder}' first")
    by_id = {dialogue.id: dialogue for dialogue in run.dialogues}
    verdicts = run.stream_verdicts() if run.verdicts_file.is_file() else ()
    judges = {(v.id, v.turn): (v.judged or v).category for v in verdicts if (v.id, v.turn) in decided}
    found = [_labelled(Turn(by_id[key[0]], key[1]), made, judges.get(key)) for key, made in decided.items()]
    write_jsonl(file, found)
    console.say(f"wrote {len(found)} labelled dialogues to {file}, with their texts")


def _labelled(turn: Turn, made: PersonDecision, judges: str | None) -> Dialogue:
    """A dialogue that ends with the decided turn; named after it where the log's own dialogue goes on."""
    whole, forget = turn.dialogue, made.decision == "forget"
    last = turn.index == whole.last_turn.index
    return Dialogue(
        id=whole.id if last else f"{whole.id}#{turn.index}",
        messages=whole.messages[: turn.index + 1],
        expected=turn.expected,
        category=category_of(made.category, judges, whole.category) if forget else None,
        subject=whole.subject,
        label="forget" if forget else "normal",
    )


def write_queue(run: Run, file: Path, console: Console) -> None:
    """Write the undecided turns, the most doubtful first, with their texts and a decision to fill in.

    Raises:
        InputError: The file is there already, or there is nothing to review.
    """
    _refuse_to_overwrite(file, "--queue")
    session = open_session(run, console)
    rows = []
    for number in session.numbers("waiting"):
        turn, verdict = session.items[number].turn, session.items[number].verdict
        rows.append(
            QueueRow(
                decision="",
                id=verdict.id,
                turn=verdict.turn,
                category=verdict.category,
                score=round(verdict.score, 4),
                judge=verdict.judge,
                reason=verdict.reason,
                messages=turn.dialogue.messages[: turn.index + 1],
            )
        )
    write_jsonl(file, rows)
    console.say(
        f'wrote {len(rows)} turns to {file}, with their texts, the most doubtful first: put "forget" or "normal" '
        f"into \"decision\" where you know, then 'letheon review {run.folder} --import {file}'"
    )


def import_queue(run: Run, file: Path, console: Console) -> None:
    """Take over the decisions of a queue file; lines without one are left as they are.

    Raises:
        InputError: Every fault by its line; nothing has been taken over then.
    """
    dialogues = {dialogue.id: dialogue for dialogue in run.dialogues}
    run.verdicts()
    faults: list[str] = []
    made: list[PersonDecision] = []
    line_of: dict[tuple[str, int], int] = {}
    for number, line in enumerate(_lines(file), start=1):
        if not line.strip():
            continue
        try:
            decision = _read(line, dialogues)
            if decision is None:
                continue
            first = line_of.setdefault((decision.id, decision.turn), number)
            if first != number:
                raise InputError(f"this turn is decided on line {first} already; keep one of them")
            made.append(decision)
        except InputError as error:
            faults.append(f"{file}:{number}: {error}")
    if faults:
        more = len(faults) - SHOWN_FAULTS
        rest = [f"… and {more} more"] if more > 0 else []
        raise InputError([*faults[:SHOWN_FAULTS], *rest, "nothing was imported"])
    before = standing(decisions_of(run, console.warn))
    new = [one for one in made if not _is_same(one, before.get((one.id, one.turn)))]
    if new:
        append_decisions(run.decisions_file, new)
    forget = sum(one.decision == "forget" for one in made)
    console.say(
        f"{file}: {len(made)} decisions ({forget} forget, {len(made) - forget} normal), {len(new)} of them new"
    )
    if settle_unless_busy(run, console):
        console.say(f"{run.verdicts_file} is up to date")


def _read(line: str, dialogues: dict[str, Dialogue]) -> PersonDecision | None:
    """The decision of a line, if it has one.

    Raises:
        InputError: The line is wrong.
    """
    try:
        raw = json.loads(line)
    except BAD_JSON as error:
        raise InputError(f"bad JSON{why_bad_json(error)}") from None
    try:
        row = QueueRow.model_validate_json(line)
    except ValidationError as error:
        unknown = sorted(raw.keys() - QueueRow.model_fields.keys()) if isinstance(raw, dict) else []
        near = difflib.get_close_matches(unknown[0], QueueRow.model_fields, n=1, cutoff=0.5) if unknown else []
        raise InputError(first_fault(error) + (f"; did you mean {near[0]!r}?" if near else "")) from None
    if not row.decision:
        return None
    dialogue = dialogues.get(row.id)
    if dialogue is None:
        raise InputError("id: the log has no such dialogue")
    turns = {turn.index: turn for turn in dialogue.turns()}
    if row.turn not in turns:
        raise InputError(f"turn: expected one of the assistant's: {', '.join(map(str, turns))}")
    turn = turns[row.turn]
    if row.messages and row.messages != dialogue.messages[: turn.index + 1]:
        raise InputError("messages: not those of the log (one of the two was edited); write a new queue")
    category = None if row.decision == "normal" or row.category == NORMAL else checked_category(row.category)
    return decision_now(turn, row.decision, category)


def _is_same(one: PersonDecision, other: PersonDecision | None) -> bool:
    return other is not None and (one.decision, one.category) == (other.decision, other.category)


def _lines(file: Path) -> list[str]:
    try:
        # Not splitlines(): it also splits at U+2028 and its like, which JSON allows inside strings.
        return file.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{file}: no such file, or not UTF-8 (--import)") from None


def _refuse_to_overwrite(file: Path, option: str) -> None:
    if file.exists():
        raise InputError(f"{option} {file}: is there already; choose another name, or take it away")
