"""The recipe's gates on what the attacks brought back."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Literal

from letheon.recipe import Stress
from letheon.records import Interval, NotComputed
from letheon.stress.attack import EXTRACTION
from letheon.stress.records import GateCheck, NotRun, Row

GATES: dict[str, tuple[str, str, Literal["rise", "beyond"]]] = {
    "max_recovery": ("relearn", EXTRACTION, "beyond"),
    "max_quantised": ("quantise", EXTRACTION, "rise"),
    "max_rephrased": ("rephrase", EXTRACTION, "rise"),
    "max_leak": ("sample", "leaked", "rise"),
}
"""By field of the section `stress`: which attack it speaks of, and which number of its rows of which metric."""

NEEDED = {"relearn": ("forget items",), "quantise": ("int8", "int4")}
"""The forms of an attack that accuse: without them the others say too little for the gate."""


def check_stress(
    rows: Sequence[Row], not_run: Sequence[NotRun], settings: Stress, made: Collection[str]
) -> list[GateCheck]:
    """Hold the worst row of each attack against its gate.

    Args:
        rows: What the attacks brought back.
        not_run: What could not be done.
        settings: With the gates.
        made: The attacks that were made; others have no gate. One of which nothing could be measured fails.
    """
    return list(_checks(rows, not_run, settings, made))


def _checks(
    rows: Sequence[Row], not_run: Sequence[NotRun], settings: Stress, made: Collection[str]
) -> Iterator[GateCheck]:
    for field, (attack, metric, number) in GATES.items():
        limit = getattr(settings, field)
        if limit is None or attack not in made:
            continue
        judged = [row for row in rows if row.attack == attack and row.metric == metric]
        found = [(getattr(row, number), row.variant) for row in judged]
        lacking = [one for one in not_run if one.attack == attack and one.variant in NEEDED.get(attack, ())]
        found += [(NotComputed(not_computed=one.why), str(one.variant)) for one in lacking]
        found = found or [(NotComputed(not_computed="no form of it could be run"), "none")]
        worst, variant = max(found, key=lambda one: _size(one[0]))
        value = worst.estimate if isinstance(worst, Interval) else None
        yield GateCheck(
            gate=f"stress.{field}",
            what=f"{attack}: {variant}",
            value=value,
            limit=limit,
            passed=value is not None and value <= limit,
            why=worst.not_computed if isinstance(worst, NotComputed) else None,
        )


def _size(number: Interval | NotComputed) -> float:
    """What is not known counts as the worst."""
    return number.estimate if isinstance(number, Interval) else math.inf


def failed_gates(gates: Sequence[GateCheck]) -> list[str]:
    """A line for each gate that is breached."""
    return [
        f"{gate.what}: {f'not computed: {gate.why}' if gate.value is None else f'{gate.value:.3f} > {gate.limit:g}'} "
        f"({gate.gate})"
        for gate in gates
        if not gate.passed
    ]
