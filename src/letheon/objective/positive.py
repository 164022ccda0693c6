"""Positive term: the pull toward the cluster mean of the expected answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


@dataclass(frozen=True)
class ClusterMean:
    """Cross-entropy on a member of the cluster of expected answers, drawn with its weight w_k.

    ℓ_t = −log p(y^k_t | x, y^k_<t). In expectation over the draw this is Σ_k w_k CE(y^k | x), which differs by a
    constant from KL(q̄ ‖ p) with q̄ = Σ_k w_k q_k: argmin_q Σ_k w_k KL(q_k ‖ q) is that mean, so the weighted
    cross-entropy *is* the pull to the cluster's mean. The weights are made in `letheon.expected`; uniform and single
    weights are its ablations. Range [0, ∞), lower is nearer. Form and weights are ours.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return -answers.log_probs()
