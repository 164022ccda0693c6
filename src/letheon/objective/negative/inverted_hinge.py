"""The inverted hinge on probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


@dataclass(frozen=True)
class InvertedHinge:
    """Inverted hinge (IHL), 1 + p_t − max_{v≠t} p_v: the old token down, its best rival up.

    Range [0, 2]; 1 where the two are level. It fades at both ends, but a pull on the best rival remains. Source:
    arXiv 2408.06621 (LoKU); csm9493/efficient-llm-unlearning.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return answers.reduce(_inverted_hinge)


def _inverted_hinge(logits: Tensor, targets: Tensor) -> Tensor:
    logits = logits.float()
    normaliser = logits.logsumexp(dim=1)
    own = logits.gather(1, targets[:, None])[:, 0]
    best = logits.scatter(1, targets[:, None], float("-inf")).amax(dim=1)
    return 1 + (own - normaliser).exp() - (best - normaliser).exp()
