"""FILA: adapters that start as the part of a weight which old answers lean on most and normal ones least.

With F^f and F^n the Fisher information of a weight W (out, in) under θ₀, by old and by normal answers, its rows are
weighed by D = diag(√ Σ_j F^f_ij / (F^n_ij + 10⁻⁵)), and the adapter (α/r) B A starts at the best approximation of W
of rank r under these weights:

    D W = U S Vᵀ,        (α/r) B₀ A₀ = D⁻¹ U_r S_r V_rᵀ,        F = E[(∂ log π(y|x) / ∂W)²].

Source: arXiv 2408.06621 (with the inverted hinge it is LoKU: r 4 to 32, α 2 r, no dropout, all linear layers, 5
epochs at 1e-4 of Llama-2-7B and 2e-4 of phi-1.5); csm9493/efficient-llm-unlearning, whose F comes from the mean loss
of batches: here, as in the paper, from each answer by itself.

The authors leave W − (α/r) B₀ A₀ in the place of W. Here W stays what it is, and the adapter has a second half, −B₀
and A₀, which does not learn: twice the rank, and an ordinary adapter of the model at every moment, which changes
nothing at the start. (PEFT makes the same of a PiSSA adapter when it is saved.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.forward import answer_logits, batch_for
from letheon.measure import release_memory
from letheon.models import Model, bare_model, in_eval_mode
from letheon.objective import log_prob
from letheon.prefix import FrozenPrefix
from letheon.split import spread
from letheon.train.contrast import lora_layers
from letheon.train.spectrum import leading

FLOOR = 1e-5
"""What is added to F^n."""

MOST = 512
"""Answers of either kind whose gradients are taken; the authors take all old ones, and as many normal ones."""

Half = tuple[slice, slice]


def doubled(config: Any) -> Any:
    """A LoRA configuration of twice the rank and the same scale.

    Raises:
        InputError: It is of another kind of adapter.
    """
    from peft import LoraConfig

    if not isinstance(config, LoraConfig):
        raise InputError(
            f"adapter_init='fila' is for LoRA, not for {type(config).__name__}: give a LoraConfig, or set it to "
            "'random'"
        )
    config = copy.deepcopy(config)
    # With rank-stabilised LoRA the scale is α/√r.
    factor = 2**0.5 if config.use_rslora else 2
    config.r, config.lora_alpha = 2 * config.r, factor * config.lora_alpha
    config.rank_pattern = {name: 2 * rank for name, rank in (config.rank_pattern or {}).items()}
    config.alpha_pattern = {name: factor * alpha for name, alpha in (config.alpha_pattern or {}).items()}
    return config


def check_fila(model: Model, old: Sequence[Any], normal: Sequence[Any]) -> None:
    """Refuse a model, with adapters of twice the rank, that cannot start so, and data by which it could not.

    Raises:
        InputError: Its weights are quantised, an adapter is on another layer than a linear one, or data are missing.
    """
    if getattr(bare_model(model), "is_quantized", False):
        raise InputError(
            "adapter_init='fila' decomposes the model's weights, which are quantised here: load the model whole, or "
            "set it to 'contrast' or 'random'"
        )
    layers: dict[str, Any] = dict(lora_layers(model))
    for name, layer in layers.items():
        if not layer.lora_A or layer.weight.dim() != 2:
            raise InputError(
                f"adapter_init='fila' is for linear layers, but {name} is {type(layer.base_layer).__name__}: leave "
                "it out of target_modules"
            )
    if not old or not normal:
        raise InputError("adapter_init='fila' weighs old answers against normal ones: give datasets of both")


def leading_part(weight: Tensor, importance: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """D⁻¹ U_r S_r^½ and S_r^½ V_rᵀ: the factors of the best approximation of a weight whose rows are weighed.

    Args:
        weight: (out, in) W.
        importance: (out,) the squares of D's diagonal, ≥ 0. Where one is 0, the row is left out.
        rank: r. There may be fewer, where D W has no more.

    Returns:
        (out, k) and (k, in) in float32, k ≤ r.
    """
    scale = importance.double().cpu().sqrt()
    left, singular, right = leading(scale[:, None] * weight.double().cpu(), rank)
    inverse = torch.where(scale > 0, 1 / scale, 0.0)
    root = singular.sqrt()
    return (inverse[:, None] * left * root).float(), (right * root).T.float()


def fisher(
    model: Model,
    layers: Mapping[str, nn.Module],
    sequences: Sequence[Encoded],
    pad_token_id: int,
    prefix: FrozenPrefix | None = None,
) -> dict[str, Tensor]:
    """(out, in) E[(∂ log π(y|x) / ∂W)²] of each layer, over answers; a backward pass for each of them.

    Args:
        model: The model under θ₀; gradients that it holds are lost.
        layers: By name; something in each of them learns.
        sequences: Prompts with their answers.
        pad_token_id: Padding token.
        prefix: Where to start from.
    """
    sums: dict[str, Tensor] = {}

    def watch(name: str) -> Any:
        def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            read = inputs[0].detach().flatten(0, -2).float()

            def add(gradient: Tensor) -> None:
                # Squares of what bfloat16 has rounded would be rounded again.
                with torch.autocast(gradient.device.type, enabled=False):
                    sums[name] = sums.get(name, 0) + (gradient.flatten(0, -2).float().T @ read).square()

            output.register_hook(add)  # type: ignore[no-untyped-call]

        return look

    handles = [layer.register_forward_hook(watch(name)) for name, layer in layers.items()]
    try:
        with in_eval_mode(model):
            for sequence in sequences:
                logits, targets, _ = answer_logits(model, batch_for(model, [sequence], pad_token_id, prefix), prefix)
                log_prob(logits, targets).sum().backward()  # type: ignore[no-untyped-call]
    finally:
        for handle in handles:
            handle.remove()
    model.zero_grad()
    return {name: total / len(sequences) for name, total in sums.items()}


def start_adapters(
    model: Model,
    old: Sequence[Encoded],
    normal: Sequence[Encoded],
    pad_token_id: int,
    prefix: FrozenPrefix | None = None,
) -> None:
    """Set both halves of every adapter.

    Args:
        model: A PeftModel with fresh LoRA adapters of twice the rank.
        old: Prompts with the answers to forget.
        normal: Those to keep; as many are taken as there are old ones, evenly spread.
        pad_token_id: Padding token.
        prefix: Where to start from.
    """
    layers = lora_layers(model)
    old = spread(old, MOST)
    by_old = fisher(model, layers, old, pad_token_id, prefix)
    by_normal = fisher(model, layers, spread(normal, len(old)), pad_token_id, prefix)
    importance = {name: (by_old[name] / (by_normal[name] + FLOOR)).sum(dim=1) for name in by_old}
    del by_old, by_normal
    with torch.no_grad():
        for name, rows in importance.items():
            _start(layers[name], rows)
    release_memory()


def _start(layer: Any, importance: Tensor) -> None:
    weight = layer.weight.T if layer.fan_in_fan_out else layer.weight
    for adapter, scaling in layer.scaling.items():
        down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        rank = down.size(0) // 2
        left, right = leading_part(weight, importance, rank)
        found = len(right)
        # Directions that D W does not have stay as PEFT draws them, and begin with B = 0.
        down[rank:] = 0
        for half, sign in ((0, 1), (rank, -1)):
            up[:, half : half + found] = sign * left / scaling**0.5
            down[half : half + found] = right / scaling**0.5


def second_halves(model: Model) -> list[tuple[nn.Parameter, Half]]:
    """What of the adapters does not learn: parameters, and where in them."""
    everything = slice(None)
    halves: list[tuple[nn.Parameter, Half]] = []
    for layer in lora_layers(model).values():
        for down in layer.lora_A.values():  # type: ignore[operator]
            halves.append((down.weight, (slice(len(down.weight) // 2, None), everything)))
        for up in layer.lora_B.values():  # type: ignore[operator]
            halves.append((up.weight, (everything, slice(up.weight.size(1) // 2, None))))
    return halves


@contextmanager
def without_gradient(halves: Sequence[tuple[nn.Parameter, Half]]) -> Iterator[None]:
    """In the block, parts of parameters get none."""

    def masked(where: Half) -> Any:
        def mask(gradient: Tensor) -> Tensor:
            gradient = gradient.clone()
            gradient[where] = 0
            return gradient

        return mask

    handles = [parameter.register_hook(masked(where)) for parameter, where in halves]  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def hold(optimizer: torch.optim.Optimizer, halves: Sequence[tuple[nn.Parameter, Half]]) -> None:
    """Keep parts of parameters as they are over an optimizer's steps: weight decay asks for no gradient."""
    kept: list[Tensor] = []

    def before(*_: Any) -> None:
        kept[:] = [parameter.detach()[where].clone() for parameter, where in halves]

    @torch.no_grad()
    def after(*_: Any) -> None:
        for (parameter, where), value in zip(halves, kept, strict=True):
            parameter[where] = value

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(after)
