"""Back to the base: what a model that never saw the old answers would say in their place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.normal import top_k_kl
from letheon.objective.term import Needs, Unit


@dataclass(frozen=True)
class BaseKL:
    """KL(p_base ‖ p_θ) at the tokens of old answers, where p_base is the model before it learnt them.

    On the base's k likeliest tokens and one bucket for all the rest: a lower bound of the full divergence, exact for
    k = V. Range [0, ∞), 0 where θ is at the base. Its gradient in the logits is p_θ − p_base: strong where an answer
    is known by heart, and of the other sign where a token has fallen below the base's level, so that nothing is
    forgotten further than to where it was never seen. Distilling a model that lacks some knowledge is an old idea;
    the form, and to take the base for that model, are ours.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"base_top"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.reference_top_ids is not None
        assert answers.reference_top_log_probs is not None
        return answers.reduce(self._loss, answers.reference_top_ids, answers.reference_top_log_probs)

    @staticmethod
    def _loss(logits: Tensor, targets: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
        return top_k_kl(logits, top_ids, top_log_probs)
