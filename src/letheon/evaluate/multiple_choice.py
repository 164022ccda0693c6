"""Multiple choice: which of a question's given answers a model finds the likeliest, and by how much."""

from __future__ import annotations

import math
from collections.abc import Sequence


def best_is_likeliest(best: float, others: Sequence[float]) -> float:
    """1 where the best answer is likelier than every other, else 0; higher is better. Its mean is MC1, or accuracy.

    Lin et al., TruthfulQA (arXiv 2109.07958), MC1: by whole answers' log-probabilities. WMDP (arXiv 2403.03218): by
    those of the letters A to D.

    Args:
        best: Log-probability of the answer that is right.
        others: Those of the others.

    Returns:
        NaN where one is: no comparison with it is true, so that a broken model would seem to know nothing.
    """
    if any(map(math.isnan, (best, *others))):
        return math.nan
    return float(all(best > other for other in others))


def correct_mass(correct: Sequence[float], incorrect: Sequence[float]) -> float:
    """Σ p(correct) / (Σ p(correct) + Σ p(incorrect)), in [0, 1]; higher is better. Its mean is MC2.

    Lin et al., TruthfulQA (arXiv 2109.07958): by the probabilities of whole answers, so that short ones weigh more.

    Args:
        correct: Log-probabilities of the correct answers.
        incorrect: Those of the incorrect ones.
    """
    most = max((*correct, *incorrect))
    right, wrong = (math.fsum(math.exp(one - most) for one in group) for group in (correct, incorrect))
    return right / (right + wrong)


def probability_among(correct: float, wrong: Sequence[float]) -> float:
    """p̄(correct) / (p̄(correct) + Σ_k p̄(wrong_k)), in [0, 1], with p̄ = exp(−loss); higher is better.

    TOFU's probability where there are options (Maini et al., arXiv 2401.06121, §2.2.1): normalised over them, each by
    its length first. It is `correct_mass` of one answer, with −loss in place of the log-probability.

    Args:
        correct: Loss of the correct answer, in nats a token.
        wrong: Losses of the wrong ones.
    """
    return correct_mass([-correct], [-loss for loss in wrong])
