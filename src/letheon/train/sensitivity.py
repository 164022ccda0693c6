"""How strongly normal answers feel what a layer puts out, and gradients that spare them.

The contrast (`letheon.train.contrast`) chooses what a layer's change *reads*: inputs that normal dialogues seldom
have. This is its other side, what the change *writes*. With g the gradient of −log p(ŷ) with respect to a layer's
output, at positions of normal answers and for tokens ŷ drawn from the model itself under θ₀,

    G = E[g gᵀ],        ∇ ← P ∇,        P = δ (G / mean eigenvalue + δ I)⁻¹,  0 < P ≤ I,

takes out of a gradient (out, …) what normal answers are most sensitive to. G is the output factor of K-FAC's Fisher
matrix (Martens and Grosse, arXiv 1503.05671); to use it on one factor only, with the contrast as the other, is ours.
It is estimated from m positions, U (m, out), and never formed: P = I − Uᵀ (U Uᵀ + δ I)⁻¹ U = I − Wᵀ W, with W = L⁻¹ U
and L Lᵀ = U Uᵀ + δ I.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from letheon.chat import Encoded
from letheon.forward import answer_logits, batch_for, batches
from letheon.measure import release_memory
from letheon.models import Model, in_eval_mode
from letheon.prefix import FrozenPrefix
from letheon.split import spread

SEQUENCES, POSITIONS = 48, 512
"""How many normal sequences are looked at, and how many of their positions are kept."""


class Sensitivity:
    """The P of one layer.

    Args:
        gradients: (m, out) gradients g at m positions; all zero means that nothing is felt, P = I.
        damping: δ > 0; P tends to I as it grows.
    """

    def __init__(self, gradients: Tensor, damping: float):
        rows = gradients.float()
        rows = rows / (rows.square().sum() / rows.size(1)).sqrt().clamp(min=1e-30)
        with torch.autocast(rows.device.type, enabled=False):
            factor: Tensor = torch.linalg.cholesky(rows @ rows.T + damping * torch.eye(len(rows), device=rows.device))
            self._felt: Tensor = torch.linalg.solve_triangular(factor, rows, upper=False)

    def spare(self, gradient: Tensor) -> Tensor:
        """P ∇ of a gradient ∇ (out, n)."""
        return gradient - (self._felt.T @ (self._felt @ gradient.float())).to(gradient.dtype)


def measure_sensitivity(
    model: Model,
    layers: Mapping[str, nn.Module],
    normal: Sequence[Encoded],
    *,
    damping: float,
    pad_token_id: int,
    batch_size: int,
    seed: int,
    prefix: FrozenPrefix | None = None,
) -> dict[str, Sensitivity]:
    """The sensitivity of normal answers to the outputs of layers, by one backward pass over a few of them.

    Args:
        model: The model under θ₀; gradients that it holds are lost.
        layers: Those layers, by name; each has a weight that learns.
        normal: Normal sequences, of which `SEQUENCES` are taken, evenly spread.
        damping: δ.
        pad_token_id: Padding token.
        batch_size: Sequences a forward pass.
        seed: Of the tokens ŷ, and of the positions that are kept.
        prefix: Where to start from.
    """
    chosen = spread(normal, SEQUENCES)
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    draw = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    with in_eval_mode(model):
        for numbers in batches(chosen, batch_size):
            part = [chosen[number] for number in numbers]
            batch = batch_for(model, part, pad_token_id, prefix)
            share = -(-POSITIONS * len(part) // len(chosen))
            kept = torch.randperm(len(batch["predictors"]), generator=draw)[:share].to(device)
            handles = [
                layer.register_forward_hook(_watch(found[name], batch["predictors"][kept]))
                for name, layer in layers.items()
            ]
            try:
                logits = answer_logits(model, batch, prefix)[0].float()
            finally:
                for handle in handles:
                    handle.remove()
            tokens = _drawn(logits.detach(), draw)
            nn.functional.cross_entropy(logits, tokens, reduction="sum").backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    sensitivity = {name: Sensitivity(torch.cat(found.pop(name)), damping) for name in layers}
    # Many small blocks have been freed between those that stay.
    release_memory()
    return sensitivity


def _drawn(logits: Tensor, draw: torch.Generator) -> Tensor:
    """(N,) a token of each distribution, where its sums pass a random share: multinomial draws a number a token."""
    sums = logits.softmax(dim=1).cumsum(dim=1)
    shares = torch.rand(len(sums), 1, generator=draw).to(sums.device)
    return torch.searchsorted(sums, shares * sums[:, -1:])[:, 0].clamp(max=sums.size(1) - 1)


def _watch(into: list[Tensor], places: Tensor) -> Any:
    """A forward hook that keeps, on the way back, the gradient of a layer's output at some places."""

    def watch(module: nn.Module, inputs: Any, output: Tensor) -> None:
        def keep(gradient: Tensor) -> None:
            into.append(gradient.flatten(0, -2)[places].float())

        output.register_hook(keep)  # type: ignore[no-untyped-call]

    return watch
