"""What a step adds up, and how weights adapt to it, by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from letheon.objective import Answers, Objective
from letheon.train import UnlearnConfig
from letheon.train.parts import StepSums
from letheon.train.weights import Weights


def answers(*probabilities: float) -> Answers:
    """Tokens of these probabilities, which θ₀ gave a half."""
    size = len(probabilities)
    given = torch.tensor(probabilities)
    return Answers(
        torch.stack([given, 1 - given], dim=1).log().requires_grad_(),
        torch.zeros(size, dtype=torch.long),
        torch.arange(size),
        torch.ones(size, dtype=torch.bool),
        reference_log_prob=torch.full((size,), math.log(0.5)),
    )


def test_micro_batches_add_up_to_cross_entropy_and_gradients_at_the_logits() -> None:
    sums = StepSums()
    for normal, negative in ((answers(0.25, 0.5), answers(0.5)), (answers(0.125), answers(0.5))):
        losses: Any = {"negative": 3 * negative.logits.sum(), "normal": 5 * normal.logits.sum()}  # type: ignore[union-attr]
        sums.add(losses, {"negative": negative, "normal": normal}, balance=True)
    # Cross-entropy, whatever the term is.
    assert sums.normal_loss == pytest.approx(6 * math.log(2))
    assert sums.normal_reference == pytest.approx(3 * math.log(2))
    assert sums.normal_tokens == 3
    # Of three normal and two negative tokens, two logits each.
    assert sums.normal_square == pytest.approx(6 * 25)
    assert sums.negative_square == pytest.approx(4 * 9)
    assert sums.losses["negative"] == pytest.approx(3 * 4 * math.log(0.5))


def test_weights_adapt_to_the_means_of_a_step(tmp_path: Path) -> None:
    args = UnlearnConfig(output_dir=str(tmp_path), dual_rate=2.0, normal_budget=1.1)
    weights = Weights(Objective(weights=(1.0, 0.5, 3.0)), [], args)
    sums = StepSums()
    sums.negative_square, sums.normal_square = 4.0, 9.0
    sums.normal_loss, sums.normal_reference, sums.normal_tokens = 10 * (3 + math.log(1.6)), 30.0, 10.0
    said = weights.after(sums, dual=True)
    assert weights.balance.scale == 1.5
    assert weights.of == {"negative": 1.0, "positive": 0.5, "normal": pytest.approx(4.0)}
    assert said["weight_normal"] == 3.0
    assert weights.after(sums, dual=False)["weight_normal"] == weights.of["normal"] == pytest.approx(4.0)


def test_all_that_a_step_adds_up_is_averaged_over_processes() -> None:
    sums = StepSums()
    names = [name for name in vars(sums) if name != "losses"]
    for value, name in enumerate(names, start=1):
        setattr(sums, name, float(value))
    sums.average(lambda vector: vector / 2)
    assert [getattr(sums, name) for name in names] == [value / 2 for value in range(1, len(names) + 1)]
