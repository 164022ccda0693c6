"""What is measured once, under θ₀: what the model said, where changes should look, and what they should spare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from letheon.chat import Encoded, encode_reply
from letheon.measure import release_memory
from letheon.models import Model, Tokenizer
from letheon.objective import Objective, Part
from letheon.prefix import FrozenPrefix
from letheon.records import Message, Turn
from letheon.train.config import UnlearnConfig
from letheon.train.contrast import Moments, layer_directions, point_adapters
from letheon.train.dataset import Reference, UnlearnDataset
from letheon.train.reference import informative, reference_pass
from letheon.train.sensitivity import Sensitivity, measure_sensitivity

PASS_SIZE = 16
"""Sequences in a forward pass without gradients."""


@dataclass
class Prepared:
    """What training needs to know of θ₀.

    Attributes:
        reference: By part, what was said about each sequence; parts whose term needs nothing have none.
        directions: Full tuning along directions: the (r, d) rows of each weight that learns.
        sensitivity: By the parameter whose gradient is to spare normal answers: an adapter's B, or a layer's weight.
    """

    reference: dict[Part, list[Reference]] = field(default_factory=dict)
    directions: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    sensitivity: dict[nn.Parameter, Sensitivity] = field(default_factory=dict)


def pass_size(args: UnlearnConfig) -> int:
    """Sequences in a forward pass without gradients: at least a step's."""
    return max(PASS_SIZE, int(args.per_device_train_batch_size))


def score(
    model: Model,
    sequences: Sequence[Encoded],
    args: UnlearnConfig,
    tokenizer: Tokenizer,
    prefix: FrozenPrefix | None,
    moments: Moments | None = None,
) -> list[Reference]:
    """What the model says about sequences as it is."""
    return reference_pass(
        model,
        sequences,
        moments=moments,
        prefix=prefix,
        top_k=args.top_k,
        pad_token_id=tokenizer.pad_token_id,
        batch_size=pass_size(args),
    )


def prepare(
    model: Model,
    layers: Mapping[str, nn.Module],
    dataset: UnlearnDataset,
    turns: Sequence[Turn],
    *,
    objective: Objective,
    args: UnlearnConfig,
    tokenizer: Tokenizer,
    max_length: int | None,
    prefix: FrozenPrefix | None,
) -> Prepared:
    """Measure all that training asks of θ₀, point new adapters, and freeze what full tuning does not move.

    Args:
        model: The model, without wrappers.
        layers: Those that are to look where forget inputs differ, by name; may be none.
        dataset: The data.
        turns: The turns to forget, in the dataset's order.
        objective: Whose terms say what they need.
        args: Settings.
        tokenizer: The tokenizer.
        max_length: Longest sequence.
        prefix: Where forward passes start from.
    """
    found = Prepared()
    layers = dict(layers) if dataset.normal else {}
    sequences: dict[Part, list[Encoded]] = {
        "negative": [item.old for item in dataset.forget],
        "normal": dataset.normal,
    }
    # Of normal dialogues the prompts count too: what is known about normal inputs is never enough.
    moments: dict[Part, Moments] = {p: Moments(layers, everywhere=p == "normal") for p in sequences if layers}
    for part, own in sequences.items():
        if layers or part == "normal" or objective.needs(part) or args.token_choice != "all":
            found.reference[part] = score(model, own, args, tokenizer, prefix, moments.get(part))
    if layers:
        _look(model, layers, moments, found, args.directions)
        # They are as large as half the layers, and no longer needed.
        moments.clear()
        release_memory()
        if args.damping is not None:
            found.sensitivity = _sensitivity(model, layers, dataset.normal, args, args.damping, tokenizer, prefix)
    if args.token_choice != "all":
        masks = [torch.arange(len(known.log_prob)) > 0 for known in found.reference["negative"]]
        if args.token_choice == "informative":
            empty = [encode_reply(tokenizer, _without_question(t.prompt), t.answer, max_length) for t in turns]
            blind = score(model, empty, args, tokenizer, prefix)
            masks = [
                informative(known.log_prob, without.log_prob)
                for known, without in zip(found.reference["negative"], blind, strict=True)
            ]
        found.reference["negative"] = [
            replace(known, counts=mask) for known, mask in zip(found.reference["negative"], masks, strict=True)
        ]
    return found


def _look(
    model: Model, layers: dict[str, nn.Module], moments: dict[Part, Moments], found: Prepared, rank: int
) -> None:
    """Point adapters, or leave the weights of full tuning alone to learn, along their directions."""
    if hasattr(model, "peft_config"):
        point_adapters(model, moments["negative"], moments["normal"])
        return
    rows = layer_directions(layers, moments["negative"], moments["normal"], dict.fromkeys(layers, rank))
    found.directions = {layer.weight: rows[name] for name, layer in layers.items()}  # type: ignore[misc]
    model.requires_grad_(False)
    for weight in found.directions:
        weight.requires_grad_(True)


def _sensitivity(
    model: Model,
    layers: Mapping[str, nn.Module],
    normal: Sequence[Encoded],
    args: UnlearnConfig,
    damping: float,
    tokenizer: Tokenizer,
    prefix: FrozenPrefix | None,
) -> dict[nn.Parameter, Sensitivity]:
    measured = measure_sensitivity(
        model,
        layers,
        normal,
        damping=damping,
        pad_token_id=tokenizer.pad_token_id,
        # It needs a backward pass: no more memory than a step of training.
        batch_size=int(args.per_device_train_batch_size) * (2 + args.normal_per_forget),
        seed=args.seed,
        prefix=prefix,
    )
    by_parameter: dict[nn.Parameter, Sensitivity] = {}
    for name, layer in layers.items():
        adapters = [adapter.weight for adapter in getattr(layer, "lora_B", {}).values()]
        by_parameter |= dict.fromkeys(adapters or [layer.weight], measured[name])
    return by_parameter


def _without_question(prompt: Sequence[Message]) -> tuple[Message, ...]:
    return (*prompt[:-1], Message(role=prompt[-1].role, content="")) if prompt else ()
