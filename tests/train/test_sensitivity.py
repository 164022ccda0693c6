"""Gradients that spare what normal answers are sensitive to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from letheon.chat import Encoded
from letheon.forward import answer_logits, collate
from letheon.train import sensitivity as sensitivity_module
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


def measured(model: Any, sequences: list[Encoded], **options: Any) -> Sensitivity:
    layers = {"up": model.model.layers[0].mlp.up_proj}
    given = {"damping": 0.1, "pad_token_id": 0, "batch_size": 2, "seed": 0, **options}
    return measure_sensitivity(model, layers, sequences, **given)["up"]


def test_it_is_of_the_drawn_token_where_it_is_predicted(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layer feels it at the places before, too: attention has read them."""
    monkeypatch.setattr(sensitivity_module, "_drawn", lambda logits, draw: logits.argmin(dim=1))
    model, kept = tiny_model(), []
    found = measured(model, [Encoded([5, 6, 7, 8], [False, False, False, True])])
    layer = model.model.layers[0].mlp.up_proj

    def keep(module: Any, inputs: Any, output: torch.Tensor) -> None:
        output.retain_grad()
        kept.append(output)

    handle = layer.register_forward_hook(keep)
    logits = model(torch.tensor([[5, 6, 7]])).logits[0, -1]
    handle.remove()
    torch.nn.functional.cross_entropy(logits[None], logits.argmin()[None]).backward()
    gradient = kept[0].grad[0]
    assert gradient[:2].any()
    felt = torch.randn(gradient.size(1), 2)
    torch.testing.assert_close(found.spare(felt), Sensitivity(gradient[2:], 0.1).spare(felt), rtol=1e-4, atol=1e-5)


def test_what_was_answered_does_not_matter(tiny_model: Callable[..., Any]) -> None:
    model, gradient = tiny_model(), torch.ones(64, 1)
    spared = [
        measured(model, [Encoded([5, 6, 7, last], [False, False, False, True])]).spare(gradient) for last in (8, 9)
    ]
    assert torch.equal(*spared)


def test_a_few_spread_sequences_and_positions_are_looked_at(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensitivity_module, "SEQUENCES", 4)
    monkeypatch.setattr(sensitivity_module, "POSITIONS", 4)
    model, gradient = tiny_model(), torch.ones(64, 1)
    many = [Encoded([5, 6, 20 + n, 8, 9], [False, False, True, True, True]) for n in range(8)]
    found = measured(model, many)
    assert torch.equal(found.spare(gradient), measured(model, many[::2]).spare(gradient))
    # Of two batches, two positions each.
    assert len(found._felt) == 4
