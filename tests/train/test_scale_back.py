"""Scaling back, on a model of one number: probes are functions of where the weights are on the line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from letheon.train.scale_back import Line, scale_back
from letheon.train.stop import Probe, StopRule


def probe(probability: float, normal_ratio: float) -> Probe:
    return Probe(
        step=9, probability=probability, share=0.5, extraction_strength=0.0, normal_ratio=normal_ratio, kl=0.0
    )


@pytest.fixture
def weight() -> nn.Parameter:
    return nn.Parameter(torch.tensor([2.0, 2.0]))


@pytest.fixture
def line(weight: nn.Parameter, tmp_path: Path) -> Line:
    line = Line({"w": weight}, tmp_path / "new")
    with torch.no_grad():
        weight.copy_(torch.tensor([6.0, 2.0]))
    line.end()
    return line


def test_the_line_goes_through_its_ends(line: Line, weight: nn.Parameter, tmp_path: Path) -> None:
    for alpha, value in ((0.0, 2.0), (0.25, 3.0), (1.0, 6.0)):
        line.go(alpha)
        assert weight.tolist() == [value, 2.0]
    line.close()
    assert not list((tmp_path / "new").iterdir())


def alpha_of(weight: nn.Parameter) -> float:
    return (weight[0].item() - 2) / 4


@pytest.mark.parametrize(
    ("forgets_at", "breaks_above", "expected"),
    [
        (0.7, 2.0, 0.75),  # the least multiple of 1/16 that forgets
        (0.01, 2.0, 0.0625),
        (1.0, 2.0, 1.0),
        (0.7, 0.5, 0.5),  # the guards come first
        (0.7, 0.74, 0.6875),
        (2.0, 0.5, 0.5),  # not forgotten at the end, and beyond the guards
        (2.0, 2.0, 1.0),  # not forgotten, within the guards: nothing is given back
        (2.0, 0.0, 0.0625),
    ],
)
def test_the_least_share_that_forgets_within_the_guards(
    line: Line, weight: nn.Parameter, forgets_at: float, breaks_above: float, expected: float
) -> None:
    looks = 0

    def look() -> Probe:
        nonlocal looks
        looks += 1
        alpha = alpha_of(weight)
        return probe(0.05 if alpha >= forgets_at else 0.5, 2.0 if alpha > breaks_above else 1.0)

    alpha, found = scale_back(line, StopRule(), look(), look)
    assert alpha == expected
    assert alpha_of(weight) == pytest.approx(expected)
    assert looks <= 10
    assert found == look()
