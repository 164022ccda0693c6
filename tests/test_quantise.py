from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from letheon.quantise import linear_share, linear_weights, round_absmax, rounded, roundings


def naive(weight: torch.Tensor, bits: int, group: int | None) -> torch.Tensor:
    levels = 2 ** (bits - 1) - 1
    out = weight.clone()
    width = weight.size(1)
    size = group or width
    for row in out:
        for start in range(0, width, size):
            part = row[start : start + size]
            scale = float(part.abs().max()) / levels
            for place, value in enumerate(part.tolist()):
                part[place] = round(value / scale) * scale if scale else 0.0
    return out


def test_by_hand() -> None:
    # Scale 7/7 = 1: to whole numbers, ties to the even one.
    weight = torch.tensor([[7.0, 2.4, -2.6, 0.5, 1.5]])
    torch.testing.assert_close(round_absmax(weight, 4), torch.tensor([[7.0, 2.0, -3.0, 0.0, 2.0]]))


@pytest.mark.parametrize(
    ("bits", "group", "shape"), [(4, 8, (3, 20)), (8, None, (5, 7)), (4, 64, (2, 40)), (2, 3, (1, 7))]
)
def test_naive_rounding(bits: int, group: int | None, shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(round_absmax(weight, bits, group), naive(weight, bits, group))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_weight_moves_by_more_than_half_a_step(dtype: torch.dtype) -> None:
    weight = torch.randn(6, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    found = round_absmax(weight, 4, 32)
    assert (found.dtype, found.shape) == (dtype, weight.shape)
    step = weight.float().unflatten(1, (2, 32)).abs().amax(dim=2) / 7
    moved = (found.float() - weight.float()).abs().unflatten(1, (2, 32)).amax(dim=2)
    # bfloat16 rounds the result once more.
    assert bool((moved <= step / 2 * (1.001 if dtype == torch.float32 else 1.1)).all())


def test_what_is_rounded_stays_and_zeros_are_zeros() -> None:
    weight = torch.randn(4, 64, generator=torch.Generator().manual_seed(2))
    weight[1, 32:] = 0
    once = round_absmax(weight, 4, 32)
    torch.testing.assert_close(round_absmax(once, 4, 32), once)
    assert bool((once[1, 32:] == 0).all())


def test_more_bits_move_less() -> None:
    weight = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    errors = [float((round_absmax(weight, bits, 32) - weight).norm()) for bits in (3, 4, 6, 8)]
    assert errors == sorted(errors, reverse=True)


def test_the_head_is_left_and_all_comes_back(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    weights = linear_weights(model)
    assert len(weights) == 2 * 7
    assert all(weight is not model.lm_head.weight for weight in weights)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with rounded(dict.fromkeys(weights, partial(round_absmax, bits=4))):
        changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {n for n in before if n.endswith("_proj.weight")}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_layers_that_hold_their_weights_the_other_way_round(tiny_model: Callable[..., Any]) -> None:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, **sizes))
    weights = linear_weights(model)
    assert len(weights) == 2 * 4
    assert set(weights.values()) == {0}
    # Biases and norms are all else.
    assert 0.9 < linear_share(model) < 1
    weight = model.transformer.h[0].mlp.c_fc.weight
    # A scale for each of the outputs, which are its columns.
    wanted = naive(weight.detach().T, 4, None).T
    assert wanted.shape == (32, 128)
    with rounded(roundings(weights, partial(round_absmax, bits=4))):
        torch.testing.assert_close(weight.detach(), wanted)


def test_weights_that_are_no_linear_layers_count_against_the_share(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    whole = linear_share(model)
    linear = sum(weight.numel() for weight in linear_weights(model))
    assert whole == pytest.approx(linear / (linear + 5 * 32))
    # As mixtures hold their experts: in one tensor.
    model.experts = torch.nn.Parameter(torch.zeros(3, linear))
    assert linear_share(model) == pytest.approx(linear / (4 * linear + 5 * 32))
