"""TOFU's model utility: one number for what a model kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from letheon.evaluate.reduce import harmonic_mean
from letheon.records import Estimate, Metric, NotComputed

SETS = ("retain", "real_authors", "world_facts")
"""What was to be kept, from near to far."""
METRICS = ("probability", "rouge_l", "kept_truth")
"""`probability` is normalised over the options on real authors and world facts, where answers are a word or two."""


def model_utility(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> Metric:
    """Harmonic mean of nine means: three metrics on each of three sets; in [0, 1], higher is better.

    TOFU (Maini et al., arXiv 2401.06121), §2.2.2: no metric that is lost is made good by another. The standard error
    is by the delta method: of set s, each question has the influence Σ_m (H² / (9 v_sm²)) · (score − v_sm), and the
    variances of its means over the sets add up. So it knows that a set's three metrics are of the same questions.

    Args:
        scores: Set → metric → one score a question, in the order of the questions; see `SETS` and `METRICS`.
    """
    means: dict[tuple[str, str], float] = {}
    for name in SETS:
        for metric in METRICS:
            own = scores.get(name, {}).get(metric, ())
            if not own:
                return NotComputed(not_computed=f"there is no {metric} on {name.replace('_', ' ')}")
            means[name, metric] = math.fsum(own) / len(own)
    utility = harmonic_mean(list(means.values()))
    total = sum(len(scores[name][METRICS[0]]) for name in SETS)
    if math.isnan(utility):
        return NotComputed(not_computed="a score is not a number: the model is broken")
    if utility == 0:
        # At the edge there is no tangent.
        return Estimate(mean=0.0, stderr=None, n=total)
    variance = 0.0
    for name in SETS:
        weights = {metric: utility**2 / (len(means) * means[name, metric] ** 2) for metric in METRICS}
        rows = zip(*(scores[name][metric] for metric in METRICS), strict=True)
        influences = [
            math.fsum(
                weights[metric] * (score - means[name, metric]) for metric, score in zip(METRICS, row, strict=True)
            )
            for row in rows
        ]
        if len(influences) < 2:
            return Estimate(mean=utility, stderr=None, n=total)
        spread = math.fsum(influence**2 for influence in influences)
        variance += spread / (len(influences) - 1) / len(influences)
    return Estimate(mean=utility, stderr=math.sqrt(variance), n=total)
