"""From per-sample scores to a number that says how sure it is, and the mean that lets no part pay for another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

from letheon.records import Estimate, Metric, NotComputed


def reduce_scores(scores: Sequence[float], of: Sequence[str] | None = None) -> Metric:
    """Mean of N scores, with its standard error sqrt(G / (G − 1) · Σ_g (Σ_{i in g} (s_i − mean))²) / N.

    The error is that of drawing other samples of the same kind; it says nothing of other seeds. The G groups g are
    what would be drawn anew: several turns or rewordings of a dialogue are alike, and no news of each other. Where
    each is of its own, it is sd / sqrt(N). (Clustered standard errors; for evaluations Miller, arXiv 2411.00640.)

    Args:
        scores: (N,) scores.
        of: (N,) what each is of; None: each is of its own.
    """
    if not scores:
        return NotComputed(not_computed="no samples")
    if broken := _broken(scores):
        return broken
    n = len(scores)
    mean = math.fsum(scores) / n
    return Estimate(mean=mean, stderr=_stderr([score - mean for score in scores], of), n=n)


def ratio_of_means(after: Sequence[float], before: Sequence[float], of: Sequence[str] | None = None) -> Metric:
    """Ratio r = Σ a / Σ b of N samples' scores after and before, with its standard error.

    The error is sqrt(G / (G − 1) · Σ_g (Σ_{i in g} (a_i − r b_i))²) / Σ b, over groups as in `reduce_scores`: each
    sample is set beside itself, so what makes samples differ from each other, before as well as after, does not
    count. It is that of drawing other samples, to first order in 1/G (the ratio estimator of survey sampling;
    Cochran, Sampling Techniques, 1977, ch. 6); it says nothing of other seeds.

    Args:
        after: (N,) scores.
        before: (N,) scores ≥ 0 of the same samples.
        of: (N,) what each is of; None: each is of its own.

    Returns:
        1 is unchanged, in [0, ∞) for scores ≥ 0.
    """
    if not after:
        return NotComputed(not_computed="no samples")
    if broken := _broken(after) or _broken(before):
        return broken
    total = math.fsum(before)
    if total <= 0:
        return NotComputed(not_computed="it was 0 before")
    n, ratio = len(after), math.fsum(after) / total
    error = _stderr([new - ratio * old for new, old in zip(after, before, strict=True)], of)
    return Estimate(mean=ratio, stderr=None if error is None else error * n / total, n=n)


def _broken(scores: Sequence[float]) -> NotComputed | None:
    """Why scores have no mean; None where they have one."""
    broken = sum(not math.isfinite(score) for score in scores)
    if not broken:
        return None
    return NotComputed(not_computed=f"{broken} of {len(scores)} scores are NaN or infinite: the model is broken")


def _stderr(deviations: Sequence[float], of: Sequence[str] | None) -> float | None:
    """Of a mean, by the N deviations from it; None for a single group."""
    groups: dict[object, float] = defaultdict(float)
    for group, deviation in zip(of or range(len(deviations)), deviations, strict=True):
        groups[group] += deviation
    n = len(groups)
    return math.sqrt(math.fsum(one**2 for one in groups.values()) * n / (n - 1)) / len(deviations) if n > 1 else None


def harmonic_mean(values: Sequence[float]) -> float:
    """Harmonic mean n / Σ 1/v of values in [0, 1]; 0 where one is 0, NaN where one is."""
    if any(math.isnan(value) for value in values):
        return math.nan
    return len(values) / math.fsum(1 / value for value in values) if min(values) > 0 else 0.0
