"""`decisions.jsonl`: what a person decided, one line a decision, only ever appended to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from pydantic import ValidationError

from letheon.errors import InputError
from letheon.records import NORMAL, PERSON, Choice, Dialogue, PersonDecision, Turn, Verdict, first_fault, mend_end
from letheon.screen.labels import UNNAMED

TurnKey = tuple[str, int]
Warn = Callable[[str], None]


def with_decisions(
    verdicts: Iterable[Verdict], decisions: Iterable[PersonDecision], own: Mapping[str, str | None] | None = None
) -> Iterator[Verdict]:
    """Verdicts in which a person's decisions have won over the judges'; what the judges said is kept inside.

    A decided turn gets judge "person" and score 1 (forget) or 0 (normal). One whose decision was undone gets back
    what the judges said. All others stay as they are, so that it does no harm to do this twice.

    Args:
        verdicts: The judges', or what this has made of them.
        decisions: Of each turn the last one counts.
        own: Categories that dialogues have in the log, see `own_categories`.
    """
    last, own = last_decisions(decisions), own or {}
    return (_decided(v, last[v.id, v.turn], own.get(v.id)) if (v.id, v.turn) in last else v for v in verdicts)


def own_categories(decisions: Iterable[PersonDecision], dialogues: Iterable[Dialogue]) -> dict[str, str | None]:
    """The categories in the log of dialogues that a decision names no category for."""
    named = {one.id for one in last_decisions(decisions).values() if one.decision == "forget" and not one.category}
    return {dialogue.id: dialogue.category for dialogue in dialogues if dialogue.id in named} if named else {}


def category_of(person: str | None, judges: str | None, own: str | None) -> str:
    """The category of a "forget": the person's; else the judges'; else the dialogue's own in the log."""
    return next((one for one in (person, judges, own) if one is not None and one != NORMAL), UNNAMED)


def _decided(verdict: Verdict, decision: PersonDecision, own: str | None) -> Verdict:
    judged = verdict.judged or verdict
    if decision.decision == "undone":
        return judged
    forget = decision.decision == "forget"
    return Verdict(
        id=verdict.id,
        turn=verdict.turn,
        decision=decision.decision,
        category=category_of(decision.category, judged.category, own) if forget else NORMAL,
        score=1.0 if forget else 0.0,
        judge=PERSON,
        span=judged.span if forget else None,
        judged=judged,
    )


def last_decisions(decisions: Iterable[PersonDecision]) -> dict[TurnKey, PersonDecision]:
    """The decision that counts on each turn, undone ones among them; the latest comes last."""
    last: dict[TurnKey, PersonDecision] = {}
    for decision in decisions:
        last.pop((decision.id, decision.turn), None)
        last[decision.id, decision.turn] = decision
    return last


def standing(decisions: Iterable[PersonDecision]) -> dict[TurnKey, PersonDecision]:
    """The decisions that count and are not undone, the latest last."""
    return {key: last for key, last in last_decisions(decisions).items() if last.decision != "undone"}


def decision_now(turn: Turn, decision: Choice, category: str | None = None) -> PersonDecision:
    """A decision on a turn, made now; the category of anything but "forget" is left out."""
    return PersonDecision(
        id=turn.dialogue.id,
        turn=turn.index,
        decision=decision,
        category=category if decision == "forget" else None,
        when=datetime.now(timezone.utc).replace(microsecond=0),
        characters=characters_of(turn),
    )


def characters_of(turn: Turn) -> int:
    """Length of the dialogue up to the end of a turn."""
    return sum(len(message.content) for message in turn.dialogue.messages[: turn.index + 1])


def fitting(decisions: Iterable[PersonDecision], dialogues: Iterable[Dialogue], warn: Warn) -> list[PersonDecision]:
    """The decisions that are about the log as it is now; the others are counted aloud.

    Ids may be line numbers, and a line that was put in or taken out would hand every decision to a neighbour: of two
    turns with the same name, those of different length are different ones.
    """
    last = last_decisions(decisions)
    named = {name for name, _ in last}
    lengths = {(d.id, turn.index): characters_of(turn) for d in dialogues if d.id in named for turn in d.turns()}
    fit, gone, changed = [], 0, 0
    for key, decision in last.items():
        if key not in lengths:
            gone += 1
        elif decision.characters not in (None, lengths[key]):
            changed += 1
        else:
            fit.append(decision)
    if gone:
        warn(f"decisions on turns that the log does not have: {gone}; they are left aside")
    if changed:
        warn(
            f"decisions on other texts than the log now has under their ids: {changed}; they are left aside. "
            "Where only the order of the lines has changed, an id in each row keeps them"
        )
    return fit


def read_decisions(path: Path, warn: Warn = lambda line: None) -> list[PersonDecision]:
    """Read `decisions.jsonl`; [] where there is none. A last line that was cut off by a kill is left out.

    Raises:
        InputError: Every line that is no decision.
    """
    if not path.is_file():
        return []
    *whole, rest = path.read_bytes().split(b"\n")
    found, faults = [], []
    for number, line in enumerate(whole, start=1):
        if not line.strip():
            continue
        try:
            found.append(PersonDecision.model_validate_json(line))
        except ValidationError as error:
            faults.append(f"{path}:{number}: {first_fault(error)}; mend the line, or take it out")
    if faults:
        raise InputError(faults)
    if rest:
        last = _parsed(rest)
        if last is None:
            warn(f"{path}: the last line was cut off; that decision is lost and has to be made again")
        else:
            found.append(last)
    return found


def append_decisions(path: Path, decisions: Sequence[PersonDecision]) -> None:
    """Append decisions, and wait until they are on the disk.

    A last line that was cut off is taken away first, so that the file goes on cleanly; it held no decision.
    """
    lines = "".join(decision.model_dump_json(exclude_none=True) + "\n" for decision in decisions)
    path.parent.mkdir(parents=True, exist_ok=True)
    mend_end(path)
    with path.open("ab") as file:
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def _parsed(line: bytes) -> PersonDecision | None:
    try:
        return PersonDecision.model_validate_json(line)
    except ValidationError:
        return None
