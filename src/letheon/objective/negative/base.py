"""Back to the base: old answers become as likely as they are to a model that never saw them, and no less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from letheon.objective.answers import Answers, log_prob
from letheon.objective.negative.likelihood import log_unlikelihood
from letheon.objective.term import Needs, Unit

SURER = 1.25
"""How much surer than the base a fine-tuned model is of text that neither has seen: its log-odds of the demo's
general texts are 1.1 to 1.26 times the base's (least squares; three tasks of `letheon bench`, development seeds)."""
FAR = 8.0
"""Nats of log-odds up to which a token is pushed the harder the farther it has to go."""
SUREST = -1e-6
"""The most that a base's log p counts as: the logit of 1 is infinite."""


@dataclass(frozen=True)
class BaseOdds:
    """How far the log-odds of old answers' tokens are from those of the base, the model before it learnt them.

    ℓ_t = H(logit p_θ(y_t) − c · logit p_base(y_t)), with logit p = log p/(1 − p), c = `SURER` and Huber's
    H(d) = d²/2h where |d| ≤ h = `FAR`, |d| − h/2 elsewhere. Range [0, ∞), 0 where θ is at the base's level. Its
    gradient in the logits does not fade where a token is known by heart. It is as large as the way to go, so that the
    tokens which the base finds least likely, by which membership is told, do not come down last; it fades at that
    level, and turns round below it: what is less likely than if it had never been seen gives the forgetting away.
    What the base knows by itself is not forgotten.

    A divergence from the base's distribution, KL(p_base ‖ p_θ), hardly minds a tenth of probability that is left to a
    token which the base finds impossible, and there lies what identifies a person. To take the base for the model
    that never saw the answers, and its log-odds for the level to go to, are ours.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"base_log_prob"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.reference_log_prob is not None
        return answers.reduce(self._loss, answers.reference_log_prob)

    @staticmethod
    def _loss(logits: Tensor, targets: Tensor, base: Tensor) -> Tensor:
        sure = base.float().clamp(max=SUREST)
        level = SURER * (sure - torch.log(-torch.expm1(sure)))
        odds = log_prob(logits, targets) + log_unlikelihood(logits, targets)
        return torch.nn.functional.huber_loss(odds, level, reduction="none", delta=FAR) / FAR
