"""From per-sample scores to a number that says how sure it is, and the mean that lets no part pay for another."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from letheon.records import Estimate, Metric, NotComputed

Floats = NDArray[np.float64]


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
    return Estimate(mean=mean, stderr=_stderr(scores, of), n=n)


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


def _stderr(values: Sequence[float], of: Sequence[str] | None) -> float | None:
    """Of the mean of N values; None for a single group."""
    if len(values if of is None else set(of)) < 2:
        return None
    return math.sqrt(covariance_of_means([np.asarray(values)], of)[0, 0])


def covariance_of_means(columns: Sequence[Floats], of: Sequence[str] | None = None) -> Floats:
    """(K, K) covariance G / (G − 1) · Σ_g d_g d_gᵀ / N² of the means of K columns of N values.

    d_g is the sum of the deviations from the means in group g; see `reduce_scores`.

    Args:
        columns: (N,) values each, of the same samples.
        of: (N,) what each sample is of, of G ≥ 2; None: each is of its own.
    """
    values = np.stack(columns)
    groups = np.arange(values.shape[1]) if of is None else np.unique(of, return_inverse=True)[1]
    deviations = values - values.mean(axis=1, keepdims=True)
    sums = np.stack([np.bincount(groups, weights=row) for row in deviations])
    n, g = len(groups), sums.shape[1]
    covariance: Floats = sums @ sums.T * g / (g - 1) / n**2
    return covariance


def harmonic_mean(values: Sequence[float]) -> float:
    """Harmonic mean n / Σ 1/v of values in [0, 1]; 0 where one is 0, NaN where one is."""
    if any(math.isnan(value) for value in values):
        return math.nan
    return len(values) / math.fsum(1 / value for value in values) if min(values) > 0 else 0.0
