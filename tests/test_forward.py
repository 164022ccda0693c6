"""Logits at answer positions: the right ones, and untouched by padding, prompt positions and batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from letheon import forward
from letheon.chat import Encoded
from letheon.forward import answer_logits, batches, can_pack, collate, hold_in_bf16, real_places

SEQUENCES = [
    Encoded([7, 8, 9, 10, 11], [False, False, False, True, True]),
    Encoded([20, 21, 22], [False, True, True]),
    # Several answers, and a token between them that is not one.
    Encoded([30, 31, 32, 33, 34, 35, 36], [False, False, True, False, False, True, True]),
]


def test_collate() -> None:
    batch = collate(SEQUENCES[:2], pad_token_id=99)
    assert batch["input_ids"].tolist() == [[7, 8, 9, 10, 11], [99, 99, 20, 21, 22]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4], [0, 0, 0, 1, 2]]
    assert batch["predictors"].tolist() == [2, 3, 7, 8]
    assert batch["targets"].tolist() == [10, 11, 21, 22]
    assert batch["row"].tolist() == [0, 0, 1, 1]


BRANCHING = [
    Encoded([1, 2, 3, 4, 5], [False, False, True, True, True]),
    # The same question with another answer, the same beginning of it, and all of it again.
    Encoded([1, 2, 3, 6], [False, False, True, True]),
    Encoded([1, 2, 7, 4, 5], [False, True, False, True, True]),
    Encoded([1, 2, 3, 4, 5], [False, False, True, True, True]),
    Encoded([4, 5], [False, True]),
]


def test_batches_are_of_like_length_and_have_room_for_their_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "CHUNK", 8)
    sequences = [Encoded([1] * size, [False] + [True] * (size - 1)) for size in (2, 3, 9, 4, 2, 2, 2)]
    # The longest alone, though it has no room; four of the shortest would have it.
    assert list(batches(sequences, 3)) == [[2], [3, 1], [0, 4, 5], [6]]
    # Where answers are short long prompts need none.
    assert list(batches([Encoded([1] * 30, [False] * 29 + [True])] * 4, 8)) == [[0, 1, 2, 3]]


def test_pack_holds_each_beginning_once() -> None:
    batch = collate(BRANCHING, 0, packed=True)
    # No last token: it predicts nothing. The row is filled up to a round size.
    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 7, 4, 4, *[1] * 9]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 2, 3, 0, *[0] * 9]]
    assert real_places(batch).tolist() == list(range(7))
    assert batch["attention_mask"].tolist() == [
        [[[0, 1, 2, 3], [0, 1, 2, -1], [0, 1, 4, 5], [0, 1, 2, 3], [6, -1, -1, -1]]]
    ]
    assert batch["predictors"].tolist() == [1, 2, 3, 1, 2, 0, 4, 5, 1, 2, 3, 6]
    assert batch["targets"].tolist() == [3, 4, 5, 3, 6, 2, 4, 5, 3, 4, 5, 5]
    assert batch["row"].tolist() == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3, 4]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("adapter", [False, True], ids=["plain", "adapter"])
def test_packed_equals_padded_with_gradients(
    tiny_model: Callable[..., Any], dtype: torch.dtype, adapter: bool
) -> None:
    model = tiny_model()
    if adapter:
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    model = model.to(dtype)
    assert can_pack(model)
    found = []
    for packed in (False, True):
        batch = collate(BRANCHING + SEQUENCES, 0, packed=packed)
        assert (len(batch["input_ids"]) == 1) == packed
        logits, targets, row = answer_logits(model, batch)
        torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        gradient = torch.cat([p.grad.flatten().float() for p in model.parameters() if p.grad is not None])
        found.append((logits.float(), targets, row, gradient))
        model.zero_grad()
    one, other = found
    assert torch.equal(one[1], other[1])
    assert torch.equal(one[2], other[2])
    exact = dtype == torch.float32
    assert (other[0] - one[0]).norm() <= (1e-5 if exact else 2e-2) * one[0].norm()
    assert (other[3] - one[3]).norm() <= (1e-4 if exact else 5e-2) * one[3].norm()


def other(kind: str) -> Any:
    import transformers as t

    small = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "gpt2":
            return t.GPT2LMHeadModel(t.GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2))
        if kind == "bloom":
            return t.BloomForCausalLM(t.BloomConfig(vocab_size=64, hidden_size=16, n_layer=1, n_head=2))
        if kind == "mamba":
            return t.MambaForCausalLM(t.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1))
        more = {"intermediate_size": 32, "num_key_value_heads": 2}
        if kind == "mistral":
            return t.MistralForCausalLM(t.MistralConfig(**small, **more, sliding_window=4))
        return t.Qwen2ForCausalLM(t.Qwen2Config(**small, **more))


@pytest.mark.parametrize(
    ("kind", "packs"), [("gpt2", True), ("qwen2", True), ("bloom", False), ("mamba", False), ("mistral", False)]
)
def test_which_models_pack(kind: str, packs: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Those that do not are padded, which a line says; all get the logits of each sequence alone."""
    model = other(kind).eval()
    assert can_pack(model) == packs
    assert ("they are padded" in caplog.text) != packs
    if kind == "mamba":
        # A recurrence reads padding as well: nothing here can help that.
        return
    with torch.no_grad():
        logits, _, row = answer_logits(model, collate(BRANCHING, 0, packed=packs))
    for number, sequence in enumerate(BRANCHING):
        torch.testing.assert_close(logits[row == number], naive(model, sequence)[0], rtol=1e-4, atol=1e-5)


