"""Watching a training: what was seen of it, when it ends, and which state is kept in the end."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from letheon.models import Model, Tokenizer
from letheon.records import Stop
from letheon.train.base import BaseSaid
from letheon.train.config import UnlearnConfig
from letheon.train.probe import Prober
from letheon.train.reader import Watched
from letheon.train.reference import ReferenceCache
from letheon.train.scale_back import Line, scale_back
from letheon.train.scope import what_learns
from letheon.train.stop import Probe, StopRule

USUAL_STEPS = 80
"""A guess at how long it takes, before anything is known."""


class BestState:
    """The best weights so far, in a file: a copy in memory would cost as much as the model in full tuning."""

    def __init__(self, file: Path):
        self.file = file

    def save(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """These are the best."""
        from safetensors.torch import save_file

        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: parameter.detach().contiguous() for name, parameter in parameters.items()}, self.file)

    @torch.no_grad()
    def load(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put them back."""
        from safetensors.torch import load_file

        saved = load_file(self.file)
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])

    def copy_to(self, folder: Path) -> None:
        """Into a checkpoint."""
        shutil.copyfile(self.file, folder / self.file.name)

    def copy_from(self, folder: Path) -> None:
        """From a checkpoint: the run may have found a better state after it, or ended and tidied up."""
        if (folder / self.file.name).is_file():
            shutil.copyfile(folder / self.file.name, self.file)

    def remove(self) -> None:
        """Of no use any more."""
        self.file.unlink(missing_ok=True)


