"""What a loss term is: a callable on answers that says in which unit it counts and what it needs."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from letheon.objective.answers import Answers

Unit = Literal["token", "sequence"]
Need = Literal[
    "reference_log_prob",
    "reference_top",
    "base_log_prob",
    "preferred",
    "rejected",
    "states",
    "reference_states",
    "reference_norm",
]
"""With "base_log_prob" the reference log-probabilities are the base's, not those of θ₀. A term that needs "states"
reads hidden states in place of logits, and has a `layer`: see `StateTerm`."""
Needs = frozenset[Need]


class Term(Protocol):
    """One term of the objective. What it does not need is neither computed nor cached."""

    @property
    def unit(self) -> Unit:
        """Whether a loss is returned per token (N,) or per sequence (S,)."""

    @property
    def needs(self) -> Needs:
        """What must be present in `Answers`: quantities under θ₀, states; expected answers beside the part's own."""

    def __call__(self, answers: Answers) -> Tensor:
        """Losses before any mean."""


class StateTerm(Term, Protocol):
    """A term that reads the hidden states that leave a layer, and no logits."""

    @property
    def layer(self) -> int:
        """Number of the layer, from 0."""
