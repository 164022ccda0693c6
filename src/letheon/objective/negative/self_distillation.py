"""Distillation from the model before, its logits for the old tokens lowered."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


@dataclass(frozen=True)
class UNDIAL:
    """Self-distillation with adjusted logits: CE(softmax(z_θ₀ − β·onehot(y_t)), p_θ).

    Of θ₀'s distribution the k likeliest tokens are cached. They, the old token and one bucket for all the rest are
    the outcomes of both distributions: a lower bound of the full cross-entropy, which leaves the tokens in the bucket
    among themselves as they are, and is exact for k = V. Range [0, ∞); its minimum is the target's entropy. Source:
    arXiv 2402.10052; dong-river/LLM_unlearning (β 10). open-unlearning's trainer averages over prompt and padding:
    here, answers alone.

    Attributes:
        beta: How much the old token's logit is lowered, ≥ 0; 0 is distillation from θ₀ as it is.
    """

    beta: float = 10.0
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"reference_log_prob", "reference_top"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.reference_log_prob is not None
        assert answers.reference_top_ids is not None
        assert answers.reference_top_log_probs is not None
        return answers.reduce(
            self._loss, answers.reference_log_prob, answers.reference_top_ids, answers.reference_top_log_probs
        )

    def _loss(self, logits: Tensor, targets: Tensor, own: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
        logits = logits.float()
        # The old token is an outcome of its own, whether or not it is among the likeliest.
        ids = torch.cat([top_ids, targets[:, None]], dim=1)
        twice = torch.nn.functional.pad(top_ids == targets[:, None], (0, 1))
        before = torch.cat([top_log_probs.float().exp(), own.float().exp()[:, None]], dim=1).masked_fill(twice, 0)
        now = logits.gather(1, ids) - logits.logsumexp(dim=1, keepdim=True)
        rest = (1 - before.sum(dim=1)).clamp(min=0)
        rest_now = (1 - now.exp().masked_fill(twice, 0).sum(dim=1)).clamp(min=torch.finfo(torch.float32).eps)
        lowered = torch.cat([before[:, :-1], before[:, -1:] * math.exp(-self.beta)], dim=1)
        loss = -(lowered * now).sum(dim=1) - rest * rest_now.log()
        return loss / (lowered.sum(dim=1) + rest)
