"""What a trainer may be given for a dialogue: a row of a data set, a turn, or a target."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from letheon.dialogues import BadRowError, parse_row
from letheon.errors import InputError
from letheon.expected import Target
from letheon.records import Dialogue, Turn


def dialogue_of(row: Dialogue | Mapping[str, Any], number: int) -> Dialogue:
    """The dialogue of a row.

    Raises:
        InputError: The row does not fit, by its number and field.
    """
    if isinstance(row, Dialogue):
        return row
    try:
        # A `datasets.Dataset` gives None for what a row does not have.
        return parse_row({key: value for key, value in row.items() if value is not None}, f"row {number}")
    except BadRowError as error:
        raise InputError([f"row {number}: {fault}" for fault in error.faults]) from None


def turn_of(row: Dialogue | Turn | Mapping[str, Any], number: int) -> Turn:
    """The turn itself, or a row's last one."""
    return row if isinstance(row, Turn) else dialogue_of(row, number).last_turn


def target_of(row: Dialogue | Turn | Target | Mapping[str, Any], number: int) -> Turn | Target:
    """The target itself, or a row's last turn."""
    return row if isinstance(row, Target) else turn_of(row, number)
