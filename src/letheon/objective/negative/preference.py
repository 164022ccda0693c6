"""Distances between whole answers: the old one against what it was, or against the expected one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import logsigmoid

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


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
        mean = answers.mean_by_sequence(answers.log_probs())
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
class FlatTV:
    """FLAT with total variation, ½ tanh(p̄) − ½ tanh(p̄⁺), p̄ the mean probability of an answer's counted tokens.

    The old answer loses what the expected one gains; no reference. Range (−½ tanh 1, ½ tanh 1). Source: arXiv
    2410.11143; UCSC-REAL/FLAT, whose code averages over prompt and padding too (as zeros) and takes the tanh of the
    batch's mean: here, as in the paper, each answer has its own.
    """

    unit: ClassVar[Unit] = "sequence"
    needs: ClassVar[Needs] = frozenset({"preferred"})

    def __call__(self, answers: Answers) -> Tensor:
        """(S,) losses."""
        assert answers.preferred is not None
        old, expected = (a.mean_by_sequence(a.log_probs().exp()) for a in (answers, answers.preferred))
        return (old.tanh() - expected.tanh()) / 2
