"""Scaling back, on a model of one number: probes are functions of where the weights are on the line."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from letheon.train.scale_back import Line, scale_back
from letheon.train.stop import Probe, StopRule


def probe(probability: float, normal_ratio: float) -> Probe:
    return Probe(step=9, probability=probability, extraction_strength=0.0, normal_ratio=normal_ratio, kl=0.0)


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


def test_the_start_is_there_before_the_end(weight: nn.Parameter, tmp_path: Path) -> None:
    line = Line({"w": weight}, tmp_path)
    with torch.no_grad():
        weight.fill_(math.nan)
    line.go(0)
    assert weight.tolist() == [2.0, 2.0]


def test_a_visit_to_the_start_ends_where_it_began(line: Line, weight: nn.Parameter) -> None:
    line.go(0.25)
    with line.at_start():
        assert weight.tolist() == [2.0, 2.0]
    assert weight.tolist() == [3.0, 2.0]
    with pytest.raises(KeyboardInterrupt), line.at_start():
        raise KeyboardInterrupt
    assert weight.tolist() == [3.0, 2.0]
    # To the start it is exact, whatever has become of the weights.
    with torch.no_grad():
        weight.fill_(math.nan)
    with line.at_start():
        assert weight.tolist() == [2.0, 2.0]


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
    start = probe(0.9, 1.0)

    def look() -> Probe:
        nonlocal looks
        looks += 1
        alpha = alpha_of(weight)
        return probe(0.05 if alpha >= forgets_at else 0.5, 2.0 if alpha > breaks_above else 1.0)

    alpha, found = scale_back(line, StopRule(), start, look(), look)
    assert alpha == expected
    assert alpha_of(weight) == pytest.approx(expected)
    assert looks <= 10
    assert found == look()


def test_a_smooth_way_takes_few_looks(line: Line, weight: nn.Parameter) -> None:
    """Forgetting that falls with α and a cost that grows with its square, as they nearly do."""
    looks = 0

    def look() -> Probe:
        nonlocal looks
        looks += 1
        alpha = alpha_of(weight)
        return probe(0.4 - 0.35 * alpha, math.exp(0.2 * alpha**2))

    rule = StopRule()
    alpha, found = scale_back(line, rule, probe(0.4, 1.0), look(), look)
    # The old answers are at their limit from .857 on; the guard allows no more than .753.
    assert alpha == 0.75
    assert found.normal_ratio == pytest.approx(math.exp(0.2 * 0.75**2))
    assert looks <= 5


def test_from_just_below_the_limits_the_search_does_not_go_on(line: Line, weight: nn.Parameter) -> None:
    looks = []

    def look() -> Probe:
        looks.append(alpha_of(weight))
        return probe(0.4 - 0.321 * looks[-1], 1.0)

    alpha, found = scale_back(line, StopRule(), probe(0.4, 1.0), probe(0.08, 1.0), look)
    # At the limit from .9375 on.
    assert alpha == 0.9375
    assert found.probability == pytest.approx(0.1, rel=0.02)
    assert len(looks) == 1
    end = probe(0.096, 1.0)
    assert scale_back(line, StopRule(), probe(0.4, 1.0), end, look) == (1.0, end)
    assert len(looks) == 1
