"""Distances that read nothing but the old tokens' probability p."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


def log_unlikelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) −log(1 − p) of (N,) targets under (N, V) logits, in float32."""
    # log(1 − p) is logsumexp of all other logits minus that of all: exact where p rounds to 1.
    logits = logits.float()
    others = logits.scatter(1, targets[:, None], float("-inf"))
    return logits.logsumexp(dim=1) - others.logsumexp(dim=1)


@dataclass(frozen=True)
class NLUL:
    """Negative log-unlikelihood, −log(1 − p_t). Range [0, ∞), 0 when forgotten.

    Its gradient with respect to the logits is that of CE-U (cross-entropy to the model's own distribution without
    the token), so one implementation serves both. (CE-U leaves each answer's first token out: `without-first`.)
    Source: arXiv 2504.13388, which adds a mean teacher; CE-U as in open-unlearning, src/trainer/unlearn/ceu.py.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return answers.reduce(log_unlikelihood)


@dataclass(frozen=True)
class GradientAscent:
    """Gradient ascent on the cross-entropy: ℓ_t = log p_t. Range (−∞, 0]; unbounded, so it ends in collapse."""

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return answers.log_probs()


@dataclass(frozen=True)
class WGA:
    """Weighted gradient ascent, sg(p_t^β) log p_t, sg holding the weight fixed.

    Gradient ascent on the tokens that the model still prefers: what is forgotten has no weight. Range [−1/(eβ), 0].
    Source: arXiv 2502.19301; open-unlearning, community/methods/WGA (β 1).

    Attributes:
        beta: Power of the weight, ≥ 0; 0 is gradient ascent.
    """

    beta: float = 1.0
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        log_probs = answers.log_probs()
        return (self.beta * log_probs.detach()).exp() * log_probs


@dataclass(frozen=True)
class SatImp:
    """Gradient ascent by saturation and importance, sg(p_t^β₁ (1 − p_t)^β₂) log p_t, sg holding the weight fixed.

    Neither what is forgotten nor what is known by heart has a weight: the published powers leave tokens of p ≈ 0.8.
    Range (−∞, 0]; bounded for β₁ > 0. Source: arXiv 2505.11953; open-unlearning, community/methods/SatImp (β₁ 5,
    β₂ 1, retain weight 0.1; its SatImp.yaml has the two weights the other way round).

    Attributes:
        beta1: Power of p, ≥ 0.
        beta2: Power of 1 − p, ≥ 0; 0 is `WGA`.
    """

    beta1: float = 5.0
    beta2: float = 1.0
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        log_probs = answers.log_probs()
        fixed = log_probs.detach()
        # 1 − p from log p: exact where p rounds to 1.
        return (self.beta1 * fixed).exp() * (-fixed.expm1()) ** self.beta2 * log_probs
