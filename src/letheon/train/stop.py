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
        extraction_strength: Of the old answers on the probe, in [0, 1]; lower is more forgotten.
        normal_ratio: Normal probe's perplexity over what it was before, exp(Δ loss); 1 is unchanged.
        kl: KL to the model before on the normal probe, nats per token.
        repetition: Share of repeated 3-grams in greedy answers; None where none were made.
        truth_probability: Mean of p_e / (p_e + p_o), where p_o is an old answer's exp(mean log p) and p_e that of the
            likeliest of its expected ones, in [0, 1]; higher is better learnt. None where no expected answers are to
            be learnt: what they say is an abstention, or nobody pulls toward them.
        normal_kept: Sum of exp(mean log p) over the log's own normal dialogues on the probe, over that before, in
            [0, ∞); 1 is unchanged. None where they are fewer than `letheon.train.probe.FEW`.
        alpha: Share of the change that was in the weights; 1 while training.
    """

    step: int
    probability: float
    extraction_strength: float
    normal_ratio: float
    kl: float
    repetition: float | None = None
    truth_probability: float | None = None
    normal_kept: float | None = None
    alpha: float = 1.0


NEAR = 1.25
"""How far the guards may be overrun where training ends. Going on beside them mends more than scaling back would."""
SLACK = 2.0
"""How far the guards may be overrun while training goes on: scaling back gives most of the overrun back."""
MENDING = 2
"""Where scaling back would do, so many times `every` steps are given to come near the guards without it."""
SELDOM = 2
"""Where it is far from being enough, at most so many times as many steps lie between two probes."""

Action = Literal["continue", "hold", "confirm", "stop"]


class Decision(NamedTuple):
    """What to do next: "hold" trains on without the negative loss; "confirm" asks for the larger probe."""

    action: Action
    reason: str = ""


@dataclass
class StopRule:
    """Decides from a stream of probes.

    Forgotten: the old answers' probability and extraction strength have both fallen to their limits, and still will
    be there when what overruns the guards has been scaled back (`letheon.train.scale_back`); seen on a quick probe
    and confirmed on a larger one. Or replaced: their truth probability has risen to its limit, and what the expected
    answers have taken the place of is not said any more, however likely it is by itself. The limits are about what a
    model that never saw the answers has: going on below them costs ability and shows the forgetting to a membership
    attack, so what was changed is then scaled back to them. Guards: normal perplexity, KL, what the log's own normal
    dialogues have kept (apart: rehearsed answers are more, and hide it), finite numbers, no repetition collapse.
    They hold for the state that is kept; only where one is overrun by more than `SLACK` times what it allows does the
    negative loss rest, for to train on beside the guards forgets more at the same cost. Flat: no progress in
    `patience` times `every` steps, without those in which what is left fell, or in `MENDING` times `every` where
    scaling back would do. Rule and limits are ours; the two-stage probe follows MASC (arXiv 2606.02920).
    """

    every: int = 1
    probability: float = 0.1
    extraction_strength: float = 0.1
    truth_probability: float = 0.8
    normal_budget: float = 1.12
    kl_budget: float = 0.12
    normal_kept: float = 0.9
    max_repetition: float = 0.5
    patience: int = 10
    clean_extraction: float = 0.05
    lowest: float = math.inf
    latest: float = math.inf
    best_remaining: float = math.inf
    best_step: int = -1
    flat: int = 0
    mending: int = 0
    last_step: int = 0
    last_left: float = math.inf
    waited: int = 1

    def limits(self) -> dict[str, float]:
        """What is held against the fields of a probe: the limits, and the guards on what normal answers lose."""
        return {
            "probability": self.probability,
            "extraction_strength": self.extraction_strength,
            "truth_probability": self.truth_probability,
            "normal_ratio": self.normal_budget,
            "kl": self.kl_budget,
            "normal_kept": self.normal_kept,
        }

    def is_clean(self, before: Probe) -> bool:
        """Whether a model does not reproduce the old answers in the first place."""
        return self.is_finite(before) and before.extraction_strength <= self.clean_extraction

    @staticmethod
    def is_finite(probe: Probe) -> bool:
        """Whether all that was measured is a number."""
        return all(math.isfinite(value) for value in (probe.probability, probe.normal_ratio, probe.kl))

    def remaining(self, probe: Probe) -> float:
        """How much is left to forget, in multiples of the limits: at most 1 is forgotten. In [0, ∞).

        Of forgetting and being replaced by expected answers, whichever is nearer to its limits.
        """
        return min(self._unforgotten(probe), self._unreplaced(probe))

    def _unforgotten(self, probe: Probe) -> float:
        return max(probe.probability / self.probability, probe.extraction_strength / self.extraction_strength)

    def _unreplaced(self, probe: Probe) -> float:
        if probe.truth_probability is None:
            return math.inf
        return (1 - probe.truth_probability) / (1 - self.truth_probability)

    def overrun(self, probe: Probe) -> float:
        """What normal answers have lost, in multiples of what is allowed: at most 1 is within it. In [0, ∞)."""
        loss = math.log(max(probe.normal_ratio, 1.0)) / math.log(self.normal_budget)
        lost = 0.0 if probe.normal_kept is None else (1 - probe.normal_kept) / (1 - self.normal_kept)
        return max(loss, probe.kl / self.kl_budget, lost)

    def breach(self, probe: Probe, slack: float = 1.0) -> str | None:
        """The guard that a probe breaches, in words; `slack` widens what normal answers may lose."""
        if not self.is_finite(probe):
            return "the loss is not finite"
        if probe.normal_ratio > 1 + (self.normal_budget - 1) * slack:
            return f"normal perplexity is {probe.normal_ratio:.3f} × before, allowed {self.normal_budget}"
        if probe.kl > self.kl_budget * slack:
            return f"KL to the model before is {probe.kl:.3f}, allowed {self.kl_budget}"
        if probe.normal_kept is not None and probe.normal_kept < 1 - (1 - self.normal_kept) * slack:
            kept, least = f"{probe.normal_kept:.1%}", f"{self.normal_kept:.0%}"
            return f"the log's own normal answers have kept {kept} of their probability, at least {least} is asked"
        if probe.repetition is not None and probe.repetition > self.max_repetition:
            return f"answers repeat themselves ({probe.repetition:.0%} of 3-grams), allowed {self.max_repetition:.0%}"
        return None

    def forgotten(self, probe: Probe) -> str | None:
        """That a probe is at the limits, in words; None where it is not."""
        if not self.is_finite(probe) or self.remaining(probe) > 1:
            return None
        if self._unforgotten(probe) > 1:
            return (
                "replaced: on the probe, expected answers have taken the old ones' place, "
                f"truth probability {probe.truth_probability:.3f} (limit {self.truth_probability:g})"
            )
        return (
            f"forgotten: on the probe, probability {probe.probability:.3f} (limit {self.probability:g}) and "
            f"extraction strength {probe.extraction_strength:.3f} (limit {self.extraction_strength:g})"
        )

    def look(self, probe: Probe) -> Decision:
        """Take a quick probe."""
        return Decision("confirm") if self._is_done(probe) else self._go_on(probe)

    def confirm(self, probe: Probe) -> Decision:
        """Take the larger probe after a "confirm"."""
        return Decision("stop", self.forgotten(probe) or "") if self._is_done(probe) else self._go_on(probe)

    def left(self, probe: Probe) -> float:
        """How much is left to forget if what overruns the guards is scaled back, and forgetting with it."""
        return self.remaining(probe) * math.sqrt(max(self.overrun(probe), 1.0))

    def _is_done(self, probe: Probe) -> bool:
        return self.left(probe) <= 1 and self.breach(probe, NEAR) is None

    def _go_on(self, probe: Probe) -> Decision:
        """Whether to go on after a probe that is not good enough, and how."""
        if not self.is_finite(probe):
            return Decision("stop", "diverged: the loss is not finite")
        breach = self.breach(probe, SLACK)
        # At the limits it is no progress to forget more: what is left then is to come near the guards.
        left = max(self.left(probe), 1.0)
        if breach is None and left < self.lowest - 0.1:
            self.flat = 0
            self.lowest = left
        elif breach is not None or left > self.latest - 0.1:
            # What falls again after a setback is on its way, though it was lower before.
            self.flat += self.waited
        self.latest = left
        self.mending = self.mending + self.waited if self.left(probe) <= 1 else 0
        if self.mending > MENDING:
            return Decision("stop", f"still beside the guards after {MENDING * self.every} steps more")
        if self.flat >= self.patience:
            steps = f"no progress for {self.flat * self.every} steps"
            return Decision("stop", steps + (f" ({breach})" if breach else ""))
        return Decision("hold", breach) if breach else Decision("continue")

    def wait(self, probe: Probe) -> int:
        """Steps to the next probe: half of those in which, at the rate since the last one, it would be forgotten.

        In [every, SELDOM · every]; `every` where the guards are overrun, and where it may soon be enough; the most of
        it while no rate is known.
        """
        left, before, elapsed = self.left(probe), self.last_left, probe.step - self.last_step
        self.last_step, self.last_left, self.waited = probe.step, left, 1
        if left > NEAR and self.overrun(probe) <= 1:
            gained = math.log(before / left) / elapsed if elapsed else 0.0
            times = math.log(left) / gained / 2 / self.every if gained > 0 else SELDOM
            self.waited = int(min(max(times, 1), SELDOM))
        return self.waited * self.every

    def is_best(self, probe: Probe) -> bool:
        """Whether this is the best state so far that passes the guards; remembers it."""
        if self.breach(probe) is None and self.remaining(probe) < self.best_remaining:
            self.best_remaining, self.best_step = self.remaining(probe), probe.step
            return True
        return False

    def state(self) -> dict[str, float]:
        """What a checkpoint must hold to go on as if never interrupted."""
        return asdict(self)
