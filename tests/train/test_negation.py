from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from letheon.errors import InputError
from letheon.objective import CrossEntropy, Objective
from letheon.train import UnlearnConfig, UnlearnTrainer

Make = Callable[..., UnlearnTrainer]
SETTINGS: dict[str, Any] = {
    "objective": Objective(CrossEntropy(), None, None),
    "directions": 0,
    "adapter_init": "random",
    "learning_rate": 1e-3,
    "max_steps": 3,
}


def logits(trainer: UnlearnTrainer) -> torch.Tensor:
    trainer.model.eval()
    with torch.no_grad():
        found: torch.Tensor = trainer.model(torch.tensor([trainer.train_dataset.forget[0].old.ids])).logits
    return found


def test_full_weights_go_the_other_way(make_trainer: Make) -> None:
    there, back = make_trainer("a", **SETTINGS), make_trainer("b", **SETTINGS, negation=0.5)
    start = {name: p.detach().clone() for name, p in there.model.named_parameters()}
    there.train()
    back.train()
    for (name, one), (_, other) in zip(there.model.named_parameters(), back.model.named_parameters(), strict=True):
        moved = (other - start[name]).detach()
        torch.testing.assert_close(moved, (one - start[name]).detach() * -0.5, rtol=1e-3, atol=1e-6)
    assert max(float((p.detach() - start[name]).abs().max()) for name, p in back.model.named_parameters()) > 1e-4


def test_of_an_adapter_the_change_of_the_weights_is_negated(make_trainer: Make, lora: Callable[[], Any]) -> None:
    def plain() -> Any:
        config = lora()
        config.lora_dropout = 0.0
        return config

    there = make_trainer("a", **SETTINGS, peft_config=plain())
    back = make_trainer("b", **SETTINGS, peft_config=plain(), negation=2.0)
    there.train()
    back.train()

    def changes(trainer: UnlearnTrainer) -> list[torch.Tensor]:
        return [
            layer.get_delta_weight("default").detach()
            for layer in trainer.model.modules()
            if hasattr(layer, "get_delta_weight")
        ]

    for one, other in zip(changes(there), changes(back), strict=True):
        torch.testing.assert_close(other, -2 * one, rtol=1e-4, atol=1e-7)
        assert bool(one.any())


def test_to_reinforce_and_to_negate_forgets(make_trainer: Make) -> None:
    from letheon.objective import Answers

    trainer = make_trainer(**{**SETTINGS, "max_steps": 8, "learning_rate": 3e-3}, negation=3.0)

    def probability() -> float:
        item = trainer.train_dataset.forget[0].old
        at = torch.tensor(item.answer_mask).nonzero()[:, 0]
        targets, zero = torch.tensor(item.ids)[at], torch.zeros(len(at), dtype=torch.long)
        answers = Answers(logits(trainer)[0, at - 1], targets, zero, torch.ones(len(at), dtype=torch.bool))
        return float(answers.log_probs().mean().exp())

    before = probability()
    trainer.train()
    assert probability() < 0.9 * before


@pytest.mark.parametrize("settings", [{"negation": 1.0}, {"negation": -1.0, "stop_rule": False}])
def test_what_cannot_be_negated_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="it must be above 0, and goes with stop_rule=False"):
        UnlearnConfig(**settings)


def test_an_adapter_that_has_learnt_before_is_refused(make_trainer: Make, lora: Callable[[], Any]) -> None:
    trainer = make_trainer("a", **SETTINGS, peft_config=lora())
    trainer.train()
    with pytest.raises(InputError, match="has learnt something before, which would be negated with the rest"):
        make_trainer("b", model=trainer.model, **SETTINGS, negation=1.0)
    biased = lora()
    biased.modules_to_save = ["norm"]
    with pytest.raises(InputError, match="learns beside the adapter's factors, and would not be negated"):
        make_trainer("c", **SETTINGS, peft_config=biased, negation=1.0)
