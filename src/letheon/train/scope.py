"""Which weights learn: those of an adapter on the upper layers, or those layers' own."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from letheon.errors import InputError
from letheon.models import Model
from letheon.prefix import decoder_layers
from letheon.recipe import Tuning

DEFAULT_LAYERS = {"lora": "top-66%", "full": "all"}
"""The layers that learn by default, by kind: an adapter on the lower ones costs more than it adds."""


def adapter_for(model: Model, tuning: Tuning | None = None) -> Any:
    """The `peft.LoraConfig` that a recipe's `tuning` section describes for a model.

    Args:
        model: The model that the adapter is for.
        tuning: The section; None: the defaults, on which Letheon's numbers are measured.

    Raises:
        InputError: The layers are still to be chosen.
    """
    from peft import LoraConfig

    tuning = tuning or Tuning()
    recipe = tuning.lora
    linear = _linear_names(model)
    # Of names that a model lacks PEFT would warn.
    excluded = [one for one in recipe.exclude_modules if any(f".{name}".endswith(f".{one}") for name in linear)]
    options: dict[str, Any] = {"target_modules": recipe.target_modules, "exclude_modules": excluded}
    total = model.config.get_text_config().num_hidden_layers
    if (top := top_layers(named_layers(tuning), total)) < total:
        # PEFT takes numbers of layers beside names of modules only.
        if recipe.target_modules == "all-linear":
            options["target_modules"] = {name.rsplit(".", 1)[-1] for name in linear}
        options["layers_to_transform"] = list(range(total - top, total))
    return LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        task_type="CAUSAL_LM",
        # GPT-2's layers hold their weights the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        **{name: value or None for name, value in options.items()},
    )


def freeze_lower(model: Model, tuning: Tuning) -> None:
    """Before full tuning, leave the weights of the upper layers alone to learn; by default all weights learn.

    Args:
        model: The model.
        tuning: A recipe's section.

    Raises:
        InputError: The model's layers are not in one list, or they are still to be chosen.
    """
    layers = named_layers(tuning)
    if layers == "all":
        return
    found = decoder_layers(model)
    if not found:
        raise InputError(f"tuning.layers={layers}: {type(model).__name__} has no list of layers; set it to all")
    model.requires_grad_(False)
    for layer in found[-top_layers(layers, len(found)) :]:
        layer.requires_grad_(True)


def named_layers(tuning: Tuning) -> str:
    """The layers that a section means, by name.

    Raises:
        InputError: They are to be chosen by a trial.
    """
    if tuning.layers == "auto":
        raise InputError(
            "tuning.layers=auto is a trial on your data: letheon.choose_layers takes it; set what it has chosen"
        )
    return tuning.layers or DEFAULT_LAYERS[tuning.kind]


def top_layers(layers: str, total: int) -> int:
    """How many of a model's layers, counted from the last: "all", "top-8", or a share of them, "top-66%".

    Args:
        layers: As in a recipe.
        total: The model's layers.

    Returns:
        In [1, total]; shares are rounded up.
    """
    if layers == "all":
        return total
    number = layers.removeprefix("top-")
    wanted = math.ceil(total * int(number[:-1]) / 100) if number.endswith("%") else int(number)
    return min(wanted, total)


def _linear_names(model: Model) -> set[str]:
    """The names of all linear modules but the one that gives the logits."""
    head = model.get_output_embeddings()
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
