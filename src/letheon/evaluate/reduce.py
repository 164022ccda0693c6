"""From per-sample scores to a mean that says how sure it is, and the mean that lets no part pay for another."""

from __future__ import annotations

import math
from collections.abc import Sequence

from letheon.records import Estimate, Metric, NotComputed


def reduce_scores(scores: Sequence[float]) -> Metric:
    """Mean of N scores, with its standard error sqrt(Σ (s − mean)² / (N − 1) / N).

    The error is that of drawing other samples of the same kind; it says nothing of other seeds.
    """
    if not scores:
        return NotComputed(not_computed="no samples")
    broken = sum(not math.isfinite(score) for score in scores)
    if broken:
        return NotComputed(not_computed=f"{broken} of {len(scores)} scores are NaN or infinite: the model is broken")
    n = len(scores)
    mean = math.fsum(scores) / n
    spread = math.fsum((score - mean) ** 2 for score in scores)
    return Estimate(mean=mean, stderr=math.sqrt(spread / (n - 1) / n) if n > 1 else None, n=n)


def harmonic_mean(values: Sequence[float]) -> float:
    """Harmonic mean n / Σ 1/v of values in [0, 1]; 0 where one is 0, NaN where one is."""
    if any(math.isnan(value) for value in values):
        return math.nan
    return len(values) / math.fsum(1 / value for value in values) if min(values) > 0 else 0.0
