"""How the weights adapt: gradient-norm balance for the negative term, a dual step for the normal one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Balance:
    """s = clip(‖∇_z L_nor‖ / ‖∇_z L_neg‖, 0.1, 10), from the step before.

    z are the logits at answer positions, so the norms cost no backward pass through the model. Using the last step's
    norms keeps s constant over the micro-batches of one step. Where either norm is zero (a satisfied hinge), s stays.
    Of terms on hidden states there are none, and s is 1: their normal loss starts at a minimum, and a ratio to its
    gradient would stop the negative term before it has begun.

    Attributes:
        scale: The current s.
    """

    scale: float = 1.0
    low: float = 0.1
    high: float = 10.0

    def update(self, normal_norm: float, negative_norm: float) -> None:
        """Take the norms of a finished step."""
        if normal_norm > 0 and negative_norm > 0:
            self.scale = min(max(normal_norm / negative_norm, self.low), self.high)


MOST = 100.0
"""λ_nor does not rise above it, unless it starts near."""


@dataclass
class DualWeight:
    """λ ← clip(λ + η_λ (exp(L_nor − L_nor,0) − budget), floor, most): normal loss buys weight while it overruns.

    exp(L_nor − L_nor,0) is the ratio of perplexities. (A ratio of losses would count the same harm many times over
    where the normal answers are nearly known by heart and L_nor,0 is close to 0.) L_nor,0 is the loss of θ₀ on the
    *same* tokens, so the ratio is not noise of which dialogues were drawn. λ never falls below `floor`, by default
    its start value: otherwise a term that has been paid for would be forgotten again. The last step alone counts: to
    average over several lets the loss run ahead, and mends it late.

    Attributes:
        value: The current λ_nor.
        floor: Its smallest value.
        rate: η_λ; 0 keeps λ fixed.
        budget: Allowed ratio.
        most: Its largest value: 100, or ten times the start or floor where that is more.
    """

    value: float
    floor: float
    rate: float = 1.0
    budget: float = 1.1
    most: float = field(init=False)

    def __post_init__(self) -> None:
        """Leave room above the start."""
        self.most = max(MOST, 10 * max(self.value, self.floor))

    def update(self, loss: float, reference: float) -> None:
        """Take the mean normal cross-entropy of a finished step, and θ₀'s on the same tokens."""
        if not self.rate:
            return
        # The limit keeps a diverging loss from overflowing.
        moved = self.value + self.rate * (math.exp(min(loss - reference, 5.0)) - self.budget)
        self.value = min(max(moved, self.floor), self.most)
