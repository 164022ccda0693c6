from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import hmean

from letheon.evaluate.model_utility import METRICS, SETS, model_utility
from letheon.records import Estimate, NotComputed


def drawn(seed: int, size: int = 40) -> dict[str, dict[str, list[float]]]:
    draw = np.random.default_rng(seed)
    return {
        name: {metric: draw.uniform(0.2, 0.2 + 0.2 * (n + 1), size + n).tolist() for metric in METRICS}
        for n, name in enumerate(SETS)
    }


def test_by_hand() -> None:
    scores = {name: {metric: [0.5, 0.5] for metric in METRICS} for name in SETS}
    assert model_utility(scores) == Estimate(mean=0.5, stderr=0.0, n=6)
    scores["retain"]["rouge_l"] = [0.0, 0.5]
    found = model_utility(scores)
    assert isinstance(found, Estimate)
    assert found.mean == pytest.approx(9 / (8 / 0.5 + 1 / 0.25))


def test_the_harmonic_mean_of_nine() -> None:
    scores = drawn(0)
    found = model_utility(scores)
    assert isinstance(found, Estimate)
    assert found.mean == pytest.approx(hmean([np.mean(scores[n][m]) for n in SETS for m in METRICS]))
    assert found.n == 40 + 41 + 42


def test_the_error_against_a_bootstrap() -> None:
    scores, draw = drawn(1), np.random.default_rng(2)
    # All three metrics of a set are of the same questions.
    for name in SETS:
        scores[name]["rouge_l"] = [0.5 * p + 0.1 for p in scores[name]["probability"]]
    found = model_utility(scores)
    assert isinstance(found, Estimate)
    assert found.stderr is not None
    values = []
    for _ in range(2000):
        nine = []
        for name in SETS:
            rows = np.array([scores[name][metric] for metric in METRICS])
            nine += list(rows[:, draw.integers(0, rows.shape[1], rows.shape[1])].mean(axis=1))
        values.append(hmean(nine))
    assert found.stderr == pytest.approx(np.std(values), rel=0.08)


def test_what_is_missing_or_lost() -> None:
    scores = drawn(0)
    del scores["world_facts"]
    missing = model_utility(scores)
    assert missing == NotComputed(not_computed="there is no probability on world facts")
    scores = drawn(0)
    scores["retain"]["kept_truth"] = [0.0] * 40
    assert model_utility(scores) == Estimate(mean=0.0, stderr=None, n=123)
    scores["retain"]["kept_truth"] = [math.nan] * 40
    assert isinstance(model_utility(scores), NotComputed)
