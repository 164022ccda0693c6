from __future__ import annotations

import math
import random

import pytest

from letheon.evaluate.forget_quality import forget_quality


def distance(one: list[float], other: list[float]) -> float:
    """sup |F − G|, at every point where either jumps."""
    return max(
        abs(sum(x <= point for x in one) / len(one) - sum(x <= point for x in other) / len(other))
        for point in (*one, *other)
    )


def test_by_hand() -> None:
    # Nothing of the one lies among the other: of C(6, 3) orders of three and three, two are as far apart.
    found = forget_quality([0.1, 0.2, 0.3], [0.7, 0.8, 0.9])
    assert found.distance == 1
    assert found.p_value == pytest.approx(2 / math.comb(6, 3))
    assert forget_quality([0.1, 0.2], [0.1, 0.2]) == (1, 0)


def test_against_the_definition() -> None:
    draw = random.Random(0)
    for sizes in ((5, 9), (40, 30)):
        one, other = ([draw.random() for _ in range(size)] for size in sizes)
        assert forget_quality(one, other).distance == pytest.approx(distance(one, other))


def test_what_grows_with_the_ratio_does_as_well() -> None:
    one, other = [0.5, 0.9, 1.4, 3.0], [0.2, 1.0, 1.1, 1.2, 7.0]
    turned = forget_quality([1 / x for x in one], [1 / x for x in other])
    assert forget_quality(one, other) == pytest.approx(turned)


def test_without_numbers() -> None:
    assert math.isnan(forget_quality([], [1.0]).p_value)
    assert math.isnan(forget_quality([math.inf], [1.0]).distance)
