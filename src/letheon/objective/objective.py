"""The objective: three composed terms, their weights, and how they are reduced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.negative import LogOddsHinge
from letheon.objective.normal import ReferenceKL
from letheon.objective.positive import ClusterMean
from letheon.objective.term import Needs, StateTerm, Term

Part = Literal["negative", "positive", "normal"]
PARTS: tuple[Part, ...] = ("negative", "positive", "normal")
Group = Literal["negative", "positive", "normal", "rejected"]
GROUPS: tuple[Group, ...] = (*PARTS, "rejected")
"""The sequences of a batch: those of each part, and expected answers in the place of the normal ones."""


@dataclass(frozen=True)
class Counts:
    """What a part's sum of losses is divided by: the counts of a whole optimizer step."""

    tokens: float
    sequences: float


@dataclass(frozen=True)
class Objective:
    """L = λ_neg · s · L_neg + λ_pos · L_pos + λ_nor · L_nor.

    The call returns the three means; weights and scale are applied by `total`, because the trainer adapts them while
    it runs (dual step for λ_nor, gradient-norm balance s). Formulas are ours: see docs/3-unlearn.md.

    Attributes:
        negative: Term on the old answers; None leaves it out.
        positive: Term on the expected answers; None leaves it out.
        normal: Term on normal answers; None leaves it out.
        weights: (λ_neg, λ_pos, λ_nor) at the start; None for λ_pos leaves it to the trainer, which goes by what the
            expected answers say (`letheon.train.weights`).

    Example:
        >>> objective = Objective(LogOddsHinge(rho=0.2), ClusterMean(), ReferenceKL())
        >>> sorted(objective.needs("normal"))
        ['reference_top']
    """

    negative: Term | None = LogOddsHinge()
    positive: Term | None = ClusterMean()
    normal: Term | None = ReferenceKL()
    weights: tuple[float, float | None, float] = (1.0, None, 2.5)

    def __post_init__(self) -> None:
        if len(layers := self._layers) > 1:
            raise ValueError(f"terms read the states of layers {layers}: let all of them read one")

    def term(self, part: Part) -> Term | None:
        """The term of a part."""
        terms: dict[Part, Term | None] = {
            "negative": self.negative,
            "positive": self.positive,
            "normal": self.normal,
        }
        return terms[part]

    def needs(self, part: Group) -> Needs:
        """Reference quantities that are needed of a part's answers."""
        term = self.term(part) if part != "rejected" else None
        needs = term.needs - {"preferred", "rejected"} if term is not None else frozenset()
        # What is held against old answers is scored as they are.
        return needs | self.needs("negative") if part == "positive" and self.prefers else needs

    @property
    def prefers(self) -> bool:
        """Whether the negative term reads the expected answers too."""
        return self.negative is not None and "preferred" in self.negative.needs

    @property
    def rejects(self) -> bool:
        """Whether the normal term reads expected answers in the normal ones' place."""
        return self.normal is not None and "rejected" in self.normal.needs

    @property
    def reads_expected(self) -> bool:
        """Whether any term reads expected answers."""
        return self.positive is not None or self.prefers or self.rejects

    def reads_states(self, part: Group) -> bool:
        """Whether the term of a part reads hidden states in place of logits."""
        return "states" in self.needs(part)

    @property
    def reads_logits(self) -> bool:
        """Whether any term reads logits; if none does, nothing above the `layer` is needed."""
        return any(self.term(part) is not None and not self.reads_states(part) for part in PARTS)

    @property
    def layer(self) -> int | None:
        """The layer whose states terms read; None where none does."""
        return next(iter(self._layers), None)

    @property
    def _layers(self) -> list[int]:
        terms = [term for part in PARTS if (term := self.term(part)) is not None and "states" in term.needs]
        return sorted({cast(StateTerm, term).layer for term in terms})

    def __call__(self, batch: dict[Group, Answers], counts: dict[Part, Counts] | None = None) -> dict[Part, Tensor]:
        """Mean loss of each part, shape ().

        Args:
            batch: The answers of each part, and those that are rejected; a part without any is absent.
            counts: Tokens and sequences to divide by. None takes those of the batch; under gradient accumulation
                the trainer passes those of the whole step, which makes it exact.
        """
        if self.prefers and "negative" in batch:
            batch = {**batch, "negative": replace(batch["negative"], preferred=batch["positive"])}
        if self.rejects and "normal" in batch:
            batch = {**batch, "normal": replace(batch["normal"], rejected=batch["rejected"])}
        return {
            part: self._mean(term, batch[part], counts[part] if counts else None)
            for part in PARTS
            if part in batch and (term := self.term(part)) is not None
        }

    @staticmethod
    def _mean(term: Term, answers: Answers, counts: Counts | None) -> Tensor:
        losses = term(answers)
        if term.unit == "token":
            losses = torch.where(answers.counts, losses, torch.zeros_like(losses))
            count = counts.tokens if counts else float(answers.counts.sum())
        else:
            count = counts.sequences if counts else answers.sequences
        return losses.sum() / max(count, 1)

    @staticmethod
    def total(parts: dict[Part, Tensor], weights: dict[Part, float], scale: float = 1.0) -> Tensor:
        """The weighted sum, shape (); `scale` is s and multiplies the negative part."""
        return torch.stack(
            [loss * weights[part] * (scale if part == "negative" else 1.0) for part, loss in parts.items()]
        ).sum()