def naive(model: Any, sequence: Encoded) -> tuple[torch.Tensor, list[int]]:
    """One sequence, no padding, all logits."""
    with torch.no_grad():
        logits = model(torch.tensor([sequence.ids])).logits[0]
    at = [t for t, answer in enumerate(sequence.answer_mask) if answer]
    return logits[[t - 1 for t in at]], [sequence.ids[t] for t in at]


@pytest.mark.parametrize("keeps", [True, False], ids=["leaves prompts out", "computes all"])
@pytest.mark.parametrize("order", [[0], [1], [2], [0, 1], [2, 1, 0]])
def test_logits_are_those_of_each_sequence_alone(
    tiny_model: Callable[..., Any], order: list[int], keeps: bool
) -> None:
    model = tiny_model()
    if not keeps:
        forward = model.forward
        model.forward = lambda input_ids, attention_mask, position_ids, use_cache: forward(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, use_cache=use_cache
        )
    with torch.no_grad():
        logits, targets, row = answer_logits(model, collate([SEQUENCES[n] for n in order], 0))
    for place, number in enumerate(order):
        wanted, tokens = naive(tiny_model(), SEQUENCES[number])
        assert targets[row == place].tolist() == tokens
        torch.testing.assert_close(logits[row == place], wanted, rtol=1e-4, atol=1e-5)


