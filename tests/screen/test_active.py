from __future__ import annotations

import numpy as np

from letheon.screen.active import pick


def test_it_asks_for_what_is_rare() -> None:
    """Twenty of two hundred look bad; by chance one of ten would be among them."""
    features = np.random.default_rng(0).normal(size=(200, 5))
    scores = np.where(np.arange(200) < 20, 0.6, 0.02)
    found = [sum(number < 20 for number in pick(scores.tolist(), features, 10, seed=seed)) for seed in range(20)]
    assert np.mean(found) > 3
    mirrored = [sum(n < 20 for n in pick((1 - scores).tolist(), features, 10, seed=seed)) for seed in range(20)]
    assert mirrored == found


def test_it_asks_for_different_things() -> None:
    """Ten tight groups, all in doubt: ten questions reach all of them, where random ones reach six or seven."""
    centres = np.eye(10) * 10
    features = np.repeat(centres, 50, axis=0) + np.random.default_rng(1).normal(0, 0.01, (500, 10))
    reached = [len({n // 50 for n in pick([0.5] * 500, features, 10, seed=seed)}) for seed in range(10)]
    assert min(reached) == 10


def test_each_once_and_no_more_than_there_are() -> None:
    features = np.zeros((4, 3))
    assert sorted(pick([0.1, 0.5, 1.0, 0.0], features, 9)) == [0, 1, 2, 3]
    assert pick([], np.zeros((0, 3)), 2) == []
