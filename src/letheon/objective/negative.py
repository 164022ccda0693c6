"""Negative terms: distances that drive the model away from an undesired answer y⁻.

Each is a pure function of the logits, and returns one loss per token or per sequence (its `unit`), before any
mean. m, p and π are always those of the old answer's tokens, π⁺ that of the expected answer.

| term | loss | gradient while the answer is memorised | once it is forgotten |
|---|---|---|---|
| LogOddsHinge | max(0, m − τ)/η | constant | exactly zero |
| NLUL | −log(1 − p) | strong | fades |
| NPO | −(2/β) log σ(−β log π/π₀) | that of gradient ascent | fades |
| SimNPO | −(2/β) log σ(−(β/|y|) log π − γ) | half of gradient ascent's on the mean, or more | fades |
| DPO | −(2/β) log σ(β (log π⁺/π₀⁺ − log π/π₀)) | that of gradient ascent, and a pull | fades |
| GradientAscent | log p | fades where p → 1 | grows without bound |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


def log_odds_margin(logits: Tensor, targets: Tensor, rivals: int) -> Tensor:
    """How far a token stands above its best rivals, in log-odds.

    m = z[y] − logsumexp of the `rivals` largest other logits. Against *all* rivals this is exactly
    logit p(y) = log p/(1 − p); against ten it is a little above.

    Args:
        logits: (N, V).
        targets: (N,).
        rivals: Number of rivals; at most V − 1 are used.

    Returns:
        (N,) float32, any real number; higher means more firmly preferred.
    """
    logits = logits.float()
    own = logits.gather(1, targets[:, None])
    others = logits.scatter(1, targets[:, None], float("-inf"))
    best = others.topk(min(rivals, logits.size(1) - 1), dim=1).values
    return own.squeeze(1) - best.logsumexp(dim=1)


def log_unlikelihood(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) −log(1 − p) of (N,) targets under (N, V) logits, in float32."""
    # log(1 − p) is logsumexp of all other logits minus that of all: exact where p rounds to 1.
    logits = logits.float()
    others = logits.scatter(1, targets[:, None], float("-inf"))
    return logits.logsumexp(dim=1) - others.logsumexp(dim=1)


@dataclass(frozen=True)
class LogOddsHinge:
    """Hinge on the log-odds margin: push while a token is preferred, then leave it alone.

    ℓ_t = max(0, m_t − τ)/η with τ = logit ρ. Range [0, ∞), 0 when forgotten. The margin is that of MASC
    (arXiv 2606.02920, which pushes to logit ρ minus η and trains without a normal loss); the form here is ours.

    Attributes:
        rho: Target probability against the rivals, in (0, 1).
        eta: Scale of the margin, > 0.
        rivals: Number of rival tokens.
    """

    rho: float = 0.2
    eta: float = 1.0
    rivals: int = 10
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        threshold = math.log(self.rho / (1 - self.rho))
        margins = answers.reduce(lambda logits, targets: log_odds_margin(logits, targets, self.rivals))
        return (margins - threshold).relu() / self.eta


@dataclass(frozen=True)
class NLUL:
    """Negative log-unlikelihood, −log(1 − p_t). Range [0, ∞), 0 when forgotten.

    Its gradient with respect to the logits is that of CE-U (cross-entropy to the model's own distribution without
    the token), so one implementation serves both. Source: arXiv 2504.13388.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return answers.reduce(log_unlikelihood)


@dataclass(frozen=True)
class NPO:
    """Negative preference optimisation, −(2/β) log σ(−β log(π_θ/π_θ₀)) with π of the whole answer.

    Range (0, ∞), (2/β) log 2 at θ = θ₀; as β → 0 its gradient tends to gradient ascent's. Source: arXiv 2404.05868,
    eq. 3; licong-lin/negative-preference-optimization.

    Attributes:
        beta: Inverse temperature, > 0.
    """

    beta: float = 0.1
    unit: ClassVar[Unit] = "sequence"
    needs: ClassVar[Needs] = frozenset({"reference_log_prob"})

    def __call__(self, answers: Answers) -> Tensor:
        """(S,) losses."""
        return -2 / self.beta * logsigmoid(-self.beta * answers.log_ratio())


@dataclass(frozen=True)
class SimNPO:
    """NPO without a reference: −(2/β) log σ(−(β/|y|) log π_θ − γ), |y| the counted tokens of the answer.

    Range (0, ∞); the mean token, not the whole answer, is held against γ. Source: arXiv 2410.07163, eq. 4;
    OPTML-Group/Unlearn-Simple (β 2.5 and γ 0 on TOFU forget05).

    Attributes:
        beta: Inverse temperature, > 0.
        gamma: Margin, ≥ 0: larger goes on pushing for longer.
    """

    beta: float = 2.5
    gamma: float = 0.0
    unit: ClassVar[Unit] = "sequence"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(S,) losses."""
        length = answers.sum_by_sequence(torch.ones_like(answers.targets, dtype=torch.float32)).clamp(min=1)
        mean = answers.sum_by_sequence(answers.log_probs()) / length
        return -2 / self.beta * logsigmoid(-self.beta * mean - self.gamma)


@dataclass(frozen=True)
class DPO:
    """Direct preference of the expected answer y⁺ over the old one: −(2/β) log σ(β (log π⁺/π₀⁺ − log π/π₀)).

    Range (0, ∞), (2/β) log 2 at θ = θ₀. With abstentions for expected answers this is "IdkDPO", with plausible
    alternates AltPO. Source: arXiv 2305.18290, eq. 7; as a negative term arXiv 2401.06121 and 2404.05868 (whose
    factor 2/β it has, to be of a size with NPO).

    Attributes:
        beta: Inverse temperature, > 0.
    """

    beta: float = 0.1
    unit: ClassVar[Unit] = "sequence"
    needs: ClassVar[Needs] = frozenset({"reference_log_prob", "preferred"})

    def __call__(self, answers: Answers) -> Tensor:
        """(S,) losses."""
        assert answers.preferred is not None
        return -2 / self.beta * logsigmoid(self.beta * (answers.preferred.log_ratio() - answers.log_ratio()))


@dataclass(frozen=True)
class GradientAscent:
    """Gradient ascent on the cross-entropy: ℓ_t = log p_t. Range (−∞, 0]; unbounded, so it ends in collapse."""

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return answers.log_probs()


def share_preferred(margins: Tensor, rho: float) -> float:
    """Share of tokens with margin above logit ρ, in [0, 1]; lower is more forgotten. NaN where any margin is.

    Args:
        margins: (N,) log-odds margins.
        rho: Threshold as a probability against the rivals.
    """
    if bool(margins.isnan().any()):
        # No comparison with NaN is true, so that a broken model would seem to have forgotten everything.
        return math.nan
    return float((margins > math.log(rho / (1 - rho))).to(torch.float32).mean())
