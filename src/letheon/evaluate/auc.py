"""How well two groups of scores are told apart: AUC, its interval, and what it is beside a control's (PrivLeak)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy

from letheon.evaluate.reduce import Floats, covariance_of_means
from letheon.records import Interval, NotComputed

Z = 1.959964
"""Of the middle 95%."""
COVERAGE = 0.95


def membership_auc(members: Sequence[float], others: Sequence[float]) -> float:
    """P(a member's score > another's) + ½ P(equal), in [0, 1]; ½ tells nothing, 1 gives membership away.

    NaN where either is empty or a score is not finite.
    """
    if _unfit(members, others, fewest=1):
        return math.nan
    return float(_placements(members, others)[0].mean())


def auc_interval(
    members: Sequence[float], others: Sequence[float], of: Sequence[str] | None = None
) -> Interval | NotComputed:
    """`membership_auc` with its 95% interval by DeLong's variance (DeLong et al., 1988), on the scale of log-odds.

    The variance is S₁₀/M + S₀₁/N, of the shares of others under each member and of members over each other: no
    distribution of the scores is supposed, and nothing is drawn. The log-odds keep the interval inside [0, 1]. Where
    the groups lie wholly apart, or all scores are equal, the variance is 0, though little may be known; the interval
    then is the exact binomial one (Clopper and Pearson, 1934) of n = min(M, N) pairs that share no text, AUC · n of
    which were told apart. Members of one dialogue are no news of each other, and count as one in S₁₀ and n
    (Obuchowski, Nonparametric analysis of clustered ROC curve data, Biometrics, 1997).

    Args:
        members: Scores of M ≥ 2 texts; higher speaks for membership.
        others: Scores of N ≥ 2 texts that were never trained on.
        of: (M,) the dialogue of each member; None: each is of its own.
    """
    if why := _unfit(members, others, of=of):
        return NotComputed(not_computed=why)
    over, under = _placements(members, others)
    auc = float(over.mean())
    variance = float((covariance_of_means([over], of) + covariance_of_means([under]))[0, 0])
    if variance == 0:
        return _exact(auc, min(len(set(of or range(len(members)))), len(others)))
    half = Z * math.sqrt(variance) / (auc * (1 - auc))
    odds = math.log(auc / (1 - auc))
    return Interval(estimate=auc, low=_logistic(odds - half), high=_logistic(odds + half))


def priv_leak(auc: float, control: float) -> float:
    """100 · ((1 − AUC) − (1 − AUC_control)) / (1 − AUC_control), in percent; 0 is the control's level.

    In [−100, ∞): −100 where the model's AUC is 1, at most 100 · AUC_control / (1 − AUC_control), where it is 0. Below
    0 the texts can still be told as members, above 0 as what was made to be forgotten. Shi et al., MUSE (arXiv
    2407.06460), §3.2. NaN where the control's AUC is 1.

    Args:
        auc: Of the model, `membership_auc` of what it had to forget against texts that it never saw.
        control: Of a model that saw neither.
    """
    return 100 * (control - auc) / (1 - control) if control < 1 else math.nan


def priv_leak_interval(
    own: tuple[Sequence[float], Sequence[float]],
    control: tuple[Sequence[float], Sequence[float]],
    of: Sequence[str] | None = None,
) -> Interval | NotComputed:
    """`priv_leak` with its 95% interval: the delta method on DeLong's covariance of the two AUCs.

    Both models score the same texts, so their errors go together, and partly cancel. Near an AUC of 0 or 1, and where
    all scores are equal, the interval is too narrow.

    Args:
        own: The model's scores of members and of others.
        control: The control's scores of the same texts, in the same order.
        of: What each member is of, as in `auc_interval`.
    """
    if why := _unfit(*own, of=of) or _unfit(*control, of=of):
        return NotComputed(not_computed=why)
    ours, theirs = _placements(*own), _placements(*control)
    auc, floor = float(ours[0].mean()), float(theirs[0].mean())
    if floor >= 1:
        return NotComputed(not_computed="the control tells the two apart without fail, though it never saw them")
    covariance = covariance_of_means([ours[0], theirs[0]], of) + covariance_of_means([ours[1], theirs[1]])
    slopes = np.array([-100 / (1 - floor), 100 * (1 - auc) / (1 - floor) ** 2])
    half = Z * math.sqrt(max(0.0, float(slopes @ covariance @ slopes)))
    value = priv_leak(auc, floor)
    return Interval(estimate=value, low=value - half, high=value + half)


def _exact(share: float, n: int) -> Interval:
    """A share of n with its exact binomial interval."""
    hits, tail = share * n, (1 - COVERAGE) / 2
    low = float(scipy.stats.beta.ppf(tail, hits, n - hits + 1)) if share > 0 else 0.0
    high = float(scipy.stats.beta.ppf(1 - tail, hits + 1, n - hits)) if share < 1 else 1.0
    return Interval(estimate=share, low=low, high=high)


def _placements(members: Sequence[float], others: Sequence[float]) -> tuple[Floats, Floats]:
    """Of each member the share of others below it, and of each other the share of members above; halves for ties."""
    apart = np.subtract.outer(np.asarray(members, np.float64), np.asarray(others, np.float64))
    wins = (apart > 0) + (apart == 0) / 2
    return wins.mean(axis=1), wins.mean(axis=0)


def _unfit(
    members: Sequence[float], others: Sequence[float], fewest: int = 2, of: Sequence[str] | None = None
) -> str:
    """Why there is no AUC; "" where there is one."""
    if len(members) < fewest or len(others) < fewest:
        return f"{len(members)} members and {len(others)} others: at least {fewest} of each are needed"
    if of is not None and len(set(of)) < fewest:
        return f"all members are of one dialogue: of at least {fewest} they must be"
    broken = sum(not math.isfinite(score) for score in (*members, *others))
    return f"{broken} scores are NaN or infinite: the model is broken" if broken else ""


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
