from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from letheon.bench.trial import WATCHED, Watch


def step(watch: Watch, number: int, model: Any) -> Any:
    control = SimpleNamespace(should_training_stop=False)
    watch.on_step_end(None, SimpleNamespace(global_step=number), control, model=model)
    return control


def test_looking_is_not_timed_and_ends_with_the_level() -> None:
    looks: list[bool] = []

    def reached(model: Any) -> bool:
        looks.append(model.training)
        time.sleep(0.2)
        return len(looks) == 2

    model = torch.nn.Linear(1, 1).train()
    watch = Watch(reached, None)
    for number in range(1, 4 * WATCHED):
        step(watch, number, model)
    # Looked at in eval mode, and left in training mode.
    assert looks == [False, False]
    assert model.training
    assert watch.level_step == 2 * WATCHED
    assert watch.level_seconds is not None
    assert 0 <= watch.level_seconds <= watch.seconds() < 0.2


def test_a_spent_budget_ends_the_training() -> None:
    watch = Watch(lambda model: False, 0.05)
    assert not step(watch, 1, None).should_training_stop
    time.sleep(0.06)
    assert step(watch, 2, None).should_training_stop
    assert watch.spent


@pytest.mark.parametrize("budget", [None, 60.0])
def test_within_the_budget_nothing_ends(budget: float | None) -> None:
    watch = Watch(lambda model: False, budget)
    assert not step(watch, 1, None).should_training_stop
    assert not watch.spent
