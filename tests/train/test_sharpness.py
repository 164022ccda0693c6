from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from letheon.objective import DPO, CrossEntropy, GradientAscent, Objective
from letheon.train import UnlearnConfig, UnlearnTrainer
from letheon.train.sharpness import gradient_of, uphill

Make = Callable[..., UnlearnTrainer]


def test_uphill_is_so_far_along_the_gradient_and_back_to_the_bit() -> None:
    parameters = [nn.Parameter(torch.tensor([1.0, 2.0])), nn.Parameter(torch.tensor([0.1]))]
    before = [p.detach().clone() for p in parameters]
    with uphill(parameters, [torch.tensor([3.0, 0.0]), torch.tensor([4.0])], rho=0.5):
        assert parameters[0].tolist() == pytest.approx([1.3, 2.0])
        assert parameters[1].tolist() == pytest.approx([0.5])
    assert all(torch.equal(p, value) for p, value in zip(parameters, before, strict=True))
    with uphill(parameters, [torch.zeros(2), torch.zeros(1)], rho=0.5):
        assert all(torch.equal(p, value) for p, value in zip(parameters, before, strict=True))


def test_weights_come_back_after_an_error() -> None:
    parameter = nn.Parameter(torch.ones(2))
    with pytest.raises(RuntimeError), uphill([parameter], [torch.ones(2)], rho=1.0):
        raise RuntimeError
    assert parameter.tolist() == [1.0, 1.0]


def test_gradient_of_sam_on_a_parabola() -> None:
    """L = ½ a θ²: g = aθ, and at θ + ρ sign θ it is aθ + aρ."""
    theta = nn.Parameter(torch.tensor([2.0]))
    unused = nn.Parameter(torch.tensor([7.0]))
    gradient = gradient_of((1.5 * theta**2).sum(), [theta, unused])
    assert [float(g) for g in gradient] == [6.0, 0.0]
    with uphill([theta, unused], gradient, rho=0.1):
        (1.5 * theta**2).sum().backward()
    assert theta.grad is not None
    assert float(theta.grad) == pytest.approx(6.3)


@pytest.mark.parametrize("kept", [CrossEntropy(), None], ids=["with normal", "alone"])
def test_a_step_has_the_negative_gradient_of_uphill_and_the_others_of_here(
    make_trainer: Make, one_descent: dict[str, Any], kept: Any
) -> None:
    """Against passes by hand through copies of the model."""
    rho, objective = 0.05, Objective(GradientAscent(), None, kept, weights=(0.5, 0.0, 1.0))
    trainer = make_trainer(objective=objective, sam_rho=rho, **one_descent)
    model = copy.deepcopy(trainer.model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}

    def gradient(part: str) -> dict[str, torch.Tensor]:
        items = [s for n in range(8) for s in trainer.train_dataset[n] if s.part == part]
        losses = []
        for item in items:
            ids, at = torch.tensor([item.encoded.ids]), torch.tensor(item.encoded.answer_mask).nonzero()[:, 0]
            picked = model(ids).logits[0, at - 1].log_softmax(dim=1)
            losses.append(picked.gather(1, ids[0, at][:, None])[:, 0])
        loss = torch.cat(losses).mean() * (0.5 if part == "negative" else -1.0)
        model.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    here = gradient("normal") if kept is not None else {}
    ascent = gradient("negative")
    norm = torch.stack([g.square().sum() for g in ascent.values()]).sum().sqrt()
    with torch.no_grad():
        for name, p in model.named_parameters():
            p += rho * ascent[name] / norm
    there = gradient("negative")
    trainer.train()
    for name, p in trainer.model.named_parameters():
        wanted = start[name] - there[name] - here.get(name, torch.zeros(()))
        torch.testing.assert_close(p.detach(), wanted, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize(("distance", "again"), [(GradientAscent(), ["negative"]), (DPO(), ["negative", "positive"])])
def test_only_what_the_negative_term_reads_goes_through_again(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, distance: Any, again: list[str]
) -> None:
    trainer = make_trainer(
        objective=Objective(distance),
        sam_rho=0.05,
        max_steps=1,
        stop_rule=False,
        include_num_input_tokens_seen="all",
    )
    seen: list[list[str]] = []
    read: list[int] = []
    answers = trainer._answers

    def noted(*given: Any) -> Any:
        found = answers(*given)
        read.append(given[1]["input_ids"].numel())
        seen.append([*found])
        return found

    monkeypatch.setattr(trainer, "_answers", noted)
    trainer.train()
    assert seen == [["negative", "positive", "normal"], again]
    assert trainer.state.num_input_tokens_seen == sum(read)


def test_elsewhere_the_negative_term_alone_has_weight(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though expected answers are there, for it to read."""
    weighed: list[dict[str, float]] = []
    total = Objective.total

    def noted(parts: Any, weights: dict[str, float], scale: float = 1.0) -> Any:
        weighed.append({part: weights[part] for part in parts})
        return total(parts, weights, scale)

    monkeypatch.setattr(Objective, "total", staticmethod(noted))
    objective = Objective(DPO(), weights=(0.5, 0.25, 2.5))
    make_trainer(objective=objective, sam_rho=0.05, max_steps=1, directions=0).train()
    assert weighed == [{"negative": 0.0, "positive": 0.25, "normal": 2.5}, {"negative": 0.5, "positive": 0.0}]


def test_it_leads_elsewhere_and_logs_what_it_would(make_trainer: Make, lora: Callable[[], Any]) -> None:
    runs = [
        make_trainer(f"{rho}", sam_rho=rho, peft_config=lora(), adapter_init="random", learning_rate=1e-2)
        for rho in (0.0, 0.05)
    ]
    for trainer in runs:
        trainer.train()
    plain, sharp = ([row for row in t.state.log_history if "negative" in row] for t in runs)
    assert plain[0]["negative"] == pytest.approx(sharp[0]["negative"])
    assert plain[0]["normal"] == pytest.approx(sharp[0]["normal"])
    assert plain[-1]["negative"] != pytest.approx(sharp[-1]["negative"], rel=1e-6)


def test_a_negative_radius_is_refused() -> None:
    with pytest.raises(ValueError, match="sam_rho=-1: it must be above 0"):
        UnlearnConfig(sam_rho=-1)
