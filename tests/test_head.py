"""The head apart from the body: what its logits would have been, for models whose logits it makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Gemma2Config, Gemma2ForCausalLM

from letheon import forward
from letheon.chat import Encoded
from letheon.forward import answer_logits, can_pack, chunked_logits, collate, hold_in_bf16
from letheon.head import has_head_apart, head_apart
from letheon.objective import ChunkedLogits

SEQUENCES = [
    Encoded([7, 8, 9, 10, 11], [False, False, True, True, True]),
    Encoded([20, 21, 22], [False, True, True]),
    Encoded([7, 8, 30, 31], [False, False, True, True]),
]


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "CHUNK", 2)


def test_the_head_gives_the_models_logits(tiny_model: Callable[..., Any]) -> None:
    model, ids = tiny_model(), torch.tensor([[1, 2, 3]])
    assert has_head_apart(model)
    whole = model(ids).logits
    with head_apart(model) as head:
        states = model(ids).logits
    assert states.shape == (1, 3, 32)
    assert torch.equal(head(states), whole)
    assert torch.equal(model(ids).logits, whole)


def test_the_head_computes_in_the_models_precision(tiny_model: Callable[..., Any]) -> None:
    model, ids = tiny_model(), torch.tensor([[1, 2, 3]])
    with torch.autocast("cpu", torch.bfloat16):
        whole = model(ids).logits
        with head_apart(model) as head:
            states = model(ids).logits
    logits = head(states)
    assert logits.dtype == torch.bfloat16
    assert torch.equal(logits, whole)


def test_capped_logits_are_left_whole(small_chunks: None) -> None:
    model = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            final_logit_softcapping=0.5,
        )
    ).eval()
    assert not has_head_apart(model)
    batch = collate(SEQUENCES, 0)
    logits, *_ = chunked_logits(model, batch)
    torch.testing.assert_close(logits, answer_logits(model, batch)[0])


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("adapter", [False, True], ids=["plain", "adapter"])
def test_chunks_equal_all_at_once(
    tiny_model: Callable[..., Any], small_chunks: None, packed: bool, adapter: bool
) -> None:
    model = tiny_model()
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    assert can_pack(model)
    batch = collate(SEQUENCES, 0, packed=packed)
    whole, targets, row = answer_logits(model, batch)
    chunked, *rest = chunked_logits(model, batch)
    assert isinstance(chunked, ChunkedLogits)
    assert torch.equal(rest[0], targets)
    assert torch.equal(rest[1], row)
    torch.testing.assert_close(chunked.head(chunked.states), whole)


def test_an_adapter_whose_base_is_held_in_bfloat16(tiny_model: Callable[..., Any], small_chunks: None) -> None:
    """Such a model runs under autocast alone, which a wrapper sets: so does the trial."""
    base = tiny_model()
    hold_in_bf16(base)
    model = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    model.forward = torch.autocast("cpu", torch.bfloat16)(model.forward)
    batch = collate(SEQUENCES, 0, packed=True)
    whole = answer_logits(model, batch)[0]
    chunked, *_ = chunked_logits(model, batch)
    assert isinstance(chunked, ChunkedLogits)
    assert torch.equal(chunked.head(chunked.states).to(whole.dtype), whole)


def test_few_answer_tokens_are_not_cut_up(tiny_model: Callable[..., Any]) -> None:
    assert isinstance(chunked_logits(tiny_model(), collate(SEQUENCES, 0))[0], torch.Tensor)
