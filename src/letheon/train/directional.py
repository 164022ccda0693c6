"""Full tuning in which every layer's weights move only along the directions of the contrast.

The step of Adam is taken in the space of G Aᵀ, G being the gradient of a weight matrix W (out, in) and A (r, in) the
contrast's directions of its layer (`letheon.train.contrast`); then W ← W + scale · ΔB A. It moves the weights
themselves, and keeps two small moments for each instead of two copies of the model. The idea of stepping in a
projection of the gradient is GaLore's (arXiv 2403.03507), which projects on the gradient's own singular vectors; to
project on the contrast is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from letheon.errors import InputError
from letheon.models import Model
from letheon.train.sensitivity import Sensitivity

SCALE = 2.0
"""That of the default adapter, alpha / r, so that learning rates mean the same."""


class DirectionalAdamW(torch.optim.AdamW):
    """AdamW on ΔB of W + scale · ΔB A, for weights W whose A is given.

    Args:
        directions: The (r, in) directions A of each weight (out, in).
        lr: Learning rate of B.
        betas: As of AdamW.
        eps: As of AdamW.
        scale: What ΔB A is multiplied by.
        sensitivity: What G Aᵀ is passed through, for the weights that have one.

    Raises:
        ValueError: A is not for this weight.
    """

    def __init__(
        self,
        directions: Mapping[nn.Parameter, Tensor],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        scale: float = SCALE,
        sensitivity: Mapping[nn.Parameter, Sensitivity] | None = None,
    ):
        for weight, rows in directions.items():
            if rows.dim() != 2 or weight.dim() != 2 or rows.size(1) != weight.size(1):
                raise ValueError(f"directions {tuple(rows.shape)} do not fit a weight {tuple(weight.shape)}")
        self.scale = scale
        self.sensitivity = dict(sensitivity or {})
        self.directions = [
            (weight, rows, rows.new_zeros(len(weight), len(rows))) for weight, rows in directions.items()
        ]
        super().__init__([step for _, _, step in self.directions], lr=lr, betas=betas, eps=eps, weight_decay=0.0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the weights by their gradients' projection."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for weight, rows, step in self.directions:
            step.grad = None if weight.grad is None else weight.grad @ rows.T
            if step.grad is not None and weight in self.sensitivity:
                step.grad = self.sensitivity[weight].spare(step.grad)
        super().step()
        for weight, rows, step in self.directions:
            weight.add_(step @ rows, alpha=self.scale)
            step.zero_()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the weights' gradients."""
        super().zero_grad(set_to_none)
        for weight, _, _ in self.directions:
            weight.grad = None


def check_optimizer(args: TrainingArguments) -> None:
    """Refuse settings of an optimizer that would not be used.

    Raises:
        InputError: Another optimizer than AdamW, weight decay, or gradients that it would have to unscale.
    """
    if args.fp16:
        raise InputError(
            "fp16=True: full tuning along directions knows no scaled gradients; use bf16 or neither, or set "
            "directions=0 (tuning.full.directions) to train all weights"
        )
    if args.optim not in ("adamw_torch", "adamw_torch_fused") or args.weight_decay:
        raise InputError(
            f"optim={args.optim.value!r}, weight_decay={args.weight_decay}: full tuning along directions has its own "
            "AdamW without decay; leave them at their defaults, or set directions=0 (tuning.full.directions) to "
            "train all weights with this optimizer"
        )


def directional_layers(model: Model) -> dict[str, nn.Module]:
    """The linear layers that learn and read the hidden state or an equally narrow input; not the head.

    The widest ones (down_proj) are left out: their eigenproblems cost most, and the others do without them.
    """
    width, head = model.config.get_text_config().hidden_size, model.get_output_embeddings()
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear)
        and layer is not head
        and layer.in_features <= width
        and layer.weight.requires_grad
    }
