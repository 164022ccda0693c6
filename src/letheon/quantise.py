"""Weights rounded as a quantised model holds them, and held in float again: the same outputs, on any machine.

Weight-only quantisation computes with the rounded weights in a float type, so what it does to a model is the
rounding; kernels change how fast that is, and the last bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

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


def linear_weights(model: Model) -> dict[nn.Parameter, int]:
    """The weights of the linear layers but the head, which weight-only schemes quantise.

    Returns:
        Weight → the dimension along which its inputs lie: 1; or 0 where it is (in, out), as in GPT-2's layers.
    """
    inner = bare_model(model)
    head = inner.get_output_embeddings()
    layers = [m for m in inner.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    return {
        weight: 0 if isinstance(layer, Conv1D) else 1
        for layer in layers
        for weight in layer.parameters(recurse=False)
        if weight.dim() == 2
    }


def roundings(linear: Mapping[nn.Parameter, int], rounding: Rounding) -> dict[nn.Parameter, Rounding]:
    """How each of the weights of `linear_weights` is rounded: turned to (out, in) for it where it is not."""

    def turned(weight: Tensor) -> Tensor:
        return rounding(weight.T.contiguous()).T

    return {weight: rounding if inputs else turned for weight, inputs in linear.items()}


def linear_share(model: Model) -> float:
    """The share of a model's weights, embeddings and head left out, that `linear_weights` are, in [0, 1]."""
    inner = bare_model(model)
    ends = {inner.get_output_embeddings(), *(m for m in inner.modules() if isinstance(m, nn.Embedding))} - {None}
    left_out = {weight for end in ends for weight in end.parameters()}
    others = sum(weight.numel() for weight in inner.parameters() if weight not in left_out)
    return sum(weight.numel() for weight in linear_weights(model)) / others if others else 0.0


@contextmanager
def rounded(weights: dict[nn.Parameter, Rounding]) -> Iterator[None]:
    """In the block weights are rounded; after it they are what they were, to the bit."""
    with as_before(list(weights)):
        with torch.no_grad():
            for weight, rounding in weights.items():
                weight.copy_(rounding(weight.detach()))
        yield
