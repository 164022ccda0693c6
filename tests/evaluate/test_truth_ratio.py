from __future__ import annotations

import math

import pytest

from letheon.evaluate.truth_ratio import forgotten_truth, kept_truth, truth_probability, truth_ratio


def test_by_hand() -> None:
    # Probabilities .5 of the correct answer, .4 and .1 of the wrong ones: their geometric mean is .2.
    ratio = truth_ratio(-math.log(0.5), [-math.log(0.4), -math.log(0.1)])
    assert ratio == pytest.approx(0.4)
    assert forgotten_truth(ratio) == pytest.approx(0.4)
    assert kept_truth(ratio) == pytest.approx(0.6)
    assert truth_probability(ratio) == pytest.approx(0.5 / 0.7)


def test_right_and_wrong_alike() -> None:
    ratio = truth_ratio(1.3, [1.3, 1.3, 1.3])
    assert (ratio, forgotten_truth(ratio), kept_truth(ratio), truth_probability(ratio)) == (1, 1, 0, 0.5)


@pytest.mark.parametrize("ratio", [0.01, 0.3, 1.0, 2.5, 90.0])
def test_identities(ratio: float) -> None:
    assert forgotten_truth(ratio) == pytest.approx(forgotten_truth(1 / ratio))
    assert truth_probability(ratio) + truth_probability(1 / ratio) == pytest.approx(1)
    # Both published forms are functions of the same ratio: min(R, 1/R) = min(q, 1 − q) / max(q, 1 − q).
    q = truth_probability(ratio)
    assert forgotten_truth(ratio) == pytest.approx(min(q, 1 - q) / max(q, 1 - q))


def test_limits() -> None:
    # A broken model: its losses may be anything.
    assert truth_ratio(2000.0, [0.0]) == math.inf
    assert forgotten_truth(math.inf) == kept_truth(math.inf) == truth_probability(math.inf) == 0
    assert all(math.isnan(found(math.nan)) for found in (forgotten_truth, kept_truth, truth_probability))
    assert truth_ratio(0.0, [2000.0]) == 0
    assert (forgotten_truth(0.0), kept_truth(0.0), truth_probability(0.0)) == (0, 1, 1)
