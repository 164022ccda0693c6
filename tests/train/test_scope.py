"""Which modules of which layers get an adapter, or learn themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from peft import get_peft_model

from letheon.errors import InputError
from letheon.prefix import decoder_layers
from letheon.recipe import Lora, Tuning
from letheon.train.contrast import lora_layers
from letheon.train.scope import adapter_for, freeze_lower, top_layers


@pytest.mark.parametrize(
    ("layers", "total", "top"),
    [
        ("all", 30, 30),
        ("top-8", 30, 8),
        ("top-40", 30, 30),
        ("top-66%", 30, 20),
        ("top-66%", 2, 2),
        ("top-1%", 12, 1),
        ("top-100%", 7, 7),
    ],
)
def test_top_layers(layers: str, total: int, top: int) -> None:
    assert top_layers(layers, total) == top


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
        freeze_lower(model, Tuning(kind="full", layers=layers))
        assert all(parameter.requires_grad for parameter in model.parameters())
    freeze_lower(model, Tuning(kind="full", layers="top-2"))
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {
        n for n, _ in model.named_parameters() if n.startswith(("model.layers.1.", "model.layers.2."))
    }


def test_full_tuning_of_layers_that_cannot_be_found(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(num_hidden_layers=3)
    model.config.num_hidden_layers = 7
    assert not decoder_layers(model)
    with pytest.raises(InputError, match="set it to all"):
        freeze_lower(model, Tuning(layers="top-2"))


def test_modules_are_excluded_by_any_ending_of_their_name(tiny_model: Callable[..., Any]) -> None:
    names = adapted(tiny_model(), exclude_modules=["self_attn.q_proj", "nothing"], layers="top-1")
    assert {name.rsplit(".", 1)[-1] for name in names} == (EACH | {"down_proj"}) - {"q_proj"}
