"""What the terms of an objective weigh, and how that adapts to each step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from letheon.expected import Target, tells
from letheon.objective import Balance, DualWeight, Objective, Part
from letheon.train.config import UnlearnConfig
from letheon.train.parts import StepSums

TELLING, ABSTAINING = 1.0, 0.2
"""λ_pos of answers that say something, and of abstentions."""


def pull(targets: Sequence[Target]) -> float:
    """λ_pos for what is expected, where nobody has set it: 1, or 0.2 where it does not state anything.

    A pull toward abstentions spreads: neighbouring normal questions are then met with abstentions too, so it is
    light. Answers that say something of their own, a corrected fact above all, do not spread like that; and pulled
    lightly they are not learnt before the old ones are forgotten, and the model then says something else again
    (docs/why-these-defaults.md).
    """
    return TELLING if tells(targets) else ABSTAINING


class Weights:
    """λ of each part, and the scale s of the negative one.

    Args:
        objective: Where they start.
        targets: What is expected, for λ_pos where the objective leaves it open.
        args: How they adapt.

    Attributes:
        of: λ by part.
        balance: Holds s.
        balances: Whether there may be two norms to balance: those of terms that read logits.
    """

    def __init__(self, objective: Objective, targets: Sequence[Target], args: UnlearnConfig):
        negative, positive, normal = objective.weights
        positive = pull(targets) if positive is None else positive
        self.of: dict[Part, float] = {"negative": negative, "positive": positive, "normal": normal}
        self.balance = Balance()
        states = objective.reads_states("negative") or objective.reads_states("normal")
        self.balances = bool(args.balance) and not states
        floor = normal if args.normal_floor is None else args.normal_floor
        self._dual = DualWeight(normal, floor, args.dual_rate, args.normal_budget)

    def after(self, sums: StepSums, *, dual: bool) -> dict[str, float]:
        """Adapt to a step, the normal weight only if `dual`; what a log says of the step, with what it weighed."""
        had = {**{f"weight_{part}": weight for part, weight in self.of.items()}, "scale": self.balance.scale}
        if self.balances:
            self.balance.update(math.sqrt(sums.normal_square), math.sqrt(sums.negative_square))
        if dual and sums.normal_tokens:
            self._dual.update(sums.normal_loss / sums.normal_tokens, sums.normal_reference / sums.normal_tokens)
            self.of["normal"] = self._dual.value
        return {**sums.losses, **had}

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold of them."""
        return {"scale": self.balance.scale, "normal_weight": self._dual.value}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.balance.scale = state["scale"]
        self._dual.value = self.of["normal"] = state["normal_weight"]
