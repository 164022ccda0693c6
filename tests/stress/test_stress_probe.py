from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from given import dialogue, given_for

from letheon.layers import decoder_layers
from letheon.stress.attack import Found, extraction
from letheon.stress.probe import head_on, probe, ridge, states_of
from letheon.stress.records import NotRun


def silent(done: int, total: int) -> None:
    pass


def test_the_head_reads_a_layer_as_by_hand(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    sequence = given_for(tiny_tokenizer).sequences[0]
    ids = torch.tensor([sequence.ids])
    with torch.no_grad():
        hidden = model(input_ids=ids, output_hidden_states=True).hidden_states
        ((states,),) = states_of(model, [sequence], decoder_layers(model)[:1])
        torch.testing.assert_close(states, hidden[1][0])
        expected = model.lm_head(model.model.norm(hidden[1]))[0]
        torch.testing.assert_close(head_on(model, decoder_layers(model), states, sequence), expected)


def test_the_last_layer_says_what_the_model_says(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model, given = tiny_model(num_hidden_layers=3), given_for(tiny_tokenizer)
    found = [one for one in probe(model, given, silent) if isinstance(one, Found)]
    assert [(one.variant, one.at) for one in found] == [
        (variant, layer) for layer in range(3) for variant in ("logit lens", "linear probe")
    ]
    assert found[-2].scores == extraction(model, given.sequences, 4)
    assert all(one.along == "layer" for one in found)


def test_the_token_that_ends_a_turn_is_not_read(talk_source: Any, tiny_tokenizer: Any) -> None:
    from letheon.models import load_model

    # By heart, but for where it ends; and but for its last letter, after which it ends as it should.
    turns = [dialogue("f", "Phone of Bob?", answer).last_turn for answer in ("Call 030-11", "Call 030-11x")]
    model, given = load_model(str(talk_source / "model")).eval(), given_for(tiny_tokenizer, turns)
    last = [one for one in probe(model, given, silent) if isinstance(one, Found) and one.variant == "logit lens"][-1]
    assert last.scores == [1, 0]


def test_of_many_layers_some_are_read(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model(num_hidden_layers=19)
    layers = {one.at for one in probe(model, given_for(tiny_tokenizer), silent) if isinstance(one, Found)}
    assert len(layers) == 8
    assert max(layers) == 18


def test_ridge_finds_an_affine_map() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator) * torch.tensor([1, 10, 0.1, 1, 1, 100.0])
    matrix, offset = torch.randn(6, 3, generator=generator), torch.randn(3, generator=generator)
    found, shift = ridge(x, x @ matrix + offset, 1e-9)
    torch.testing.assert_close(found, matrix, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shift, offset, atol=1e-2, rtol=1e-3)


def test_ridge_is_the_least_of_its_objective() -> None:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 4, generator=generator).double(), torch.randn(30, 2, generator=generator).double()
    matrix, offset = (value.clone().requires_grad_(True) for value in ridge(x, y, 0.3))
    loss = (x @ matrix + offset - y).square().sum() + 30 * 0.3 * (x.std(dim=0)[:, None] * matrix).square().sum()
    loss.backward()
    assert matrix.grad is not None
    assert offset.grad is not None
    assert float(matrix.grad.abs().max()) < 1e-8
    assert float(offset.grad.abs().max()) < 1e-8


def test_states_that_a_linear_map_hides_are_read(talk: Any, talk_turns: Any, tiny_tokenizer: Any) -> None:
    from letheon.models import load_model

    # The last layer's states are turned round before the head: the head says nothing, a linear map undoes it.
    model = load_model("model").eval()
    plain = extraction(model, (given := given_for(tiny_tokenizer, talk_turns)).sequences, 4)
    assert sum(plain) > 4
    layer = decoder_layers(model)[0]
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0))).Q
    layer.register_forward_hook(lambda module, inputs, output: output @ turn)
    decoder_layers(model)[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] @ turn.T, *inputs[1:]))
    torch.testing.assert_close(extraction(model, given.sequences, 4), plain)
    found = {(o.variant, o.at): sum(o.scores) for o in probe(model, given, silent) if isinstance(o, Found)}
    assert found["linear probe", 0] >= found["logit lens", 0]


def test_a_model_that_does_more_after_its_layers_is_left(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model()
    monkeypatch.setattr("letheon.stress.probe.head_on", lambda *_: torch.zeros(1))
    (found,) = probe(model, given_for(tiny_tokenizer), silent)
    assert found == NotRun(attack="probe", why="LlamaForCausalLM does more after its last layer than norm and head")
