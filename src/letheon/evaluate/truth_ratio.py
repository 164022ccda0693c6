"""Truth ratio: how much likelier a model finds wrong answers than a correct one, by the words alone.

TOFU (Maini et al., arXiv 2401.06121) asks it about a reworded correct answer and wrong answers in the same words, so
that neither form was trained on. It is not what a model says, but what it still holds to be true. Of a broken model,
whose losses are NaN, all here is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def truth_ratio(correct: float, wrong: Sequence[float]) -> float:
    """R = exp(−mean_k loss(wrong_k)) / exp(−loss(correct)), in [0, ∞); lower is nearer to the truth.

    The paper (§2.2.1) averages the wrong answers' probabilities, its code their losses, as here and in the published
    numbers: that is the geometric mean. A model that never saw TOFU's authors is near 1 on them.

    Args:
        correct: Loss of the reworded correct answer, in nats a token.
        wrong: Losses of K ≥ 1 wrong answers.
    """
    return _exp(correct - math.fsum(wrong) / len(wrong))


def forgotten_truth(ratio: float) -> float:
    """min(R, 1/R), in [0, 1]: 1 where right and wrong are held equally likely. On the forget set higher is better.

    TOFU's code, for the forget set; open-unlearning, "closer_to_1_better".
    """
    return min(ratio, 1 / ratio) if ratio != 0 else 0.0


def kept_truth(ratio: float) -> float:
    """max(0, 1 − R), in [0, 1]: 1 where no wrong answer is likely. On what is to be kept higher is better.

    TOFU's code, for the retain set, real authors and world facts; open-unlearning, "true_better".
    """
    return ratio if math.isnan(ratio) else max(0.0, 1 - ratio)


def truth_probability(ratio: float) -> float:
    """p_c / (p_c + p_w) = 1 / (1 + R), in [0, 1]: a half where right and wrong are held equally likely.

    The truth ratio as a probability, without the kink of min(R, 1/R): on the forget set ½ is what a model that never
    saw it tends to, 1 what one that knows it has; open-unlearning, "prob_mean".
    """
    return 1 / (1 + ratio)


def _exp(value: float) -> float:
    """Not an error where a broken model's losses are large."""
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
