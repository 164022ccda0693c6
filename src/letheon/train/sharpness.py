"""Sharpness-aware forgetting (SAM): the negative gradient where the old answers come back most easily.

g(θ + ρ g(θ)/‖g(θ)‖), g being the negative loss's gradient over all that learns: uphill of it is where a few steps of
relearning would lead, and what forgets there forgets around it. The other terms keep their gradient at θ. Costs a
backward pass more, and one forward and backward of what the negative term reads. Source: arXiv 2502.05374;
OPTML-Group/Unlearn-Smooth (ρ 0.01). Each micro-batch climbs by its own gradient, as there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from letheon.models import as_before


def gradient_of(loss: Tensor, parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """The gradient of a loss, which can be differentiated again; zeros where it does not depend on a parameter."""
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]


@contextmanager
def uphill(parameters: Sequence[nn.Parameter], gradient: Sequence[Tensor], rho: float) -> Iterator[None]:
    """In the block the parameters are at θ + ρ g/‖g‖; then they are again what they were, to the bit.

    Args:
        parameters: θ.
        gradient: g, one tensor for each; where it is zero, nothing moves.
        rho: How far to go, > 0.
    """
    norm = torch.stack([g.float().pow(2).sum() for g in gradient]).sum().sqrt()
    with as_before(parameters):
        with torch.no_grad():
            for parameter, g in zip(parameters, gradient, strict=True):
                parameter.add_(g * (rho / norm.clamp(min=torch.finfo(torch.float32).tiny)))
        yield
