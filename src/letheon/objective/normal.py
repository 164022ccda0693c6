"""Normal terms: what keeps the model's ability on dialogues that are fine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from letheon.objective.answers import Answers, log_prob
from letheon.objective.term import Needs, Unit


def top_k_kl(logits: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
    """KL(p_θ₀ ‖ p_θ) on the k likeliest tokens of θ₀ and one bucket for all the rest.

    Merging outcomes never increases a divergence, so this is a lower bound of the full KL, and exact where θ₀'s mass
    lies in its top k. Range [0, ∞), 0 at θ = θ₀, nats per token.

    Args:
        logits: (N, V) of θ.
        top_ids: (N, k) token ids.
        top_log_probs: (N, k) their log-probabilities under θ₀.

    Returns:
        (N,) divergences in float32.
    """
    # One copy: the gradients of two would each be rounded to the logits' type before they nearly cancel.
    logits = logits.float()
    now = logits.gather(1, top_ids) - logits.logsumexp(dim=1, keepdim=True)
    before = top_log_probs.float()
    return (before.exp() * (before - now)).sum(dim=1) + _bucket(before, now)


def _bucket(before: Tensor, now: Tensor) -> Tensor:
    """(N,) the term of the bucket that holds all tokens outside the top k."""
    smallest = torch.finfo(torch.float32).eps
    rest_before = (1 - before.exp().sum(dim=1)).clamp(min=smallest)
    rest_now = (1 - now.exp().sum(dim=1)).clamp(min=smallest)
    return rest_before * (rest_before.log() - rest_now.log())


@dataclass(frozen=True)
class CrossEntropy:
    """CE(y° | x°): keep saying the normal answers. Range [0, ∞)."""

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return -answers.log_probs()


@dataclass(frozen=True)
class ReferenceKL:
    """KL(p_θ₀ ‖ p_θ) on θ₀'s top-k tokens, plus the cross-entropy unless switched off.

    Attributes:
        top_k: Number of cached reference tokens.
        cross_entropy: Whether CE(y° | x°) is added.
    """

    top_k: int = 64
    cross_entropy: bool = True
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"reference_top"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.reference_top_ids is not None
        assert answers.reference_top_log_probs is not None

        def loss(logits: Tensor, targets: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
            # Both read the same copy, or their gradients would be rounded apart.
            logits = logits.float()
            kl = top_k_kl(logits, top_ids, top_log_probs)
            return kl - log_prob(logits, targets) if self.cross_entropy else kl

        return answers.reduce(loss, answers.reference_top_ids, answers.reference_top_log_probs)