def test_gpt2_learned_positions_do_not_count_the_padding() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=1, n_head=2, initializer_range=0.3)
        model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        logits, _, row = answer_logits(model, collate(SEQUENCES, 0))
    for number, sequence in enumerate(SEQUENCES):
        torch.testing.assert_close(logits[row == number], naive(model, sequence)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("more", [1, 7])
def test_more_padding_and_another_padding_token_change_nothing(tiny_model: Callable[..., Any], more: int) -> None:
    model = tiny_model()
    batch = collate(SEQUENCES, 0)
    padded = {
        key: torch.cat([torch.full((3, more), 77 if key == "input_ids" else 0).to(value.dtype), value], dim=1)
        for key, value in batch.items()
        if value.dim() == 2
    }
    length = batch["input_ids"].size(1)
    shifted = batch["predictors"] + more * (batch["predictors"] // length + 1)
    padded = {**batch, **padded, "predictors": shifted}
    padded["input_ids"][padded["attention_mask"] == 0] = 77
    with torch.no_grad():
        for a, b in zip(answer_logits(model, batch), answer_logits(model, padded), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_padding_has_no_gradient(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(tie_word_embeddings=False)
    pad = 77
    assert all(pad not in sequence.ids for sequence in SEQUENCES)
    logits, targets, _ = answer_logits(model, collate(SEQUENCES, pad))
    torch.nn.functional.cross_entropy(logits, targets).backward()
    gradient = model.get_input_embeddings().weight.grad
    assert not gradient[pad].any()
    assert bool(gradient[7].any())
    # The last token of a sequence predicts nothing; one before an answer does.
    assert not gradient[36].any()
    assert bool(gradient[35].any())


def test_no_logit_at_a_prompt_position_is_read(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    batch = collate(SEQUENCES, 0)
    with torch.no_grad():
        wanted, targets, _ = answer_logits(model, batch)

    before_answer = torch.zeros_like(batch["input_ids"], dtype=torch.bool)
    before_answer.view(-1)[batch["predictors"]] = True

    def spoil(module: Any, given: Any, logits: torch.Tensor) -> torch.Tensor:
        return logits.masked_fill(~before_answer[:, -logits.size(1) :, None], float("nan"))

    handle = model.lm_head.register_forward_hook(spoil)
    logits, _, _ = answer_logits(model, batch)
    handle.remove()
    assert torch.equal(logits, wanted)
    torch.nn.functional.cross_entropy(logits, targets).backward()


def test_through_an_adapter(tiny_model: Callable[..., Any]) -> None:
    from peft import LoraConfig, get_peft_model

    batch = collate(SEQUENCES, 0)
    with torch.no_grad():
        wanted = answer_logits(tiny_model(), batch)[0]
        wrapped = get_peft_model(tiny_model(), LoraConfig(r=2, target_modules=["q_proj"])).eval()
        torch.testing.assert_close(answer_logits(wrapped, batch)[0], wanted)


@pytest.mark.parametrize("tied", [True, False])
def test_a_base_held_in_bf16_is_the_same_under_autocast(tiny_model: Callable[..., Any], tied: bool) -> None:
    from peft import LoraConfig, get_peft_model

    found = []
    for held in (False, True):
        model = tiny_model(tie_word_embeddings=tied)
        if held:
            hold_in_bf16(model)
            assert model.get_input_embeddings().weight.dtype == torch.float32
            assert model.lm_head.weight.dtype == torch.bfloat16
        torch.manual_seed(0)
        adapter = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
        model = get_peft_model(model, adapter)
        with torch.autocast("cpu", torch.bfloat16):
            logits, targets, _ = answer_logits(model, collate(BRANCHING, 0, packed=can_pack(model)))
            torch.nn.functional.cross_entropy(logits.float(), targets).backward()
        found.append([logits, *(p.grad for p in model.parameters() if p.grad is not None and p.size(-1) != 128)])
    for one, other in zip(*found, strict=False):
        assert torch.equal(one, other)


def test_a_model_that_packs_is_otherwise_the_same(tiny_model: Callable[..., Any]) -> None:
    """It generates as before, and its attention can be asked for by name as before."""
    ids = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10]])
    given = {"input_ids": ids, "attention_mask": (ids > 0).long(), "max_new_tokens": 6, "do_sample": False}
    model, plain = tiny_model(), tiny_model()
    assert can_pack(model)
    torch.testing.assert_close(model.generate(**given), plain.generate(**given))
    torch.testing.assert_close(model(ids).logits, plain(ids).logits)
    assert "_attn_implementation" not in model.config.to_dict()


def test_another_attention_is_left_alone(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    model.set_attn_implementation("eager")
    assert not can_pack(model)
    assert model.config._attn_implementation == "eager"
