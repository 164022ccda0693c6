"""The frozen prefix: what is skipped would have been the same again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel

from letheon.chat import Encoded
from letheon.forward import answer_logits, can_pack, collate
from letheon.prefix import FrozenPrefix, frozen_prefix
from letheon.store import Store

SEQUENCES = [
    Encoded([1, 2, 3, 4, 5], [False, False, True, True, True]),
    Encoded([1, 2, 3, 6], [False, False, True, True]),
    Encoded([7, 8, 9, 10, 11, 12, 13], [False, False, True, False, False, True, True]),
]
OTHERS = [SEQUENCES[1], Encoded([20, 21, 22], [False, True, True])]


def top_lora(model: Any, layers: list[int], **options: Any) -> Any:
    config = LoraConfig(
        r=2,
        target_modules=["q_proj", "up_proj"],
        layers_to_transform=layers,
        init_lora_weights=False,
        **options,
    )
    return get_peft_model(model, config)


def gradients(model: Any, batch: dict[str, torch.Tensor], prefix: FrozenPrefix | None) -> tuple[Any, Any]:
    model.zero_grad()
    logits, targets, _ = answer_logits(model, batch, prefix)
    torch.nn.functional.cross_entropy(logits.float(), targets).backward()
    return logits, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_skipping_changes_nothing(tiny_model: Callable[..., Any], packed: bool, autocast: bool) -> None:
    model = top_lora(tiny_model(num_hidden_layers=4), [2, 3])
    can_pack(model)
    prefix = frozen_prefix(model, 0, Store())
    assert prefix is not None
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        # Sequences new, some of them known, all of them known.
        for sequences in (SEQUENCES, [*OTHERS, SEQUENCES[2]], [*reversed(SEQUENCES), OTHERS[1]]):
            batch = collate(sequences, 0, packed=packed, prefix=prefix)
            plain, skipping = gradients(model, batch, None), gradients(model, batch, prefix)
            limits = {"rtol": 2e-2, "atol": 2e-2} if autocast else {"rtol": 1e-5, "atol": 1e-5}
            torch.testing.assert_close(skipping[0], plain[0], **limits)
            assert plain[1].keys() == skipping[1].keys() != set()
            for name, gradient in plain[1].items():
                torch.testing.assert_close(skipping[1][name], gradient, **limits)


def test_prefixes_of_two_depths_share_a_store(tiny_model: Callable[..., Any]) -> None:
    """As a kept cache is: of another choice of layers, what is known of a sequence is of another layer."""
    model, store = tiny_model(num_hidden_layers=4), Store()
    can_pack(model)
    for lowest in (1, 2):
        model.requires_grad_(False)
        model.model.layers[lowest].requires_grad_(True)
        prefix = frozen_prefix(model, 0, store)
        batch = collate(SEQUENCES, 0, packed=True, prefix=prefix)
        torch.testing.assert_close(answer_logits(model, batch, prefix)[0], answer_logits(model, batch)[0])


def test_the_lower_layers_run_once(tiny_model: Callable[..., Any]) -> None:
    model = top_lora(tiny_model(num_hidden_layers=3), [2])
    prefix = frozen_prefix(model, 0, Store())
    calls = {0: 0, 1: 0, 2: 0}
    for number, layer in enumerate(model.get_base_model().model.layers):
        layer.mlp.register_forward_hook(lambda *_, number=number: calls.update({number: calls[number] + 1}))
    batch = collate(SEQUENCES, 0, packed=True, prefix=prefix)
    for _ in range(3):
        answer_logits(model, batch, prefix)
    assert calls == {0: 1, 1: 1, 2: 3}
    # Without the prefix, or after it, the model is whole.
    answer_logits(model, batch)
    assert calls == {0: 2, 1: 2, 2: 4}
    assert not any("forward" in vars(layer) for layer in model.get_base_model().model.layers)


def test_training_mode_comes_back_and_dropout_of_lower_layers_rests(tiny_model: Callable[..., Any]) -> None:
    model = top_lora(tiny_model(num_hidden_layers=3, attention_dropout=0.5), [2]).train()
    prefix = frozen_prefix(model, 0, Store())
    assert prefix is not None
    batch = collate(SEQUENCES, 0, packed=True, prefix=prefix)
    answer_logits(model, batch, prefix)
    assert model.training


@pytest.mark.parametrize("reentrant", [False, True])
def test_under_gradient_checkpointing(tiny_model: Callable[..., Any], reentrant: bool) -> None:
    model = top_lora(tiny_model(num_hidden_layers=4), [2, 3])
    prefix = frozen_prefix(model, 0, Store())
    model.train()
    batch = collate(SEQUENCES, 0, packed=True, prefix=prefix)
    plain = gradients(model, batch, None)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    for _ in range(2):
        skipping = gradients(model, batch, prefix)
        torch.testing.assert_close(skipping[0], plain[0])
        assert plain[1].keys() == skipping[1].keys()
        for name, gradient in plain[1].items():
            torch.testing.assert_close(skipping[1][name], gradient)


def test_other_architectures() -> None:
    # GPT-2 adds learned positions to its embeddings, Gemma scales them.
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=3, n_head=2, bos_token_id=0, eos_token_id=1))
    gemma = GemmaForCausalLM(
        GemmaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )
    for model, layer in ((gpt2, "transformer.h.2"), (gemma, "model.layers.2")):
        model.eval().requires_grad_(False)
        model.get_submodule(layer).requires_grad_(True)
        prefix = frozen_prefix(model, 0, Store())
        assert prefix is not None
        for sequences in (SEQUENCES, OTHERS):
            batch = collate(sequences, 0, packed=can_pack(model), prefix=prefix)
            torch.testing.assert_close(answer_logits(model, batch, prefix)[0], answer_logits(model, batch)[0])


def test_no_prefix_where_the_lowest_layer_or_the_embedding_learns(tiny_model: Callable[..., Any]) -> None:
    assert frozen_prefix(tiny_model(), 0, Store()) is None
    assert frozen_prefix(top_lora(tiny_model(), [0, 1]), 0, Store()) is None
    model = tiny_model().requires_grad_(False)
    assert frozen_prefix(model, 0, Store()) is None
    model.model.layers[1].requires_grad_(True)
    assert frozen_prefix(model, 0, Store()) is not None
    model.get_input_embeddings().requires_grad_(True)
    assert frozen_prefix(model, 0, Store()) is None


def test_states_of_another_shape_are_no_error(
    tiny_model: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = top_lora(tiny_model(num_hidden_layers=3), [2])

    def streams(layer: Any, last: bool) -> None:
        """As where several streams go from layer to layer, the number of streams first."""
        own = layer.forward

        def forward(hidden: torch.Tensor, **named: Any) -> torch.Tensor:
            output = own(hidden[0] if hidden.dim() == 4 else hidden, **named)
            return output if last else output.expand(2, *output.shape)

        layer.forward = forward

    for number, layer in enumerate(model.get_base_model().model.layers):
        streams(layer, number == 2)
    assert frozen_prefix(model, 0, Store()) is None
    assert "needs its lower layers" in caplog.text


def test_what_ran_ahead_does_not_run_again(tiny_model: Callable[..., Any]) -> None:
    model = top_lora(tiny_model(num_hidden_layers=3), [2])
    assert can_pack(model)
    prefix = frozen_prefix(model, 0, Store())
    assert prefix is not None
    prefix.run_ahead(model, [*SEQUENCES, *OTHERS], most=2)
    calls: list[Any] = []
    model.get_base_model().model.layers[0].mlp.register_forward_hook(lambda *_: calls.append(_))
    batch = collate(SEQUENCES, 0, packed=True, prefix=prefix)
    logits, *_ = answer_logits(model, batch, prefix)
    assert not calls
    torch.testing.assert_close(logits, answer_logits(model, batch)[0])
    calls.clear()
    prefix.run_ahead(model, [*OTHERS, *SEQUENCES], most=2)
    assert not calls


def test_a_forward_of_the_models_own_comes_back(tiny_model: Callable[..., Any]) -> None:
    model = top_lora(tiny_model(num_hidden_layers=3), [2])
    layer = model.get_base_model().model.layers[0]
    layer.forward = own = layer.forward
    prefix = frozen_prefix(model, 0, Store())
    answer_logits(model, collate(SEQUENCES, 0, packed=True, prefix=prefix), prefix)
    assert layer.forward is own


def test_a_model_that_needs_more_than_hidden_states_is_left_whole(
    tiny_model: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    model = top_lora(tiny_model(num_hidden_layers=3), [2])
    layers, kept = model.get_base_model().model.layers, {}

    def keep(module: Any, inputs: Any, output: Any) -> None:
        kept["values"] = output

    # As where upper layers read the values of lower ones.
    layers[0].self_attn.v_proj.register_forward_hook(keep)
    layers[2].self_attn.v_proj.register_forward_hook(lambda *_: kept.pop("values", torch.zeros(())) + _[2])
    assert frozen_prefix(model, 0, Store()) is None
    assert "needs its lower layers" in caplog.text
