"""Adapters that look where the forget set differs from normal dialogues.

A LoRA adapter adds ΔW h = (α/r) B A h to a layer with input h. With a random A it answers to every input alike, and
all that it does to normal dialogues has to be trained away again. Here the rows of A are the directions in which the
inputs of forget answers stand out most against those of normal answers: the top generalised eigenvectors of

    C_f a = μ (C_n + ε I) a,        C = E[h hᵀ] under θ₀,  ε = shrinkage · tr(C_n)/d,

over the positions that predict a token of a forget answer (C_f), and over all of normal dialogues (C_n: their prompts
count, because what is known about normal inputs is never enough: on the demo it keeps one point more of answers that
training has not seen). They are scaled to the mean square that a random A would have on forget inputs, so that
learning rates mean the same. A stays fixed and only B is trained: what the adapter can do to normal inputs is small
by construction, whether or not training has seen them. Related to null-space adapters (LoRA-Null, arXiv 2503.02659);
the contrast is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from scipy.linalg import eigh
from torch import Tensor, nn

from letheon.errors import InputError
from letheon.forward import real_places
from letheon.models import Model

SHRINKAGE = 0.1
STRIDE = 3
"""Of whole dialogues every so manieth position is looked at: their moments settle long before all have been."""


class Moments:
    """Second moments E[h hᵀ] of the inputs of layers.

    Args:
        layers: The layers, by name.
        everywhere: Over positions of whole dialogues, not just those that predict an answer token.
    """

    def __init__(self, layers: dict[str, nn.Module], *, everywhere: bool = False):
        self.layers = layers
        self.everywhere = everywhere
        self.shared: dict[str, str] = {}
        self._sums: dict[str, Tensor] = {}
        self._count = 0
        self._places: Tensor | None = None
        self._last: tuple[str, Tensor] | None = None

    @contextmanager
    def watching(self, batch: Mapping[str, Tensor]) -> Iterator[None]:
        """Add up one forward pass over a batch of `letheon.forward.collate`, made inside the block."""
        self._places = real_places(batch)[::STRIDE] if self.everywhere else batch["predictors"]
        self._count += len(self._places)
        handles = [layer.register_forward_pre_hook(self._hook(name)) for name, layer in self.layers.items()]
        try:
            yield
        finally:
            self._last = None
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def collect(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            # Query, key and value read the same tensor: one moment serves all three.
            if self._last is not None and self._last[1] is inputs[0]:
                self.shared[name] = self._last[0]
                return
            self._last = (name, inputs[0])
            chosen = inputs[0].flatten(0, -2)[self._places].float()
            # Rounded to bfloat16 a moment may not even be positive.
            with torch.autocast(chosen.device.type, enabled=False):
                self._sums[name] = self._sums.get(name, 0) + chosen.T @ chosen

        return collect

    def mean(self, name: str) -> Tensor:
        """(d, d) second moment of a layer's input."""
        return self._sums[self.shared.get(name, name)] / max(self._count, 1)


def contrast_directions(forget: Tensor, normal: Tensor, rank: int, shrinkage: float = SHRINKAGE) -> Tensor:
    """Rows of A: the top generalised eigenvectors of (C_f, C_n + ε I).

    Args:
        forget: (d, d) second moment C_f.
        normal: (d, d) second moment C_n.
        rank: Number of rows r ≤ d.
        shrinkage: ε as a share of C_n's mean eigenvalue, > 0.

    Returns:
        (r, d) float32; each row a has aᵀ C_f a = tr(C_f)/3d, the expectation under PEFT's default A.

    Raises:
        InputError: r > d.
    """
    size = normal.size(0)
    if rank > size:
        raise InputError(
            f"{rank} directions of a layer that reads {size} numbers: give at most so many (tuning.lora.r or "
            "tuning.full.directions)"
        )
    ridge = shrinkage * normal.diagonal().mean().clamp(min=1e-12)
    outer, inner = forget.cpu().double(), normal.cpu().double() + float(ridge) * torch.eye(size)
    # LAPACK finds just the top r, in a quarter of the time of all.
    found = eigh(outer.numpy(), inner.numpy(), subset_by_index=[size - rank, size - 1])[1]
    rows = torch.from_numpy(found.T[::-1].copy())
    energy = ((rows @ outer) * rows).sum(dim=1, keepdim=True).clamp(min=1e-12)
    usual = outer.diagonal().mean() / 3
    scaled: Tensor = rows * (usual / energy).sqrt()
    return scaled.float().to(forget.device)


def lora_layers(model: Model) -> dict[str, nn.Module]:
    """The layers that have a LoRA adapter, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def layer_directions(
    layers: Mapping[str, nn.Module], forget: Moments, normal: Moments, ranks: Mapping[str, int]
) -> dict[str, Tensor]:
    """The (r, d) directions of each layer; layers that read the same tensor share one eigenproblem.

    Args:
        layers: The layers, by name.
        forget: Moments of their inputs on forget answers.
        normal: And on normal ones.
        ranks: Number of directions r of each layer.
    """
    found: dict[tuple[str, int], Tensor] = {}
    sources = {name: (forget.shared.get(name, name), ranks[name]) for name in layers}
    for source, rank in dict.fromkeys(sources.values()):
        found[source, rank] = contrast_directions(forget.mean(source), normal.mean(source), rank)
    return {name: found[key] for name, key in sources.items()}


@torch.no_grad()
def point_adapters(model: Model, forget: Moments, normal: Moments) -> None:
    """Set and freeze the A of every adapter.

    Args:
        model: A PeftModel with fresh LoRA adapters.
        forget: Moments of `lora_layers(model)` on forget answers.
        normal: And on normal ones.
    """
    adapters = {name: list(layer.lora_A.values()) for name, layer in lora_layers(model).items()}  # type: ignore[operator]
    ranks = {name: adapter[0].weight.size(0) for name, adapter in adapters.items()}
    for name, rows in layer_directions(lora_layers(model), forget, normal, ranks).items():
        for adapter in adapters[name]:
            adapter.weight.copy_(rows)
            adapter.weight.requires_grad_(False)
