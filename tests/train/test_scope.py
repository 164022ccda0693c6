"""Which modules of which layers get an adapter, or learn themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from peft import get_peft_model

from letheon.errors import InputError
from letheon.layers import decoder_layers
from letheon.recipe import Lora, Negative, ObjectiveRecipe, Tuning
from letheon.train.contrast import lora_layers
from letheon.train.scope import (
    adapter_for,
    check_reach,
    freeze_others,
    layer_read,
    learning_layers,
)


@pytest.mark.parametrize(
    ("layers", "total", "first", "last"),
    [
        ("all", 30, 0, 29),
        ("top-8", 30, 22, 29),
        ("top-40", 30, 0, 29),
        ("top-66%", 30, 10, 29),
        ("top-66%", 2, 0, 1),
        ("top-1%", 12, 11, 11),
        ("top-100%", 7, 0, 6),
        ("5-7", 30, 5, 7),
        ("0-0", 1, 0, 0),
        (None, 30, 10, 29),
    ],
)
def test_learning_layers(layers: str | None, total: int, first: int, last: int) -> None:
    assert learning_layers(Tuning(layers=layers), total) == range(first, last + 1)


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_by_default_rmu_moves_the_layer_that_it_reads_and_two_below(kind: Any) -> None:
    assert list(learning_layers(Tuning(kind=kind), 32, 7)) == [5, 6, 7]
    assert list(learning_layers(Tuning(kind=kind), 32, 1)) == [0, 1]
    assert list(learning_layers(Tuning(kind=kind, layers="top-2"), 32, 7)) == [30, 31]
    assert len(learning_layers(Tuning(kind="full"), 32)) == 32


def test_a_range_beyond_the_last_layer() -> None:
    with pytest.raises(InputError, match="tuning.layers=5-30: the model has 30 layers, numbered 0 to 29"):
        learning_layers(Tuning(layers="5-30"), 30)
    with pytest.raises(ValueError, match="'7-5' names no layer: set it to 5-7"):
        Tuning(layers="7-5")


@pytest.mark.parametrize(("total", "layer"), [(32, 7), (30, 6), (16, 3), (12, 2), (4, 0), (2, 0)])
def test_the_layer_that_rmu_reads_by_default(total: int, layer: int) -> None:
    assert layer_read(ObjectiveRecipe(negative=Negative(name="rmu")), total) == layer
    assert layer_read(ObjectiveRecipe(negative=Negative(name="rmu", layer=1)), 30) == 1
    assert layer_read(ObjectiveRecipe(), total) is None


def test_layers_whose_states_cannot_be_read() -> None:
    recipe = ObjectiveRecipe(negative=Negative(name="adaptive-rmu", layer=29))
    with pytest.raises(InputError, match="layer=29: the model has 30 layers, .*; choose one of 0 to 28"):
        layer_read(recipe, 30)
    with pytest.raises(InputError, match="the model has one"):
        layer_read(ObjectiveRecipe(negative=Negative(name="rmu")), 1)


def test_layers_that_would_get_no_gradient() -> None:
    check_reach([4, 5, 6], 6, alone=True)
    check_reach(range(30), 6, alone=False)
    check_reach([], 6, alone=True)
    with pytest.raises(InputError, match="lowest layer that learns is 22, above layer 6 .* tuning.layers to 4-6"):
        check_reach(range(22, 30), 6, alone=False)
    with pytest.raises(InputError, match="layers up to 29 learn, but .* above layer 1: .* tuning.layers to 0-1"):
        check_reach(range(30), 1, alone=True)


def adapted(model: Any, layers: str | None = None, **settings: Any) -> set[str]:
    """The names of the adapted modules, from their layer on."""
    tuning = Tuning(layers=layers, lora=Lora(**settings))
    names = lora_layers(get_peft_model(model, adapter_for(model, tuning)))
    return {name.split(".layers.")[-1].split(".h.")[-1] for name in names}


EACH = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}


def test_the_last_layers_alone(tiny_model: Callable[..., Any]) -> None:
    names = adapted(tiny_model(num_hidden_layers=3), layers="top-2")
    assert {name.split(".")[0] for name in names} == {"1", "2"}
    assert {name.rsplit(".", 1)[-1] for name in names} == EACH


def test_by_default_the_lowest_third_has_none(tiny_model: Callable[..., Any]) -> None:
    assert {name.split(".")[0] for name in adapted(tiny_model(num_hidden_layers=3))} == {"1", "2"}
    assert {name.split(".")[0] for name in adapted(tiny_model(num_hidden_layers=3), layers="all")} == {"0", "1", "2"}


def test_an_adapter_has_the_rank_scale_and_dropout_of_its_recipe(tiny_model: Callable[..., Any]) -> None:
    config = adapter_for(tiny_model(), Tuning(lora=Lora(r=3, alpha=12, dropout=0.25)))
    assert (config.r, config.lora_alpha, config.lora_dropout) == (3, 12, 0.25)


def test_chosen_modules(tiny_model: Callable[..., Any]) -> None:
    chosen = {"target_modules": ["q_proj", "down_proj"], "exclude_modules": [], "layers": "top-1"}
    assert adapted(tiny_model(), **chosen) == {"1.self_attn.q_proj", "1.mlp.down_proj"}


def test_gpt2_has_other_names() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    assert adapted(model, layers="top-1") == {"1.attn.c_attn", "1.attn.c_proj", "1.mlp.c_fc", "1.mlp.c_proj"}


def test_a_pattern_says_its_layers_itself() -> None:
    with pytest.raises(ValueError, match="set layers to all"):
        Tuning(lora=Lora(target_modules=r".*\.q_proj"))
    assert Tuning(lora=Lora(target_modules=r".*\.q_proj"), layers="all").layers == "all"


@pytest.mark.parametrize("layers", ["top", "top-0", "8", "top-x%", ""])
def test_other_words_for_layers_are_refused(layers: str) -> None:
    with pytest.raises(ValueError, match="is none of: auto, all, a number such as top-8"):
        Tuning(layers=layers)


def test_full_tuning_of_the_last_layers(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(num_hidden_layers=3)
    for layers in (None, "all"):
        freeze_others(model, Tuning(kind="full", layers=layers))
        assert all(parameter.requires_grad for parameter in model.parameters())
    freeze_others(model, Tuning(kind="full", layers="top-2"))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        n for n, _ in model.named_parameters() if n.startswith(("model.layers.1.", "model.layers.2."))
    }


def test_full_tuning_of_layers_by_number(tiny_model: Callable[..., Any]) -> None:
    for tuning, layer in ((Tuning(layers="1-2"), None), (Tuning(), 2)):
        model = tiny_model(num_hidden_layers=4)
        # By default with RMU, which reads layer 2: layers 0 to 2.
        freeze_others(model, tuning, layer)
        learning = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
        assert learning == ({"1", "2"} if layer is None else {"0", "1", "2"})
        assert not model.lm_head.weight.requires_grad


def test_an_adapter_on_layers_by_number(tiny_model: Callable[..., Any]) -> None:
    assert {name.split(".")[0] for name in adapted(tiny_model(num_hidden_layers=5), layers="1-2")} == {"1", "2"}
    model = tiny_model(num_hidden_layers=5)
    names = lora_layers(get_peft_model(model, adapter_for(model, layer=3)))
    assert {name.split(".layers.")[-1].split(".")[0] for name in names} == {"1", "2", "3"}


def test_full_tuning_of_layers_that_cannot_be_found(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(num_hidden_layers=3)
    model.config.num_hidden_layers = 7
    assert not decoder_layers(model)
    with pytest.raises(InputError, match="set it to all"):
        freeze_others(model, Tuning(layers="top-2"))


def test_modules_are_excluded_by_any_ending_of_their_name(tiny_model: Callable[..., Any]) -> None:
    names = adapted(tiny_model(), exclude_modules=["self_attn.q_proj", "nothing"], layers="top-1")
    assert {name.rsplit(".", 1)[-1] for name in names} == (EACH | {"down_proj"}) - {"q_proj"}


def test_a_module_that_is_not_there(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="no module is called nosuch, proj; linear ones: down_proj, gate_proj, k_"):
        adapter_for(tiny_model(), Tuning(lora=Lora(target_modules=["q_proj", "nosuch", "proj"])))