class Watch:
    """Probes one training, ends it when its stop rule says so, and settles which state is kept.

    Args:
        args: Settings.
        base: What the base said, whose level is then the limit.
        watched: What is probed.
        tokenizer: The tokenizer.
        on: Whether anything is probed. If not, only a loss that is not finite ends training.
        folder: Where the best state is held meanwhile; of several processes each has its own.
        log: Told of each probe.
        autocast: Makes a context in the precision of training.

    Attributes:
        stop: Why training ended; None before it has.
        probes: All probes so far.
        holding: Whether the negative loss rests.
    """

    def __init__(
        self,
        args: UnlearnConfig,
        base: BaseSaid | None,
        watched: Watched,
        *,
        tokenizer: Tokenizer,
        on: bool,
        folder: Path,
        log: Callable[[Probe], None],
        autocast: Callable[[], AbstractContextManager[Any]],
    ):
        self.args, self.watched, self.tokenizer = args, watched, tokenizer
        self.on, self._log, self._autocast = on, log, autocast
        probability, strength = (args.stop_probability, args.stop_extraction) if base is None else base.limits()
        self.rule = StopRule(
            every=args.stop_every,
            probability=probability,
            extraction_strength=strength,
            truth_probability=args.stop_truth,
            normal_budget=args.stop_normal_budget,
            kl_budget=args.stop_kl_budget,
            normal_kept=args.stop_normal_kept,
            patience=args.stop_patience,
        )
        self.best = BestState(folder / "best.safetensors")
        self.stop: Stop | None = None
        self.probes: list[Probe] = []
        self.holding = False
        self.next_probe = args.stop_every

    def begin(self, model: Model, cache: ReferenceCache) -> bool:
        """Take the first probe, under θ₀; True where the model does not say the old answers, and is done."""
        self._model = model
        old, normal, rehearsed = self.watched
        self.prober = Prober(
            [one.old for one in old],
            normal,
            cache(model, [*normal, *rehearsed]),
            [one.expected for one in old],
            rehearsed=rehearsed,
            tokenizer=self.tokenizer,
            size=self.args.probe_size,
            batch_size=cache.batch_size,
            prefix=cache.prefix,
        )
        before = self.prober.quick(model, 0)
        if self.rule.is_clean(before):
            before = self._with_answers(self._whole(0))
        self._record(before)
        self.next_probe = self.rule.wait(before)
        if not self.rule.is_clean(before):
            return False
        self.stop = self._stop(
            0,
            "already clean: the model does not reproduce these answers "
            f"(extraction strength {before.extraction_strength:.3f} on the probe); nothing was changed",
        )
        return True

    def after(self, step: int, losses: Iterable[float]) -> bool:
        """Take the losses of a step, and probe when it is time; True when training should stop."""
        if not all(map(math.isfinite, losses)):
            self.stop = self._stop(step, "diverged: the loss is not finite", within_guards=False)
            return True
        return self.on and step >= self.next_probe and self.look(step)

    def look(self, step: int) -> bool:
        """Probe, and do what the rule says; True when training should stop."""
        probe = self.prober.quick(self._model, step)
        decision = self.rule.look(probe)
        if decision.action == "confirm":
            probe = self._whole(step)
            if self.rule.left(probe) <= 1:
                probe = self._with_answers(probe)
            decision = self.rule.confirm(probe)
        self._record(probe)
        self.holding = decision.action == "hold"
        if self.rule.is_best(probe):
            self.best.save(what_learns(self._model))
        if decision.action == "stop":
            self.stop = self._stop(step, decision.reason)
        self.next_probe = step + self.rule.wait(probe)
        return decision.action == "stop"

    def expected_steps(self) -> int | None:
        """About how many steps it will take in all; None where no stop rule ends it.

        What remains to be forgotten is taken to fall at a constant rate. But to be at the limits is not yet to be
        within the guards, so it is never less than is usual.
        """
        if not self.on:
            return None
        remaining = [(probe.step, self.rule.remaining(probe)) for probe in self.probes]
        if len(remaining) < 2 or not 1 < remaining[-1][1] < remaining[0][1]:
            return USUAL_STEPS
        (_, start), (step, now) = remaining[0], remaining[-1]
        return max(USUAL_STEPS, math.ceil(step * math.log(start) / math.log(start / now)))

    def finish(self, step: int, line: Line) -> None:
        """After so many steps along a line, leave the model in the state to be kept; `stop` says which it is."""
        if self.on and self.stop is None and self.probes[-1].step != step:
            # The limit of steps fell between two probes.
            self.look(step)
        if self.stop is None:
            until = "before it was forgotten" if self.on else "without a stop rule"
            self.stop = self._stop(step, f"reached the limit of steps {until}")
        if self.on:
            self.stop = self._settle(step, self.stop.reason, line)
        elif not self.stop.within_guards:
            self.stop = self._undone(step, self.stop.reason, line)
        self.best.remove()

    def _settle(self, step: int, reason: str, line: Line) -> Stop:
        """Go to the state to be kept, and say which it is.

        That is the end of training, scaled back to what still forgets or, failing that, to what the guards allow;
        or the best state on the way, where that one had forgotten more.
        """
        rule, before, last = self.rule, self.probes[0], self.probes[-1]
        ended = "forgotten only beyond the guards" if rule.forgotten(last) else reason
        kept: Probe | None = None
        # Where the loss was not finite, no probe has been taken.
        finite = last.step == step and rule.is_finite(last)
        if finite:
            line.end()
            end = last if last.repetition is not None else self._whole(step)
            alpha, kept = scale_back(line, rule, before, end, lambda: self._whole(step))
            share = f"; {alpha:.0%} of the change was kept" if alpha < 1 else ""
            if kept.repetition is None:
                kept = self._with_answers(kept)
            if alpha < 1:
                self._record(replace(kept, alpha=alpha))
            if rule.breach(kept) is not None:
                kept = None
            elif (forgotten := rule.forgotten(kept)) is not None:
                return self._stop(step, forgotten + share)
        best = rule.best_step
        if best not in (-1, step):
            self.best.load(what_learns(self._model))
            # It was the best of the quick probes, which see less and make no answers.
            found = self._with_answers(self._whole(best))
            breach = rule.breach(found)
            if breach is None and (kept is None or rule.remaining(found) < rule.remaining(kept)):
                return self._stop(best, f"{ended}; went back to step {best}, the best within the guards")
            if kept is None:
                why = f"{ended}; no state passed the guards; went back to step {best}, the nearest: {breach}"
                return self._stop(best, why, within_guards=False)
        if not finite:
            return self._undone(step, ended, line)
        if kept is None:
            return self._stop(step, f"{ended}; no state passed the guards", within_guards=False)
        line.go(alpha)
        return self._stop(step, ended + share)

    def _undone(self, step: int, reason: str, line: Line) -> Stop:
        """What training has left is no model any more: go back to the one before."""
        line.go(0)
        return self._stop(step, f"{reason}; the weights are again those before training", within_guards=False)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on as if never interrupted; the best state lies beside it."""
        return {
            "rule": self.rule.state(),
            "holding": self.holding,
            "next_probe": self.next_probe,
            "probes": [vars(probe) for probe in self.probes],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.rule = StopRule(**state["rule"])
        self.holding, self.next_probe = state["holding"], state["next_probe"]
        self.probes = [Probe(**probe) for probe in state["probes"]]

    def _stop(self, step: int, reason: str, *, within_guards: bool = True) -> Stop:
        limits = self.rule.limits() if self.on else {}
        return Stop(step=step, reason=reason, within_guards=within_guards, limits=limits)

    def _whole(self, step: int) -> Probe:
        return self.prober.whole(self._model, step)

    def _with_answers(self, probe: Probe) -> Probe:
        # Generation does not go through the forward that accelerate has put under autocast. Nor should all of this
        # be: autocast remembers the weights that it has cast, and would not see that they are moved.
        with self._autocast():
            return self.prober.with_answers(self._model, probe)

    def _record(self, probe: Probe) -> None:
        self.probes.append(probe)
        self._log(probe)
