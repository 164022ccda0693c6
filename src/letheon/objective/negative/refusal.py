"""The divergence to a refusal, spoken in the old answer's places."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


@dataclass(frozen=True)
class JensUn:
    """Jensen–Shannon divergence to the expected answer's tokens, repeated over the places of the old answer.

    With r the token that falls to a place, JSD(p ‖ one-hot r) = log 2 − ½ [(1 + p_r) log(1 + p_r) − p_r log p_r].
    Range [0, log 2], 0 where p_r = 1. Nearly flat where p_r is small: its gradient is of the order of p_r log 1/p_r.
    Source: arXiv 2509.02820; nmndeep/JensUn-Unlearning, whose code gives *every* refusal token the probability 1 at
    every place, prompt and padding among them: here a place has one token, and answers alone count.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"preferred"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.preferred is not None
        log_p = replace(answers, targets=refusal_tokens(answers)).log_probs()
        p = log_p.exp()
        return math.log(2) - ((1 + p) * p.log1p() - p * log_p) / 2


def refusal_tokens(answers: Answers) -> Tensor:
    """(N,) tokens of the preferred answer of each place's sequence, over and over until the old answer ends."""
    preferred = answers.preferred
    assert preferred is not None
    length = torch.bincount(preferred.sequence, minlength=answers.sequences)
    place = torch.arange(len(answers.targets), device=answers.targets.device)
    first = torch.searchsorted(answers.sequence, answers.sequence)
    start = length.cumsum(0) - length
    return preferred.targets[start[answers.sequence] + (place - first) % length[answers.sequence]]
