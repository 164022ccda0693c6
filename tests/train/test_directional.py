"""Full tuning along the contrast's directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from letheon.train import UnlearnConfig
from letheon.train.contrast import Moments, layer_directions
from letheon.train.directional import SCALE, DirectionalAdamW, directional_layers
from letheon.train.prepare import Prepared


def test_it_is_an_adapter_with_a_fixed_a() -> None:
    """W + scale · B A with AdamW on B, step for step."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 7, dtype=torch.float64))
    start, rows = weight.detach().clone(), torch.randn(2, 7, dtype=torch.float64)
    b = nn.Parameter(torch.zeros(5, 2, dtype=torch.float64))
    optimizer = DirectionalAdamW({weight: rows}, lr=0.1)
    reference = torch.optim.AdamW([b], lr=0.1, weight_decay=0.0)
    for _ in range(6):
        inputs = torch.randn(4, 7, dtype=torch.float64)
        for own, one in ((weight, optimizer), (start + SCALE * b @ rows, reference)):
            one.zero_grad()
            (inputs @ own.T).tanh().square().sum().backward()
            one.step()
        # The chain rule gives B's gradient the factor `scale`, which Adam's own scale takes out again.
        torch.testing.assert_close(weight.detach(), (start + SCALE * b @ rows).detach(), rtol=1e-6, atol=1e-6)


def test_what_is_orthogonal_to_the_directions_never_moves() -> None:
    weight = nn.Parameter(torch.zeros(3, 4))
    optimizer = DirectionalAdamW({weight: torch.eye(4)[:2]}, lr=0.1)
    weight.sum().backward()
    optimizer.step()
    assert bool((weight[:, :2] != 0).all())
    assert not weight[:, 2:].any()


def test_a_learning_rate_of_zero_and_no_gradient_move_nothing() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    optimizer = DirectionalAdamW({weight: torch.eye(4)[:2]}, lr=0.0)
    optimizer.step()
    weight.sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    assert torch.equal(weight.detach(), torch.ones(3, 4))
    assert weight.grad is None


def test_its_moments_are_small_and_are_saved() -> None:
    weight = nn.Parameter(torch.ones(3, 4))
    optimizer = DirectionalAdamW({weight: torch.eye(4)[:2]}, lr=0.1)
    weight.sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert state["state"][0]["exp_avg"].shape == (3, 2)
    other = DirectionalAdamW({nn.Parameter(torch.ones(3, 4)): torch.eye(4)[:2]}, lr=0.1)
    other.load_state_dict(state)
    assert torch.equal(other.state_dict()["state"][0]["exp_avg"], state["state"][0]["exp_avg"])


def test_it_has_the_settings_of_adam() -> None:
    args = UnlearnConfig(learning_rate=0.3, adam_beta1=0.5, adam_beta2=0.6, adam_epsilon=1e-3)
    optimizer = Prepared(directions={nn.Parameter(torch.ones(3, 4)): torch.eye(4)[:2]}).optimizer(args)
    assert optimizer is not None
    assert {name: optimizer.defaults[name] for name in ("lr", "betas", "eps", "weight_decay")} == {
        "lr": 0.3,
        "betas": (0.5, 0.6),
        "eps": 1e-3,
        "weight_decay": 0.0,
    }


def test_directions_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"directions \(2, 3\) do not fit a weight \(3, 4\)"):
        DirectionalAdamW({nn.Parameter(torch.ones(3, 4)): torch.ones(2, 3)}, lr=0.1)


def test_layers_are_the_narrow_linear_ones(tiny_model: Callable[..., Any]) -> None:
    names = {name.split(".")[-1] for name in directional_layers(tiny_model(tie_word_embeddings=False))}
    assert names == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}


def test_layers_that_read_the_same_input_share_directions() -> None:
    torch.manual_seed(0)
    layers = {"q": nn.Linear(6, 3), "k": nn.Linear(6, 2)}
    moments = []
    for _ in range(2):
        one = Moments(layers)
        hidden = torch.randn(1, 9, 6)
        with one.watching({"predictors": torch.arange(9)}):
            layers["q"](hidden)
            layers["k"](hidden)
        moments.append(one)
    found = layer_directions(layers, *moments, ranks={"q": 2, "k": 2})
    assert found["q"].shape == (2, 6)
    assert found["k"] is found["q"]
    # Another rank is another problem.
    assert layer_directions(layers, *moments, ranks={"q": 2, "k": 1})["k"].shape == (1, 6)
