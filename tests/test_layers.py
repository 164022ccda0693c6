"""Hidden states where answer tokens are predicted: those of the whole model, whatever of it has run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.checkpoint import checkpoint
from transformers import GemmaConfig, GemmaForCausalLM, GPT2Config, GPT2LMHeadModel

from letheon import forward
from letheon.chat import Encoded
from letheon.forward import answer_logits, answer_states, can_pack, chunked_logits, collate
from letheon.layers import decoder_layers, states_into
from letheon.objective import ChunkedLogits
from letheon.prefix import FrozenPrefix, frozen_prefix
from letheon.store import Store

SEQUENCES = [
    Encoded([1, 2, 3, 4, 5], [False, False, True, True, True]),
    Encoded([1, 2, 3, 6], [False, False, True, True]),
    Encoded([7, 8, 9, 10, 11, 12, 13], [False, False, True, False, False, True, True]),
]
READ = 1
"""The layer whose states are read, of four."""


def alone(model: Any) -> torch.Tensor:
    """Each sequence by itself, through all of the model: what leaves the layer where a token is predicted."""
    found = []
    for sequence in SEQUENCES:
        hidden = model(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states[READ + 1][0]
        found += [hidden[place - 1] for place, answer in enumerate(sequence.answer_mask) if answer]
    return torch.stack(found)


def adapted(model: Any) -> Any:
    config = LoraConfig(r=2, target_modules=["q_proj", "up_proj"], layers_to_transform=[1], init_lora_weights=False)
    return get_peft_model(model, config)


def gradients(model: Any, states: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    states.float().square().mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("with_logits", [False, True], ids=["alone", "with logits"])
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("adapter", [False, True], ids=["plain", "adapter"])
def test_states_and_gradients_are_those_of_the_whole_model(
    tiny_model: Callable[..., Any], adapter: bool, packed: bool, with_logits: bool
) -> None:
    model = tiny_model(num_hidden_layers=4)
    model = adapted(model) if adapter else model
    assert can_pack(model)
    wanted = alone(model)
    batch = collate(SEQUENCES, 0, packed=packed)
    found, logits = answer_states(model, batch, READ, with_logits=with_logits)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    expected, got = gradients(model, wanted), gradients(model, found)
    assert expected.keys() == got.keys() != set()
    for name, gradient in expected.items():
        torch.testing.assert_close(got[name], gradient, rtol=1e-3, atol=1e-6)
    if with_logits:
        assert logits is not None
        assert isinstance(logits, torch.Tensor)
        torch.testing.assert_close(logits, answer_logits(model, batch)[0])
    else:
        assert logits is None
        # Nothing above has a say.
        assert not any(f"layers.{n}." in name for name in got for n in (2, 3))


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
def test_from_the_frozen_prefix_on(tiny_model: Callable[..., Any], packed: bool, autocast: bool) -> None:
    model = adapted(tiny_model(num_hidden_layers=4))
    can_pack(model)
    prefix = frozen_prefix(model, 0, Store())
    assert prefix is not None
    limits = {"rtol": 2e-2, "atol": 2e-2} if autocast else {"rtol": 1e-5, "atol": 1e-5}
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        plain = answer_states(model, collate(SEQUENCES, 0, packed=packed), READ)[0]
        expected = gradients(model, plain)
        # The first time the lower layers run, later they do not.
        for _ in range(2):
            batch = collate(SEQUENCES, 0, packed=packed, prefix=prefix)
            found = answer_states(model, batch, READ, prefix)[0]
            torch.testing.assert_close(found, plain, **limits)
            for name, gradient in gradients(model, found).items():
                torch.testing.assert_close(gradient, expected[name], **limits)


def test_only_what_is_needed_runs(tiny_model: Callable[..., Any]) -> None:
    model = adapted(tiny_model(num_hidden_layers=4))
    can_pack(model)
    prefix = frozen_prefix(model, 0, Store())
    ran: list[int] = []
    for number, layer in enumerate(decoder_layers(model)):
        layer.mlp.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.get_base_model().lm_head.register_forward_hook(lambda *_: ran.append(99))
    batch = collate(SEQUENCES, 0, packed=True, prefix=prefix)
    answer_states(model, batch, READ)
    assert ran == [0, 1]
    for _ in range(2):
        answer_states(model, batch, READ, prefix)
    assert ran == [0, 1, 0, 1, 1]
    # Afterwards the model is whole.
    answer_logits(model, batch)
    assert ran == [0, 1, 0, 1, 1, 0, 1, 2, 3, 99]


@pytest.mark.parametrize("with_logits", [False, True], ids=["alone", "with logits"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("skip", [False, True], ids=["whole", "prefix"])
def test_under_gradient_checkpointing(
    tiny_model: Callable[..., Any], reentrant: bool, with_logits: bool, skip: bool
) -> None:
    model = adapted(tiny_model(num_hidden_layers=4))
    can_pack(model)
    prefix: FrozenPrefix | None = frozen_prefix(model, 0, Store()) if skip else None
    model.train()
    batch = collate(SEQUENCES, 0, packed=True, prefix=prefix)
    plain = answer_states(model, batch, READ)[0]
    expected = gradients(model, plain)
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    for _ in range(2):
        found = answer_states(model, batch, READ, prefix, with_logits=with_logits)[0]
        torch.testing.assert_close(found, plain)
        got = gradients(model, found)
        assert got.keys() == expected.keys()
        for name, gradient in got.items():
            torch.testing.assert_close(gradient, expected[name])


def test_no_pass_ends_inside_a_checkpoint() -> None:
    """Layers of transformers before 5.23 are checkpointed together with their hooks."""
    ran: list[str] = []

    class Layer(torch.nn.Linear):
        gradient_checkpointing = True

        def __call__(self, *inputs: Any) -> Any:
            ran.append("checkpointed" if self.gradient_checkpointing else "plainly")
            run = super().__call__
            return checkpoint(run, *inputs, use_reentrant=False) if self.gradient_checkpointing else run(*inputs)

    layer, given = Layer(4, 4), torch.ones(1, 2, 4, requires_grad=True)
    for leave in (True, False):
        with states_into(layer, leave=leave) as states:
            layer(given)
        (gradient,) = torch.autograd.grad(states[0].square().sum(), given)
        torch.testing.assert_close(gradient, 2 * given)
    assert ran == ["plainly", "checkpointed"]


def test_prompt_and_padding_get_no_gradient(tiny_model: Callable[..., Any]) -> None:
    """Of what enters the layer above, only places that predict an answer token do."""
    model = tiny_model(num_hidden_layers=4)
    batch = collate(SEQUENCES, 0)
    with states_into(decoder_layers(model)[READ + 1], leave=True) as states:
        answer_logits(model, batch)
    (gradient,) = torch.autograd.grad(
        states[0].flatten(0, 1).index_select(0, batch["predictors"]).square().sum(), states[0]
    )
    reached = gradient.abs().sum(dim=2).flatten() > 0
    assert reached.nonzero()[:, 0].tolist() == batch["predictors"].tolist()
    # The first sequence has two tokens of padding and one of prompt before the token that predicts its answer.
    assert reached[:3].tolist() == [False, False, False]
    assert bool(reached[3])


def test_with_chunked_logits(tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether logits can be chunked is tried out by a pass of its own, whose states are not those of the batch."""
    monkeypatch.setattr(forward, "CHUNK", 2)
    model = tiny_model(num_hidden_layers=4)
    batch = collate(SEQUENCES, 0)
    found, logits = answer_states(model, batch, READ, with_logits=True)
    assert isinstance(logits, ChunkedLogits)
    torch.testing.assert_close(found, alone(model), rtol=1e-5, atol=1e-5)
    again = chunked_logits(model, batch)[0]
    assert isinstance(again, ChunkedLogits)
    torch.testing.assert_close(logits.states, again.states)


def test_a_model_in_a_wrapper_that_keeps_processes_in_step_runs_whole(tiny_model: Callable[..., Any]) -> None:
    class Wrapper(torch.nn.Module):
        ended = 0

        def __init__(self, module: Any):
            super().__init__()
            self.module = module

        def forward(self, **named: Any) -> Any:
            output = self.module(**named)
            self.ended += 1
            return output

    model = tiny_model(num_hidden_layers=4)
    wrapper = Wrapper(model)
    found = answer_states(wrapper, collate(SEQUENCES, 0), READ)[0]
    torch.testing.assert_close(found, alone(model), rtol=1e-5, atol=1e-5)
    assert wrapper.ended == 1


def test_other_architectures() -> None:
    # GPT-2's layers are called with their states by place, Gemma scales its embeddings.
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=4, n_head=2, bos_token_id=0, eos_token_id=1))
    gemma = GemmaForCausalLM(
        GemmaConfig(
            vocab_size=64,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=4,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
        )
    )
    for model in (gpt2.eval(), gemma.eval()):
        batch = collate(SEQUENCES, 0, packed=can_pack(model))
        torch.testing.assert_close(answer_states(model, batch, READ)[0], alone(model), rtol=1e-4, atol=1e-4)
