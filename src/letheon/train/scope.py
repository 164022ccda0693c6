"""Which weights learn: those of an adapter on some layers, or those layers' own."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from letheon.errors import InputError
from letheon.layers import decoder_layers
from letheon.models import Model, bare_model
from letheon.recipe import ObjectiveRecipe, Tuning

DEFAULT_LAYERS = {"lora": "top-66%", "full": "all"}
"""The layers that learn by default, by kind: an adapter on the lower ones costs more than it adds."""


def adapter_for(model: Model, tuning: Tuning | None = None, layer: int | None = None) -> Any:
    """The `peft.LoraConfig` that a recipe's `tuning` section describes for a model.

    Args:
        model: The model that the adapter is for.
        tuning: The section; None: the defaults, on which Letheon's numbers are measured.
        layer: The layer whose states the objective reads, if it does: see `learning_layers`.

    Raises:
        InputError: The layers are still to be chosen, or there are fewer; or modules are named that are not there.
    """
    from peft import LoraConfig

    tuning = tuning or Tuning()
    recipe = tuning.lora
    linear = _linear_names(model)
    wanted = recipe.target_modules if isinstance(recipe.target_modules, list) else []
    names = [name for name, _ in model.named_modules()]
    if unknown := [one for one in wanted if not any(f".{name}".endswith(f".{one}") for name in names)]:
        known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        raise InputError(
            f"tuning.lora.target_modules: no module is called {', '.join(unknown)}; linear ones: {known}"
        )
    # Of names that a model lacks PEFT would warn.
    excluded = [one for one in recipe.exclude_modules if any(f".{name}".endswith(f".{one}") for name in linear)]
    options: dict[str, Any] = {"target_modules": recipe.target_modules, "exclude_modules": excluded}
    total = model.config.get_text_config().num_hidden_layers
    if len(learning := learning_layers(tuning, total, layer)) < total:
        # PEFT takes numbers of layers beside names of modules only.
        if recipe.target_modules == "all-linear":
            options["target_modules"] = {name.rsplit(".", 1)[-1] for name in linear}
        options["layers_to_transform"] = list(learning)
    return LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        task_type="CAUSAL_LM",
        # GPT-2's layers hold their weights the other way round.
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
        **{name: value or None for name, value in options.items()},
    )


def freeze_others(model: Model, tuning: Tuning, layer: int | None = None) -> None:
    """Before full tuning, leave the weights of some layers alone to learn; by default all weights learn.

    Args:
        model: The model.
        tuning: A recipe's section.
        layer: As of `adapter_for`.

    Raises:
        InputError: The model's layers are not in one list, it has fewer, or they are still to be chosen.
    """
    if tuning.layers == "all" or (tuning.layers is None and layer is None):
        return
    found = decoder_layers(model)
    if not found:
        raise InputError(
            f"tuning.layers={tuning.layers}: {type(model).__name__} has no list of layers; set it to all"
        )
    model.requires_grad_(False)
    for number in learning_layers(tuning, len(found), layer):
        found[number].requires_grad_(True)


def what_learns(model: Model) -> dict[str, nn.Parameter]:
    """The parameters that learn, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def learning_layers(tuning: Tuning, total: int, layer: int | None = None) -> range:
    """The numbers of the layers that learn, from 0.

    Args:
        tuning: A recipe's section, whose `layers` are "all", "top-8" (the last eight), a share of them, "top-66%"
            (rounded up), or from one to another, "5-7"; None is the default of its kind.
        total: The model's layers.
        layer: The layer whose states the objective reads, if it does: None then is this one and the two below.

    Raises:
        InputError: There are fewer layers than are named, or they are still to be chosen by a trial.
    """
    if tuning.layers is None and layer is not None:
        return around(layer)
    layers = tuning.layers or DEFAULT_LAYERS[tuning.kind]
    if layers == "auto":
        raise InputError(
            "tuning.layers=auto is a trial on your data: letheon.choose_layers takes it; set what it has chosen"
        )
    if layers == "all":
        return range(total)
    if not layers.startswith("top-"):
        first, last = map(int, layers.split("-"))
        if last >= total:
            raise InputError(f"tuning.layers={layers}: the model has {total} layers, numbered 0 to {total - 1}")
        return range(first, last + 1)
    number = layers.removeprefix("top-")
    wanted = math.ceil(total * int(number[:-1]) / 100) if number.endswith("%") else int(number)
    return range(max(total - wanted, 0), total)


def around(layer: int) -> range:
    """The layers that learn with RMU, as its authors have it: the one whose states are read, and the two below."""
    return range(max(layer - 2, 0), layer + 1)


def layer_read(recipe: ObjectiveRecipe, total: int) -> int | None:
    """The number of the layer whose states a recipe's objective reads; None where it reads none.

    By default it is the last one of the lowest quarter: the authors' 7 of 32.

    Args:
        recipe: The section.
        total: The model's layers.

    Raises:
        InputError: There is no such layer, or it is the last one.
    """
    negative = recipe.negative
    if not negative.reads_states:
        return None
    layer = max(total // 4 - 1, 0) if negative.layer is None else negative.layer
    check_layer(layer, total)
    return layer


def check_layer(layer: int, total: int) -> None:
    """Refuse to read the states of a layer that is not there, or of the last one.

    Raises:
        InputError: As said.
    """
    if layer > total - 2:
        raise InputError(
            f"objective.negative.layer={layer}: the model has {total} layers, numbered from 0, and states are read "
            f"below the last; choose one of 0 to {total - 2}"
            if total > 1
            else "objective.negative: states are read below the last layer, and the model has one; take another name"
        )


def check_read(model: Model, layer: int, *, devices: int, alone: bool) -> None:
    """Refuse a layer whose states cannot be read in a process with so many devices; and as `check_reach`."""
    layers = decoder_layers(model)
    if not layers:
        raise InputError(f"{type(bare_model(model)).__name__} has no list of layers whose states could be read")
    if devices > 1:
        raise InputError(
            f"states are read on one device a process, and this has {devices}: show it one (CUDA_VISIBLE_DEVICES=0), "
            "or start a script of yours with accelerate launch"
        )
    check_layer(layer, len(layers))
    learning = [n for n, one in enumerate(layers) if any(p.requires_grad for p in one.parameters())]
    check_reach(learning, layer, alone=alone)


def check_reach(learning: Collection[int], layer: int, *, alone: bool) -> None:
    """Refuse layers that would learn without a gradient.

    Args:
        learning: The numbers of the layers that learn.
        layer: The layer whose states the objective reads.
        alone: Whether it reads nothing else, so that nothing above has a gradient.

    Raises:
        InputError: All that learns lies above that layer, or some of it, where nothing else is read.
    """
    few = around(layer)
    instead = f"set tuning.layers to {few[0]}-{layer} (or requires_grad to False)"
    if learning and min(learning) > layer:
        raise InputError(
            f"the lowest layer that learns is {min(learning)}, above layer {layer} whose states the negative term "
            f"reads, so that nothing would be forgotten; {instead}"
        )
    if alone and learning and max(learning) > layer:
        raise InputError(
            f"layers up to {max(learning)} learn, but the objective reads nothing above layer {layer}: they would "
            f"get no gradient; {instead}"
        )


def _linear_names(model: Model) -> set[str]:
    """The names of all linear modules but the one that gives the logits."""
    head = model.get_output_embeddings()
    return {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
