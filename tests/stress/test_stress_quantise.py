from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from given import given_for
from transformers import GPT2Config, GPT2LMHeadModel

from letheon.quantise import linear_weights
from letheon.stress.attack import Found, extraction
from letheon.stress.make import attack_models
from letheon.stress.quantise import quantise
from letheon.stress.records import NotRun


def silent(done: int, total: int) -> None:
    pass


def test_every_scheme_that_can_run_does(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    pytest.importorskip("gguf")
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = list(quantise(model, given_for(tiny_tokenizer), silent))
    assert [one.variant for one in found] == ["bf16", "int8", "int4", "GGUF Q4_0", "NF4"]
    (missing,) = [one for one in found if isinstance(one, NotRun)] or [None]
    assert missing is None or missing.variant == "NF4"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_gguf_is_written_and_read_again(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    gguf = pytest.importorskip("gguf")
    model = tiny_model()
    given = given_for(tiny_tokenizer)
    (found,) = [one for one in quantise(model, given, silent) if one.variant == "GGUF Q4_0"]
    assert isinstance(found, Found)
    from gguf.quants import dequantize, quantize

    kinds = gguf.GGMLQuantizationType
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2:
                kind = kinds.Q4_0 if "_proj" in name else kinds.Q8_0
                weight.copy_(torch.from_numpy(dequantize(quantize(weight.numpy(), kind), kind)))
    assert found.scores == extraction(model, given.sequences, 4)


def test_rows_that_fill_no_block_are_said(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    pytest.importorskip("gguf")
    model = tiny_model(hidden_size=48, intermediate_size=64)
    found = list(quantise(model, given_for(tiny_tokenizer), silent))
    (missing,) = [one for one in found if one.variant == "GGUF Q4_0"]
    assert isinstance(missing, NotRun)
    assert "multiple of 32" in missing.why


def test_where_most_weights_would_stay_it_is_said_and_the_gate_fails(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    def model() -> Any:
        found = tiny_model()
        linear = sum(weight.numel() for weight in linear_weights(found))
        # As mixtures hold their experts: in one tensor.
        found.experts = torch.nn.Parameter(torch.zeros(3, linear))
        return found

    found = attack_models({"before": model, "after": model}, given_for(tiny_tokenizer), ["quantise"])
    whys = {one.variant: one.why for one in found.not_run}
    assert list(whys) == ["int8", "int4", "GGUF Q4_0", "NF4"]
    assert all(why.startswith("only 25% of the weights") for why in whys.values())
    (gate,) = found.gates
    assert (gate.gate, gate.passed, gate.why) == ("stress.max_quantised", False, whys["int8"])


def test_layers_that_hold_their_weights_the_other_way_round(tiny_tokenizer: Any) -> None:
    pytest.importorskip("gguf")
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tiny_tokenizer), **sizes)).eval()
    found = list(quantise(model, given_for(tiny_tokenizer), silent))
    assert [one.variant for one in found if isinstance(one, Found)][:4] == ["bf16", "int8", "int4", "GGUF Q4_0"]


def test_without_the_package_it_is_said(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letheon.stress.quantise.missing_modules", lambda extra: [extra])
    found = {one.variant: one for one in quantise(tiny_model(), given_for(tiny_tokenizer), silent)}
    assert found["GGUF Q4_0"] == NotRun(
        attack="quantise", variant="GGUF Q4_0", why="it needs the extra 'demo': pip install 'letheon[demo]'"
    )
    assert isinstance(found["NF4"], NotRun)
