"""How much did the screening miss? A person labels a random sample of what it called normal.

The share that was missed, k of n, gets Wilson's interval (E. B. Wilson, JASA 22, 1927), which stays within [0, 1] and
does not vanish at k = 0, where nothing was found but little was looked at.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from letheon.errors import InputError
from letheon.records import (
    AUDIT_SCHEMA,
    Audit,
    Interval,
    PersonDecision,
    TurnName,
    Verdict,
    read_record,
)
from letheon.review.decisions import TurnKey

Z = 1.959963984540054
"""The normal distribution's 97.5% quantile: 95% of it lies within ± Z."""


def wilson(hits: int, n: int, population: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share, in [0, 1], for a sample without replacement.

    With p = k/n and m = n (N − 1)/(N − n), the finite population's correction of n:
    (p + z²/2m ± z √(p(1 − p)/m + z²/4m²)) / (1 + z²/m), within [k/N, 1 − (n − k)/N], since what was looked at is
    known. A sample of all (n = N) leaves no doubt: [p, p].

    Args:
        hits: k, 0 ≤ k ≤ n.
        n: 1 ≤ n ≤ N.
        population: N.
    """
    share = hits / n
    if n == population:
        return share, share
    m = n * (population - 1) / (population - n)
    middle, spread = share + Z**2 / (2 * m), Z * (share * (1 - share) / m + Z**2 / (4 * m**2)) ** 0.5
    low, high = (middle - spread) / (1 + Z**2 / m), (middle + spread) / (1 + Z**2 / m)
    # At k = 0 and k = n the formula gives 0 and 1 but for rounding.
    low, high = low if hits else 0.0, high if hits < n else 1.0
    return max(low, hits / population), min(high, 1 - (n - hits) / population)


def draw(verdicts: Sequence[Verdict], decided: Collection[TurnKey], size: int, seed: int) -> Audit:
    """Draw turns that the judges called normal and no person has looked at.

    Args:
        verdicts: The judges' verdicts.
        decided: Turns that a person has decided.
        size: How many to draw, at least 1; all where there are fewer.
        seed: Of the draw.

    Raises:
        InputError: There are none.
    """
    normal = [v for v in verdicts if v.decision == "normal" and (v.id, v.turn) not in decided]
    if not normal:
        raise InputError("--audit: there is no normal verdict that a person has not looked at; nothing to draw")
    sample = random.Random(f"{seed}-audit").sample(normal, min(size, len(normal)))
    return Audit(
        seed=seed,
        screening=fingerprint(verdicts),
        population=len(normal),
        sample=tuple(TurnName(id=verdict.id, turn=verdict.turn) for verdict in sample),
    )


def scored(audit: Audit, standing: Mapping[TurnKey, PersonDecision]) -> Audit:
    """The audit with what a person has decided so far (and not undone).

    The part that is labelled is a random sample, too, as far as it was labelled in the tab of the audit: that shows
    the sample in random order.
    """
    keys = [(turn.id, turn.turn) for turn in audit.sample]
    made = [standing[key].decision for key in keys if key in standing]
    labelled, missed = len(made), made.count("forget")
    share = in_all = None
    if labelled:
        low, high = wilson(missed, labelled, audit.population)
        share = Interval(estimate=missed / labelled, low=low, high=high)
        in_all = Interval(**{name: value * audit.population for name, value in share.model_dump().items()})
    return audit.model_copy(update={"labelled": labelled, "missed": missed, "share": share, "in_all": in_all})


def in_words(audit: Audit) -> str:
    """The outcome as a sentence."""
    if audit.share is None or audit.in_all is None:
        return f"audit: none of {len(audit.sample)} turns labelled yet"
    open_ = f" ({len(audit.sample) - audit.labelled} are still to be labelled)" * (audit.labelled < len(audit.sample))
    return (
        f"audit: {audit.missed} of {audit.labelled} turns called normal should have been forgotten{open_}: "
        f"{audit.share.estimate:.1%} (95% interval {audit.share.low:.1%} to {audit.share.high:.1%}), or about "
        f"{audit.in_all.estimate:.0f} ({audit.in_all.low:.0f} to {audit.in_all.high:.0f}) of the {audit.population} "
        "that nobody had looked at"
    )


def fingerprint(verdicts: Iterable[Verdict]) -> str:
    """Hash of the judges' decisions: an audit speaks of one screening."""
    lines = (json.dumps([v.id, v.turn, v.decision]) for v in verdicts)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def read_audit(path: Path) -> Audit | None:
    """Read `audit.json`; None where there is none.

    Raises:
        InputError: It was written by another version, or is damaged.
    """
    if not path.is_file():
        return None
    again = "delete it to draw a new sample"
    return read_record(Audit, path, AUDIT_SCHEMA, f"damaged; {again}", again)
