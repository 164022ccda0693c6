"""Scaling back: of what training has changed, keep the least share that still forgets.

A run looks only every few steps, and the step that forgets may have cost more than is allowed. Coming back along the
straight line θ₀ + α (θ − θ₀) gives more than it takes: the cost to normal answers falls with about α², the forgetting
with about α. Interpolating a fine-tuned model with the one before is due to Wortsman et al. (WiSE-FT, arXiv
2109.01903); choosing α by the stop rule's probe is ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from letheon.train.stop import Probe, StopRule

STEPS = 16
"""α is found to one of so many steps."""
AT_THE_LIMITS = 0.95
"""From here on, in multiples of the limits, a lesser α would hardly forget: looking for it is not worth a probe."""


class Line:
    """The straight line from the weights at its making to those at `end`.

    Both lie on disk: in full tuning, copies in memory would cost as much as the model.

    Args:
        parameters: What learns, by name.
        folder: Where the two files are written.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], folder: Path):
        self._parameters = dict(parameters)
        self._files = folder / "start.safetensors", folder / "end.safetensors"
        folder.mkdir(parents=True, exist_ok=True)
        self._save(self._files[0])

    def end(self) -> None:
        """The weights as they are now become α = 1."""
        self._save(self._files[1])

    @torch.no_grad()
    def go(self, alpha: float) -> None:
        """Put the weights at α."""
        from safetensors import safe_open

        # The ends exactly, whatever the other one is; and the start is there before it.
        wanted = {0.0: self._files[:1], 1.0: self._files[1:]}.get(alpha, self._files)
        with ExitStack() as opened:
            files = [opened.enter_context(safe_open(file, "pt")) for file in wanted]
            for name, parameter in self._parameters.items():
                found = [file.get_tensor(name).to(parameter.device) for file in files]
                parameter.copy_(found[0] if len(found) == 1 else torch.lerp(found[0], found[1], alpha))

    @contextmanager
    def at_start(self) -> Iterator[None]:
        """In the block the weights are those at the start; then they are again what they were."""
        self.end()
        self.go(0)
        try:
            yield
        finally:
            self.go(1)

    def close(self) -> None:
        """Remove the files."""
        for file in self._files:
            file.unlink(missing_ok=True)

    def _save(self, file: Path) -> None:
        from safetensors.torch import save_file

        tensors: dict[str, Tensor] = {name: p.detach().contiguous() for name, p in self._parameters.items()}
        save_file(tensors, file)


def scale_back(
    line: Line, rule: StopRule, start: Probe, end: Probe, look: Callable[[], Probe]
) -> tuple[float, Probe]:
    """Find the least α that the rule calls forgotten; where that breaks a guard or there is none, the largest within.

    From what is just below the limits the search does not go on.

    Args:
        line: From before to where training ended; the weights are there, and are left at the α that is found.
        rule: Limits and guards.
        start: The probe before training; it tells where to look first, no more.
        end: The probe where training ended.
        look: Probes the weights as they are.

    Returns:
        α in (0, 1], a multiple of 1/16, and the probe there. It breaches a guard only if even 1/16 does.
    """
    seen = {0: start, STEPS: end}

    def probe(at: int) -> Probe:
        if at not in seen:
            line.go(at / STEPS)
            seen[at] = look()
        return seen[at]

    def least(
        top: int,
        amount: Callable[[Probe], float],
        enough: Callable[[Probe], bool],
        fits: Callable[[Probe], bool] = lambda one: False,
    ) -> int:
        """Where a probe begins to be `enough`, as it is at `top`; that is about where its amount is 1.

        Each time there where the straight line between the roots of what is known on both sides is 1, or half-way if
        the last such cut has left more than half. One that `fits` ends the search.
        """
        low, high, halved = 0, top, True
        while high - low > 1 and not fits(probe(high)):
            width, below, above = high - low, *(math.sqrt(amount(probe(n))) - 1 for n in (low, high))
            share = below / (below - above) if halved and below != above else 0.5
            at = low + math.ceil(share * width) if math.isfinite(share) else low + width // 2
            at = min(max(at, low + 1), high - 1)
            if enough(probe(at)):
                high = at
            else:
                low = at
            halved = 2 * (high - low) <= width
        return high

    found = STEPS
    if rule.forgotten(end):
        found = least(
            STEPS,
            rule.remaining,
            lambda one: rule.remaining(one) <= 1,
            lambda one: AT_THE_LIMITS < rule.remaining(one) <= 1,
        )
    if rule.breach(probe(found)):
        # Just below the least α that breaks a guard.
        found = max(1, least(found, rule.overrun, lambda one: rule.breach(one) is not None) - 1)
    kept = probe(found)
    line.go(found / STEPS)
    return found / STEPS, kept
