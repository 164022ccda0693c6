"""Weights rounded as a quantised model holds them, and held in float again: the same outputs, on any machine.

Weight-only quantisation computes with the rounded weights in a float type, so what it does to a model is the
rounding; kernels change how fast that is, and the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from letheon.models import Model, as_before, bare_model

Rounding = Callable[[Tensor], Tensor]
"""From a weight (out, in) to the weight that its quantised form stands for."""


def round_absmax(weight: Tensor, bits: int, group: int | None = None) -> Tensor:
    """Round to the nearest of 2^bits − 1 evenly spaced levels, symmetric about 0: s · round(w/s), s = max|w| / L.

    L = 2^(bits − 1) − 1. Symmetric absmax quantisation, as in LLM.int8() (arXiv 2208.07339) and most weight-only
    schemes; ties go to the even level. No weight moves by more than s/2.

    Args:
        weight: (out, in).
        bits: 2 or more.
        group: Neighbouring inputs that share a scale s, the last group being what is left; None: all of a row.
    """
    levels = 2 ** (bits - 1) - 1
    width = weight.size(1)
    size = min(group or width, width)
    padded = nn.functional.pad(weight.float(), (0, -width % size)).reshape(len(weight), -1, size)
    scale = padded.abs().amax(dim=2, keepdim=True) / levels
    # A group of zeros has no scale, and needs none.
    found: Tensor = (padded / scale.where(scale > 0, 1)).round() * scale
    return found.flatten(1)[:, :width].to(weight.dtype)


def linear_weights(model: Model) -> list[nn.Parameter]:
    """The weights of the linear layers but the head: what weight-only schemes quantise."""
    inner = bare_model(model)
    head = inner.get_output_embeddings()
    layers = [module for module in inner.modules() if isinstance(module, nn.Linear) and module is not head]
    return [weight for layer in layers for weight in layer.parameters(recurse=False) if weight.dim() == 2]


@contextmanager
def rounded(weights: dict[nn.Parameter, Rounding]) -> Iterator[None]:
    """In the block weights are rounded; after it they are what they were, to the bit."""
    with as_before(list(weights)):
        with torch.no_grad():
            for weight, rounding in weights.items():
                weight.copy_(rounding(weight.detach()))
        yield
