"""The stop rule: when it is enough, when it has gone too far, when it does not work. Knows numbers, not models."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Probe:
    """One look at held-out data, forwards only.

    Attributes:
        step: Optimizer step.
        probability: Mean over the probe of the old answers' exp(mean log p), in [0, 1]; lower is more forgotten.
        share: Share of probe tokens whose log-odds margin is above logit ρ, in [0, 1]; for the curve only: grammar
            and words of the question keep it high in a model that never saw the answers.
        extraction_strength: Of the old answers on the probe, in [0, 1]; lower is more forgotten.
        normal_ratio: Normal probe's perplexity over what it was before, exp(Δ loss); 1 is unchanged.
        kl: KL to the model before on the normal probe, nats per token.
        repetition: Share of repeated 3-grams in greedy answers; None where none were made.
    """

    step: int
    probability: float
    share: float
    extraction_strength: float
    normal_ratio: float
    kl: float
    repetition: float | None = None


Action = Literal["continue", "hold", "confirm", "stop"]


class Decision(NamedTuple):
    """What to do next: "hold" trains on without the negative loss; "confirm" asks for the larger probe."""

    action: Action
    reason: str = ""


@dataclass
class StopRule:
    """Decides from a stream of probes.

    Forgotten: the old answers' probability and extraction strength have both fallen to their limits, seen on a quick
    probe and confirmed on a larger one. The limits are about what a model that never saw the answers has: going on
    below them costs ability and shows the forgetting to a membership attack. Guards: normal perplexity, KL, finite
    numbers, no repetition collapse; while one is breached the negative loss rests. Flat: no progress for `patience`
    probes. Rule and limits are ours; the two-stage probe follows MASC (arXiv 2606.02920).
    """

    probability: float = 0.1
    extraction_strength: float = 0.1
    normal_budget: float = 1.12
    kl_budget: float = 0.12
    max_repetition: float = 0.5
    patience: int = 3
    clean_extraction: float = 0.05
    best_remaining: float = math.inf
    best_step: int = -1
    flat: int = 0

    def is_clean(self, before: Probe) -> bool:
        """Whether a model does not reproduce the old answers in the first place."""
        return self._is_finite(before) and before.extraction_strength <= self.clean_extraction

    @staticmethod
    def _is_finite(probe: Probe) -> bool:
        return all(math.isfinite(value) for value in (probe.probability, probe.normal_ratio, probe.kl))

    def remaining(self, probe: Probe) -> float:
        """How much is left to forget, in multiples of the limits: at most 1 is forgotten. In [0, ∞)."""
        return max(probe.probability / self.probability, probe.extraction_strength / self.extraction_strength)

    def breach(self, probe: Probe) -> str | None:
        """The guard that a probe breaches, in words."""
        if not self._is_finite(probe):
            return "the loss is not finite"
        if probe.normal_ratio > self.normal_budget:
            return f"normal perplexity is {probe.normal_ratio:.3f} × before, allowed {self.normal_budget}"
        if probe.kl > self.kl_budget:
            return f"KL to the model before is {probe.kl:.3f}, allowed {self.kl_budget}"
        if probe.repetition is not None and probe.repetition > self.max_repetition:
            return f"answers repeat themselves ({probe.repetition:.0%} of 3-grams), allowed {self.max_repetition:.0%}"
        return None

    def look(self, probe: Probe) -> Decision:
        """Take a quick probe."""
        if self.remaining(probe) <= 1 and self.breach(probe) is None:
            return Decision("confirm")
        return self._go_on(probe)

    def confirm(self, probe: Probe) -> Decision:
        """Take the larger probe after a "confirm"."""
        if self.remaining(probe) <= 1 and self.breach(probe) is None:
            return Decision(
                "stop",
                f"forgotten: on the probe, probability {probe.probability:.3f} (limit {self.probability:g}) and "
                f"extraction strength {probe.extraction_strength:.3f} (limit {self.extraction_strength:g})",
            )
        return self._go_on(probe)

    def _go_on(self, probe: Probe) -> Decision:
        """Whether to go on after a probe that is not good enough, and how."""
        if not self._is_finite(probe):
            return Decision("stop", "diverged: the loss is not finite")
        breach = self.breach(probe)
        if breach is None and self.remaining(probe) < self.best_remaining - 0.1:
            self.flat = 0
        else:
            self.flat += 1
        if self.flat >= self.patience:
            return Decision("stop", f"no progress for {self.flat} probes" + (f" ({breach})" if breach else ""))
        return Decision("hold", breach) if breach else Decision("continue")

    def is_best(self, probe: Probe) -> bool:
        """Whether this is the best state so far that passes the guards; remembers it."""
        if self.breach(probe) is None and self.remaining(probe) < self.best_remaining:
            self.best_remaining, self.best_step = self.remaining(probe), probe.step
            return True
        return False

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold to go on as if never interrupted."""
        return asdict(self)
