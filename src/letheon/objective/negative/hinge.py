"""Hinges on the log-odds margin: how far a token stands above its rivals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

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
        return _hinge(answers, self, 0.0)


@dataclass(frozen=True)
class MASC:
    """The hinge of margin self-correction: push on until a token is η below the threshold.

    ℓ_t = max(0, m_t − τ + η)/η with τ = logit ρ: the margin and scale of `LogOddsHinge`, with its corner moved by η.
    Range [0, ∞), 0 when forgotten. Source: arXiv 2606.02920;
    FedericoDiGennaro/Fast-LLM-Unlearning-MarginSelfCorrection (ρ 0.7, η 0.25 and 10 rivals on TOFU). Its code counts
    the tokens of a continuation after a random cut; here the token choice says which count.

    Attributes:
        rho: Target probability against the rivals, in (0, 1).
        eta: How far below it to go, and the scale of the margin, > 0.
        rivals: Number of rival tokens.
    """

    rho: float = 0.7
    eta: float = 0.25
    rivals: int = 10
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return _hinge(answers, self, self.eta)


def _hinge(answers: Answers, term: LogOddsHinge | MASC, below: float) -> Tensor:
    """(N,) max(0, m − τ + below)/η."""
    corner = math.log(term.rho / (1 - term.rho)) - below
    margins = answers.reduce(lambda logits, targets: log_odds_margin(logits, targets, term.rivals))
    return (margins - corner).relu() / term.eta
