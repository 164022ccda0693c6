"""How training ends: which state is kept, and what is said of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from letheon.records import Stop
from letheon.train.scale_back import Line, scale_back
from letheon.train.stop import Probe, StopRule


class BestState:
    """The best weights so far, on disk: a copy in memory would cost as much as the model in full tuning.

    Args:
        file: Where they lie.
    """

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


@dataclass(frozen=True)
class Ending:
    """Settles which state is kept: of the end of training, scaled back, and the best state on the way.

    Attributes:
        parameters: What learns, by name.
        line: From the start to the end of training.
        best: The best state within the guards.
        rule: The stop rule, as training has left it.
        look: The whole probe of the weights as they are, called with the step.
        with_answers: Adds the repetition of a few greedy answers to a probe of the weights as they are.
        record: Takes the probe of a state that has been scaled back.
    """

    parameters: Mapping[str, nn.Parameter]
    line: Line
    best: BestState
    rule: StopRule
    look: Callable[[int], Probe]
    with_answers: Callable[[Probe], Probe]
    record: Callable[[Probe], None]

    def settle(self, step: int, reason: str, before: Probe, last: Probe) -> Stop:
        """Leave the model in the state to be kept, and say which it is.

        That is the end of training, scaled back to what still forgets or, failing that, to what the guards allow;
        or the best state on the way, where that one had forgotten more.

        Args:
            step: Steps taken.
            reason: Why training stopped.
            before: The first probe.
            last: The last one.
        """
        rule, line = self.rule, self.line
        ended = "forgotten only beyond the guards" if rule.forgotten(last) else reason
        kept: Probe | None = None
        # Where the loss was not finite, no probe has been taken.
        if last.step == step and rule.is_finite(last):
            line.end()
            end = last if last.repetition is not None else self.look(step)
            alpha, kept = scale_back(line, rule, before, end, lambda: self.look(step))
            share = ""
            if alpha < 1 or kept.repetition is None:
                kept = self.with_answers(kept)
            if alpha < 1:
                share = f"; {alpha:.0%} of the change was kept"
                self.record(replace(kept, alpha=alpha))
            if rule.breach(kept) is not None:
                kept = None
            elif (forgotten := rule.forgotten(kept)) is not None:
                return Stop(step=step, reason=forgotten + share)
        best = rule.best_step
        if best not in (-1, step):
            self.best.load(self.parameters)
            if kept is None or rule.remaining(self.with_answers(self.look(best))) < rule.remaining(kept):
                return Stop(step=best, reason=f"{ended}; went back to step {best}, the best within the guards")
        if kept is None:
            return Stop(step=step, reason=f"{ended}; no state passed the guards", within_guards=False)
        line.go(alpha)
        return Stop(step=step, reason=ended + share)
