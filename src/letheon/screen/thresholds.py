"""Thresholds for a wanted recall or precision, and what to expect of a judge, from labelled scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from letheon.errors import InputError
from letheon.recipe import Screen
from letheon.records import Interval, Screening

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

RESAMPLES = 1000
COVERAGE = 0.95
CONFIDENCE = 0.9
"""That a wanted recall is really had."""


@dataclass(frozen=True)
class Thresholds:
    """What `screen` decides by.

    Attributes:
        forget_above: Score from which a turn is forgotten.
        normal_below: Score under which it is normal; between the two a person looks.
        interval: Where forget_above would lie with other examples of the same kind (bootstrap, 95%).
    """

    forget_above: float
    normal_below: float
    interval: tuple[float, float]


def choose_thresholds(
    scores: Sequence[float],
    labels: Sequence[bool],
    *,
    target_recall: float | None = None,
    target_precision: float | None = None,
    seed: int = 0,
) -> Thresholds:
    """Choose thresholds by scores that were given without sight of the labels.

    For a recall r: the k-th smallest score of the n examples to forget, with the largest k for which
    P(Binomial(n, 1 − r) ≥ k) ≥ 0.9. The recall on further ones like them is then ≥ r with 90% confidence: it is
    distributed as Beta(n + 1 − k, k) whatever the scores are (split conformal prediction).

    For a precision p: the lowest threshold with (false alarms + 1) / decided ≤ 1 − p: one more is counted than was
    seen. It holds for logs with as large a share to forget as the examples have.

    One target gives both thresholds. With both, what lies between waits for review, unless the precision's threshold
    is the lower one: then the highest one up to the recall's that has the precision meets both targets, and nothing
    waits.

    Args:
        scores: In [0, 1], out of fold; higher is more surely undesired.
        labels: Whether each is to be forgotten.
        target_recall: In (0, 1).
        target_precision: In (0, 1).
        seed: Of the bootstrap.

    Raises:
        InputError: No target, too few examples for the recall, or no threshold has the precision.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    if target_recall is None and target_precision is None:
        raise InputError("no target: give target_recall, target_precision, or both")
    low = None if target_recall is None else _for_recall(values, truth, target_recall)
    high = None if target_precision is None else _for_precision(values, truth, target_precision, low)
    forget_above = high if high is not None else low
    assert forget_above is not None

    def again(chosen: NDArray[np.int_]) -> float:
        try:
            if target_precision is None:
                return _for_recall(values[chosen], truth[chosen], target_recall or 0.0)
            return _for_precision(values[chosen], truth[chosen], target_precision, low)
        except InputError:
            return float("nan")

    normal_below = forget_above if low is None else min(low, forget_above)
    return Thresholds(forget_above, normal_below, bootstrap(again, truth, seed))


def in_force(settings: Screen | None, found: Screening | None) -> tuple[float, ...]:
    """The thresholds that a screening went by, (normal_below, forget_above); () where neither argument is there.

    Args:
        settings: The recipe's `screen` section.
        found: What the screening has found; thresholds that it chose by examples take the recipe's place.
    """
    if found is not None and found.expected is not None:
        return found.expected.normal_below, found.expected.forget_above.estimate
    return (settings.normal_below, settings.forget_above) if settings is not None else ()


def _for_recall(scores: Floats, labels: Bools, recall: float) -> float:
    own = np.sort(scores[labels])
    # ppf(q) is the least k with P(X ≤ k) ≥ q, so that P(X ≥ k) ≥ 1 − q.
    rank = int(scipy.stats.binom.ppf(1 - CONFIDENCE, len(own), 1 - recall)) if len(own) else 0
    if rank < 1:
        least = int(np.ceil(np.log(1 - CONFIDENCE) / np.log(recall)))
        raise InputError(
            f"target recall {recall} needs at least {least} examples labelled forget, there are {len(own)}; "
            "label more, or lower it"
        )
    return float(own[rank - 1])


def _for_precision(scores: Floats, labels: Bools, precision: float, low: float | None) -> float:
    order = np.argsort(-scores, kind="stable")
    decided = np.arange(1, len(order) + 1)
    false = np.cumsum(~labels[order])
    # Equal scores are decided alike: only the last of them can be a threshold.
    ends = np.append(np.diff(scores[order]) != 0, True)
    fine = np.flatnonzero(ends & ((false + 1) / decided <= 1 - precision + 1e-9))
    if len(fine) == 0:
        raise InputError(
            f"no threshold has the target precision {precision} on {len(labels)} labelled examples; "
            "label more, or lower it"
        )
    found = scores[order][fine]
    # Precision may fall again above a threshold that has it, so that the recall's need not have it for being higher.
    return float(found[-1] if low is None or found[-1] >= low else found[found <= low][0])


def auroc(scores: Floats, labels: Bools) -> float:
    """Probability that one to forget scores above one that is normal, ties half; in [0, 1], 0.5 is chance."""
    yes, no = int(labels.sum()), int((~labels).sum())
    if yes == 0 or no == 0:
        return float("nan")
    return float((scipy.stats.rankdata(scores)[labels].sum() - yes * (yes + 1) / 2) / (yes * no))


def precision(scores: Floats, labels: Bools, threshold: float) -> float:
    """Share of the decided that are right."""
    decided = scores >= threshold
    return float(labels[decided].mean()) if decided.any() else float("nan")


def recall(scores: Floats, labels: Bools, threshold: float) -> float:
    """Share of those to forget that are found."""
    return float((scores[labels] >= threshold).mean()) if labels.any() else float("nan")


def calibration_error(scores: Floats, labels: Bools, bins: int = 10) -> float:
    """Expected calibration error: Σ_b n_b/n · |mean score − share to forget| over bins of equal width; 0 is best."""
    places = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = [abs(float(scores[own].sum() - labels[own].sum())) for b in range(bins) if (own := places == b).any()]
    return sum(gaps) / len(scores)


def bootstrap(
    statistic: Callable[[NDArray[np.int_]], float], labels: Bools, seed: int, resamples: int = RESAMPLES
) -> tuple[float, float]:
    """The middle 95% of a statistic over resamples of either label's examples; it is given their indices."""
    draw = np.random.default_rng(seed)
    groups = [np.flatnonzero(labels), np.flatnonzero(~labels)]
    found = [statistic(np.concatenate([draw.choice(own, len(own)) for own in groups])) for _ in range(resamples)]
    defined = [value for value in found if value == value]
    low, high = np.quantile(defined or [float("nan")], [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2])
    return float(low), float(high)


def with_interval(
    statistic: Callable[[Floats, Bools], float], scores: Floats, labels: Bools, seed: int
) -> Interval | None:
    """A statistic of scores and labels with its bootstrap interval; None where nothing was decided."""
    low, high = bootstrap(lambda chosen: statistic(scores[chosen], labels[chosen]), labels, seed)
    value = statistic(scores, labels)
    undefined = any(number != number for number in (value, low, high))
    return None if undefined else Interval(estimate=value, low=low, high=high)
