from __future__ import annotations

import math

import numpy as np
import pytest

from letheon.evaluate.reduce import harmonic_mean, reduce_scores
from letheon.records import Estimate, NotComputed


def test_mean_and_standard_error() -> None:
    scores = [0.1, 0.4, 0.7, 0.9]
    found = reduce_scores(scores)
    assert isinstance(found, Estimate)
    assert found.mean == pytest.approx(np.mean(scores))
    assert found.stderr == pytest.approx(np.std(scores, ddof=1) / 2)
    assert found.n == 4
    assert reduce_scores([0.5]) == Estimate(mean=0.5, stderr=None, n=1)


def test_what_has_no_mean() -> None:
    assert reduce_scores([]) == NotComputed(not_computed="no samples")
    found = reduce_scores([1.0, math.nan, math.inf])
    assert isinstance(found, NotComputed)
    assert found.not_computed.startswith("2 of 3 scores are NaN or infinite")


def test_harmonic_mean() -> None:
    assert harmonic_mean([1, 1]) == 1
    assert harmonic_mean([0.5, 1]) == pytest.approx(2 / 3)
    assert harmonic_mean([0, 1]) == 0
    assert math.isnan(harmonic_mean([math.nan, 1]))
