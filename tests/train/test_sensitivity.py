"""Gradients that spare what normal answers are sensitive to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from letheon.chat import Encoded
from letheon.forward import answer_logits, collate
from letheon.train.sensitivity import Sensitivity, measure_sensitivity


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3, 7), (9, 5), (1, 4)])
def test_it_is_the_damped_inverse_of_the_second_moment(shape: tuple[int, int], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    rows, gradient = torch.randn(shape), torch.randn(shape[1], 3).to(dtype)
    moment = rows.T @ rows / len(rows)
    damped = moment / moment.diagonal().mean() + 0.3 * torch.eye(shape[1])
    expected = 0.3 * torch.linalg.solve(damped, gradient.float())
    found = Sensitivity(rows, 0.3).spare(gradient)
    assert found.dtype == dtype
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-5
    torch.testing.assert_close(found.float(), expected, rtol=tolerance, atol=tolerance)


def test_what_is_felt_shrinks_and_what_is_not_stays() -> None:
    spare = Sensitivity(torch.tensor([[2.0, 0.0, 0.0]]), 0.5).spare
    # The only eigenvalue that is not zero is three times the mean one.
    torch.testing.assert_close(spare(torch.eye(3)), torch.diag(torch.tensor([0.5 / 3.5, 1.0, 1.0])))


def test_much_damping_and_no_sensitivity_change_nothing() -> None:
    gradient = torch.randn(4, 2)
    torch.testing.assert_close(Sensitivity(torch.randn(3, 4), 1e8).spare(gradient), gradient)
    assert torch.equal(Sensitivity(torch.zeros(3, 4), 0.1).spare(gradient), gradient)


def test_a_spared_step_changes_normal_answers_less(tiny_model: Callable[..., Any]) -> None:
    """The point of it: of two steps of equal length, on dialogues that it was not measured on as well."""
    torch.manual_seed(0)
    model = tiny_model()
    draw = torch.Generator().manual_seed(1)
    sequences = [
        Encoded(torch.randint(3, 90, (12,), generator=draw).tolist(), [False] * 4 + [True] * 8) for _ in range(40)
    ]
    layer = model.model.layers[0].mlp.up_proj
    found = measure_sensitivity(
        model, {"up": layer}, sequences[:30], damping=0.1, pad_token_id=0, batch_size=8, seed=0
    )
    assert layer.weight.grad is None
    batch = collate(sequences[30:], 0)

    def divergence(step: torch.Tensor) -> float:
        with torch.no_grad():
            before = answer_logits(model, batch)[0].log_softmax(1)
            layer.weight.add_(step, alpha=float(1 / step.norm()))
            after = answer_logits(model, batch)[0].log_softmax(1)
            layer.weight.add_(step, alpha=-float(1 / step.norm()))
        return float((before.exp() * (before - after)).sum(1).mean())

    steps = [torch.randn(layer.weight.shape, generator=draw) for _ in range(5)]
    plain = sum(divergence(step) for step in steps)
    spared = sum(divergence(found["up"].spare(step)) for step in steps)
    assert spared < 0.7 * plain


def test_the_same_seed_measures_the_same(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    sequences = [Encoded([5, 6, 7, 8 + n], [False, False, True, True]) for n in range(6)]
    layers = {"q": model.model.layers[0].self_attn.q_proj}
    first, second, other = (
        measure_sensitivity(model, layers, sequences, damping=0.1, pad_token_id=0, batch_size=4, seed=seed)["q"]
        for seed in (0, 0, 1)
    )
    gradient = torch.ones(layers["q"].weight.shape)
    assert torch.equal(first.spare(gradient), second.spare(gradient))
    assert not torch.equal(first.spare(gradient), other.spare(gradient))
