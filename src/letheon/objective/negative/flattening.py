"""Distances that flatten the distribution at the old answer's places, whatever its tokens are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


@dataclass(frozen=True)
class MaxEntropy:
    """Maximal entropy (ME), KL(u ‖ p_θ) with u uniform over the vocabulary: logsumexp z − mean z − log V.

    Range [0, ∞), 0 where all tokens are alike. It reads no old token, only where the old answer is. Source: arXiv
    2410.08109; the direction of the divergence is that of its code, sail-sg/closer-look-LLM-unlearning.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return answers.reduce(_from_uniform)


def _from_uniform(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.float()
    return logits.logsumexp(dim=1) - logits.mean(dim=1) - math.log(logits.size(1))


@dataclass(frozen=True)
class LogitFlattening:
    """PDU's distance, (max_v z_v − mean_v z_v)²: flat logits, without a softmax.

    Range [0, ∞), 0 where all tokens are alike. It reads no old token, only where the old answer is. PDU is this under
    a bound on the normal loss, which the dual weight holds (`objective.normal.budget`). Source: arXiv 2506.05314;
    open-unlearning, src/trainer/unlearn/pdu.py, which averages over prompt and padding too: here, answers alone.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return answers.reduce(_peak)


def _peak(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.float()
    return (logits.amax(dim=1) - logits.mean(dim=1)).square()
