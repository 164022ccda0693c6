"""Can it be told from a model's probabilities what it was trained on, and what it was made to forget?"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def min_k(log_probs: Tensor, share: float = 0.4) -> float:
    """Min-K%: mean log-probability of the least likely tokens of a text; higher speaks for membership.

    Shi et al. (arXiv 2310.16789), there with 20%; open-unlearning takes 40%.

    Args:
        log_probs: (L,) of its tokens.
        share: K, in (0, 1]; at least one token is taken.

    Returns:
        In (−∞, 0].
    """
    taken = max(1, int(share * len(log_probs)))
    return float(log_probs.double().topk(taken, largest=False).values.mean())


def membership_auc(members: Sequence[float], others: Sequence[float]) -> float:
    """P(a member's score > another's) + ½ P(equal), in [0, 1]; ½ tells nothing, 1 gives membership away.

    NaN where either is empty or a score is not finite.
    """
    scores = (*members, *others)
    if not members or not others or not all(map(math.isfinite, scores)):
        return math.nan
    apart = torch.tensor(members, dtype=torch.float64)[:, None] - torch.tensor(others, dtype=torch.float64)[None]
    return float(((apart > 0).double() + (apart == 0).double() / 2).mean())


def priv_leak(auc: float, control: float) -> float:
    """100 · ((1 − AUC) − (1 − AUC_control)) / (1 − AUC_control), in percent; 0 is the control's level.

    Below 0 the texts can still be told as members, down to −100; above 0 as what was made to be forgotten. Shi et
    al., MUSE (arXiv 2407.06460), §3.2. NaN where the control's AUC is 1.

    Args:
        auc: Of the model, `membership_auc` of what it had to forget against texts that it never saw.
        control: Of a model that saw neither.
    """
    return 100 * (control - auc) / (1 - control) if control < 1 else math.nan
