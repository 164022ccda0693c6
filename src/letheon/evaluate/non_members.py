"""Non-members have to be texts that no model of the comparison was trained on; else an AUC says what it likes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import regex

from letheon.errors import InputError
from letheon.evaluate.text import WORD
from letheon.records import Dialogue, Turn

Pair = tuple[str, str]
"""A question and its answer; "" and a text where there is no question."""
LONG = 8
"""Words from which on an answer is known again whatever the question was; "Yes, I can." may be anybody's. Of a script
without spaces, characters."""
SHOWN = 5


def check_non_members(name: str, others: Iterable[Pair], trained: Mapping[str, Iterable[Pair]]) -> None:
    """Refuse non-members that are among what was trained on, but for case, marks and spaces.

    Args:
        name: What an error calls the non-members: their file.
        others: The non-members.
        trained: By name, all that is known to have been trained on, what is to be forgotten included; gone through
            once, and not kept.

    Raises:
        InputError: With the rows, and no word of their texts.
    """
    rows_of: dict[str, set[int]] = {}
    for row, pair in enumerate(others, start=1):
        for key in _keys(pair):
            rows_of.setdefault(key, set()).add(row)
    found: dict[str, set[int]] = {}
    for where, pairs in trained.items():
        for key in (key for pair in pairs for key in _keys(pair) if key in rows_of):
            found.setdefault(where, set()).update(rows_of[key])
    faults = []
    for where, rows in ((where, sorted(rows)) for where, rows in found.items()):
        shown = ", ".join(map(str, rows[:SHOWN])) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
        faults.append(
            f"{name}: row{'s' * (len(rows) > 1)} {shown} stand{'s' * (len(rows) == 1)} in {where} as well, which was "
            "trained on: non-members must be texts that no model here has seen; take other ones"
        )
    if faults:
        raise InputError(faults)


def pairs_of(turns: Iterable[Turn]) -> Iterator[Pair]:
    """Turns as pairs: each answer with the question before it."""
    return ((turn.question, turn.answer) for turn in turns)


def learnable(dialogues: Iterable[Dialogue]) -> Iterator[Pair]:
    """All that a model may have learnt of dialogues, whatever their labels: every answer, and those expected."""
    for dialogue in dialogues:
        yield from pairs_of(dialogue.turns())
        yield from ((dialogue.last_turn.question, answer) for answer in dialogue.expected)


def _keys(pair: Pair) -> list[str]:
    """By what a pair is known again."""
    question, answer = (" ".join(regex.findall(r"[\p{L}\p{N}]+", text.casefold())) for text in pair)
    keys = [f"{question}\n{answer}"]
    return [*keys, f"\n{answer}"] if len(WORD.findall(answer)) >= LONG else keys
