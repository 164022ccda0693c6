"""Terms on the hidden states h that leave a layer: RMU, which misdirects those of old answers and keeps normal ones.

They read no logits, so that nothing above the layer needs to run. States are those from which answer tokens are
predicted. (The authors take the mean over every token of a text, padding included.) d is their width.

| term | loss |
|---|---|
| RMU | ‖h − c u‖²/d, c fixed |
| AdaptiveRMU | ‖h − c u‖²/d, c in proportion to the length that states had before |
| ReferenceStates | ‖h − h₀‖²/d, h₀ under θ₀ |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from letheon.objective.answers import Answers
from letheon.objective.term import Needs, Unit


def direction(size: int, seed: int) -> Tensor:
    """(d,) the unit vector u: uniform on [0, 1) in each coordinate, then normalised, as the authors draw it."""
    drawn = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    unit: Tensor = drawn / drawn.norm()
    return unit


def mean_square(states: Tensor, wanted: Tensor) -> Tensor:
    """(N,) ‖h − w‖²/d of (N, d) states and (N, d) or (d,) wanted ones, in float32."""
    return (states.float() - wanted.to(states.device)).square().mean(dim=1)


@dataclass(frozen=True)
class RMU:
    """Representation misdirection: ℓ_t = ‖h_t − c u‖²/d, u a unit vector drawn once, the same for all tokens.

    Range [0, ∞), 0 where all states are c u and nothing can be told from them. Source: arXiv 2403.03218;
    centerforaisafety/wmdp, rmu/unlearn.py (c 20, later 6.5, layer 7 of 32; the weights of `down_proj` in layers 5 to
    7 learn, at 5e-5 and a normal weight of 1200).

    Attributes:
        layer: Number of the layer, from 0.
        steering: c > 0.
        seed: Of u.
    """

    layer: int
    steering: float = 20.0
    seed: int = 0
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"states"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.states is not None
        return mean_square(answers.states, self.steering * direction(answers.states.size(1), self.seed))


@dataclass(frozen=True)
class AdaptiveRMU:
    """RMU with c = `scale` · mean ‖h‖, the mean taken under θ₀ over the answer tokens of all that is to be forgotten.

    So c fits any model and layer. The authors take that mean over the first batch; over all it depends neither on
    what was drawn first nor on the batch size, and a resumed run has the same. Source: arXiv 2408.06223;
    RebelsNLU-jaist/llm-unlearning, baselines/adap_rmu (scale 5, layer 7 of 32, a normal weight of 1200).

    Attributes:
        layer: Number of the layer, from 0.
        scale: c as a multiple of that mean, > 0.
        seed: Of u.
    """

    layer: int
    scale: float = 5.0
    seed: int = 0
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"states", "reference_norm"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.reference_norm is not None
        return RMU(self.layer, self.scale * answers.reference_norm, self.seed)(answers)


@dataclass(frozen=True)
class ReferenceStates:
    """RMU's normal term: ℓ_t = ‖h_t − h_t^θ₀‖²/d. Range [0, ∞), 0 at θ = θ₀, where its gradient is zero too.

    The authors' α is this term's weight λ_nor. Source: as of `RMU`.

    Attributes:
        layer: Number of the layer, from 0; that of the negative term.
    """

    layer: int
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"states", "reference_states"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.states is not None
        assert answers.reference_states is not None
        return mean_square(answers.states, answers.reference_states)
