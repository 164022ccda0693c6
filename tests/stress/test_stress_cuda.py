"""Attacks on a GPU find what they find on a CPU."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from given import given_for

from letheon.errors import missing_modules
from letheon.models import load_model
from letheon.stress.attack import Found
from letheon.stress.make import ATTACKS

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("attack", [name for name in ATTACKS if name != "sample"])
def test_the_same_scores_as_on_a_cpu(talk: Any, talk_turns: Any, tiny_tokenizer: Any, attack: str) -> None:
    # Draws are those of each device's own generator.
    on_gpu = load_model("model").eval()
    before = {name: value.clone() for name, value in on_gpu.state_dict().items()}
    given = given_for(tiny_tokenizer, talk_turns, max_new_tokens=16)
    on_gpu.config.max_position_embeddings = given.context

    def means(model: Any) -> dict[Any, float]:
        found = [one for one in ATTACKS[attack](model, given, lambda done, total: None) if isinstance(one, Found)]
        return {(one.variant, one.metric, one.at): sum(one.scores) / len(one.scores) for one in found}

    there, here = means(on_gpu), means(copy.deepcopy(on_gpu).cpu())
    assert all(value.is_cuda and torch.equal(value, before[name]) for name, value in on_gpu.state_dict().items())
    # A CPU has none, and without bitsandbytes nor has a GPU.
    four_bits = there.pop(("NF4", "extraction_strength", None), None)
    assert four_bits is None or not missing_modules("quantize")
    # What lies near a tie may fall to either side of it.
    assert there == pytest.approx(here, abs=0.1)


def test_four_bits_of_bitsandbytes_are_among_the_schemes(talk: Any, talk_turns: Any, tiny_tokenizer: Any) -> None:
    if missing_modules("quantize"):
        pytest.skip("needs bitsandbytes")
    given = given_for(tiny_tokenizer, talk_turns)
    found = list(ATTACKS["quantise"](load_model("model").eval(), given, lambda done, total: None))
    assert [one.variant for one in found if isinstance(one, Found)][-1] == "NF4"


def test_answers_are_drawn_there(talk: Any, talk_turns: Any, tiny_tokenizer: Any) -> None:
    state, gpu_state = torch.get_rng_state(), torch.cuda.get_rng_state()
    given = given_for(tiny_tokenizer, talk_turns, max_new_tokens=16)
    found = list(ATTACKS["sample"](load_model("model").eval(), given, lambda done, total: None))
    assert sum(found[1].scores) > 0  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.cuda.get_rng_state(), gpu_state)
