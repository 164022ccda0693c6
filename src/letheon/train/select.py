"""RepSelect: full tuning along one gradient of the old answers, from which what they share has been taken.

By the paper's account the largest principal components of such a gradient are those which old answers share with
what is to be kept, and which fine-tuning brings back. So of each MLP weight the gradient G of −CE(y⁻|x) is taken
once, over all old answers, and with G = U S Vᵀ its q largest components shrink,

    s_i → s_q² / s_i  for i ≤ q,        W ← W − lr · G′  at every step.

(The authors divide by s_i / s_q on the input side and once more on the output side.) G is taken where the old
answers have been elicited: with an adapter (r 8, α 8) that has first learned them, by one epoch of SGD, and is then
dropped. Source: arXiv 2606.17168; filyp/RepSelect, src/trainer/unlearn/repselect_simple.py (q 512; the adapter's rate
and lr by trials, 0.05 and 0.116 of Llama-3.1-8B; at most 100 steps, until the KL on plain text is 0.01).

The path is a straight line, so that scaling back finds the step between two at which to stop. What a step of the
trainer computes besides is for its log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.forward import answer_logits, batch_for
from letheon.layers import decoder_layers
from letheon.models import Model, in_eval_mode
from letheon.objective import GradientAscent, Objective, log_prob
from letheon.prefix import FrozenPrefix
from letheon.train.spectrum import leading

RATE = 0.05
"""The learning rate where none is set: that of the authors' configuration."""

RANK = 8
"""Of the adapter that elicits, whose scale is 1."""


def collapsed(gradient: Tensor, components: int) -> Tensor:
    """A gradient whose largest principal components have shrunk: s_i → s_q²/s_i for i ≤ q.

    Args:
        gradient: (out, in) G.
        components: q ≥ 1.

    Raises:
        ValueError: G has no more than q components: nothing would be left.
    """
    left, singular, right = leading(gradient, components + 1)
    if len(singular) <= components:
        raise ValueError(f"it has {len(singular)} principal components")
    left, right, singular = left[:, :components], right[:, :components], singular[:components]
    taken = (left * (singular - singular[-1] ** 2 / singular)) @ right.T
    return gradient - taken.to(gradient.device, gradient.dtype)


def check_select(model: Model, objective: Objective) -> None:
    """Refuse what has no part in it.

    Raises:
        InputError: The model has an adapter, or no MLP whose weights learn; or the objective has another term.
    """
    if hasattr(model, "peft_config"):
        raise InputError(
            "train.select moves the weights themselves, and an adapter could not hold it: set tuning.kind to full"
        )
    if not isinstance(objective.negative, GradientAscent) or objective.positive or objective.normal:
        raise InputError(
            "train.select takes one gradient, that of the old answers, and no other term has a say: set "
            "objective.negative.name to gradient-ascent, and positive.name and normal.name to none"
        )
    if not mlp_layers(model):
        raise InputError(f"train.select is of MLP weights, and {type(model).__name__} has no layer of that name")


def mlp_layers(model: Model) -> dict[str, nn.Linear]:
    """The linear layers of the model's MLPs whose weights learn, by name."""
    return {
        f"{number}.{name}": layer
        for number, block in enumerate(decoder_layers(model))
        for name, layer in block.named_modules()
        if name.startswith("mlp.") and isinstance(layer, nn.Linear) and layer.weight.requires_grad
    }


def select(
    model: Model,
    old: Sequence[Encoded],
    *,
    components: int,
    elicit: float,
    batch_size: int,
    pad_token_id: int,
    seed: int,
    prefix: FrozenPrefix | None = None,
) -> dict[nn.Parameter, Tensor]:
    """G′ of every MLP weight; nothing else of the model learns from here on.

    Args:
        model: The model under θ₀; gradients that it holds are lost.
        old: Prompts with the answers to forget.
        components: q.
        elicit: The adapter's learning rate; 0 does without.
        batch_size: Answers in a batch. As the authors have it, mean losses of batches add up.
        pad_token_id: Padding token.
        seed: Of the adapter.
        prefix: Where to start from.

    Raises:
        InputError: A gradient has no more components than are to shrink.
    """
    layers = mlp_layers(model)
    model.requires_grad_(False)
    batches = [old[start : start + batch_size] for start in range(0, len(old), batch_size)]

    def losses() -> Iterator[Tensor]:
        for batch in batches:
            logits, targets, _ = answer_logits(model, batch_for(model, batch, pad_token_id, prefix), prefix)
            yield -log_prob(logits, targets).mean()

    with in_eval_mode(model), _adapted(layers, seed) as adapter:
        for loss in losses() if elicit else ():
            gradients = torch.autograd.grad(loss, adapter)
            with torch.no_grad():
                for parameter, gradient in zip(adapter, gradients, strict=True):
                    parameter -= elicit * gradient
            # It remembers what it has cast, and would not see that it is moved.
            torch.clear_autocast_cache()
        for parameter in adapter:
            parameter.requires_grad_(False)
        for layer in layers.values():
            layer.weight.requires_grad_(True)
        for loss in losses():
            (-loss).backward()  # type: ignore[no-untyped-call]
    found: dict[nn.Parameter, Tensor] = {}
    for name, layer in layers.items():
        assert layer.weight.grad is not None
        try:
            found[layer.weight] = collapsed(layer.weight.grad, components)  # type: ignore[index]
        except ValueError as error:
            raise InputError(
                f"train.select={components}: of the gradient of layer {name}, {error}, all of which would shrink; "
                "take fewer (the authors' 512 are an eighth of their models' width)"
            ) from None
        layer.weight.grad = None
    return found


@contextmanager
def _adapted(layers: Mapping[str, nn.Linear], seed: int) -> Iterator[list[Tensor]]:
    """In the block, B A x is added to what layers put out; A random as PEFT draws it, B zero."""
    draw = torch.Generator().manual_seed(seed)
    factors: list[Tensor] = []
    handles = []

    def added(down: Tensor, up: Tensor) -> Callable[..., Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + nn.functional.linear(nn.functional.linear(inputs[0].to(down.dtype), down), up)

        return add

    for layer in layers.values():
        down = (torch.rand(RANK, layer.in_features, generator=draw) * 2 - 1) / layer.in_features**0.5
        down = down.to(layer.weight.device).requires_grad_()
        up = torch.zeros(layer.out_features, RANK, device=layer.weight.device, requires_grad=True)
        factors += [down, up]
        handles.append(layer.register_forward_hook(added(down, up)))
    try:
        yield factors
    finally:
        for handle in handles:
            handle.remove()


class FixedSteps(torch.optim.Optimizer):
    """W ← W − lr · G′, whatever the gradient is by now.

    Args:
        steps: G′ of each weight.
        lr: Learning rate.
    """

    def __init__(self, steps: Mapping[nn.Parameter, Tensor], lr: float):
        self._steps = dict(steps)
        super().__init__(list(steps), {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move the weights."""
        for group in self.param_groups:
            for weight in group["params"]:
                weight.sub_(self._steps[weight], alpha=group["lr"])
