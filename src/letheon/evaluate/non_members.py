"""Non-members have to be texts that no model of the comparison was trained on; else an AUC says what it likes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import regex

from letheon.errors import InputError

Pair = tuple[str, str]
"""A question and its answer; "" and a text where there is no question."""
LONG = 8
"""Words from which on an answer is known again whatever the question was; "Yes, I can." may be anybody's."""
SHOWN = 5


def check_non_members(name: str, others: Iterable[Pair], trained: Mapping[str, Iterable[Pair]]) -> None:
    """Refuse non-members that are among what was trained on, but for case, marks and spaces.

    Args:
        name: What an error calls the non-members: their file.
        others: The non-members.
        trained: By name, all that is known to have been trained on, what is to be forgotten included.

    Raises:
        InputError: With the rows, and no word of their texts.
    """
    known = {key: where for where, pairs in trained.items() for pair in pairs for key in _keys(pair)}
    found: dict[str, list[int]] = {}
    for row, pair in enumerate(others, start=1):
        if where := next((known[key] for key in _keys(pair) if key in known), None):
            found.setdefault(where, []).append(row)
    faults = []
    for where, rows in found.items():
        shown = ", ".join(map(str, rows[:SHOWN])) + (f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else "")
        faults.append(
            f"{name}: row{'s' * (len(rows) > 1)} {shown} stand{'s' * (len(rows) == 1)} in {where} as well, which was "
            "trained on: non-members must be texts that no model here has seen; take other ones"
        )
    if faults:
        raise InputError(faults)


def _keys(pair: Pair) -> list[str]:
    """By what a pair is known again."""
    question, answer = (" ".join(regex.findall(r"[\p{L}\p{N}]+", text.casefold())) for text in pair)
    keys = [f"{question}\n{answer}"]
    return [*keys, f"\n{answer}"] if len(answer.split()) >= LONG else keys
