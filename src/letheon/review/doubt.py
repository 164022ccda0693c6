"""The order of the queue: what the judges doubt most comes first."""

from __future__ import annotations

from letheon.records import Decision


def doubt(decision: Decision, score: float, normal_below: float, forget_above: float) -> tuple[bool, float, float]:
    """A sort key; smaller is more doubtful, and comes earlier.

    (decision ≠ "review", max(0, normal_below − s, s − forget_above), |s − (normal_below + forget_above) / 2|): what
    waits for a person comes first; then the distance d ≥ 0 of the score s from the band between the thresholds; at
    equal d, as everywhere within the band, the distance from its middle. (Ours.)

    Args:
        decision: The judges' decision.
        score: s, in [0, 1]: the judges', or a newer one.
        normal_below: In [0, forget_above].
        forget_above: In [0, 1].
    """
    outside = max(0.0, normal_below - score, score - forget_above)
    return decision != "review", outside, abs(score - (normal_below + forget_above) / 2)
