from __future__ import annotations

import math

import numpy as np
import pytest

from letheon.evaluate.reduce import harmonic_mean, ratio_of_means, reduce_scores
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


def test_ratio_of_means() -> None:
    # r = 0.9; after − r · before is −0.1, 0, 0.1: sqrt(3 / 2 · 0.02) / 3.
    found = ratio_of_means([0.8, 0.9, 1.0], [1.0, 1.0, 1.0])
    assert isinstance(found, Estimate)
    assert (found.mean, found.stderr, found.n) == pytest.approx((0.9, math.sqrt(0.03) / 3, 3))
    # What has kept its share in every sample is sure, however different the samples are.
    alike = ratio_of_means([0.09, 0.45, 0.81], [0.1, 0.5, 0.9])
    assert isinstance(alike, Estimate)
    assert (alike.mean, alike.stderr, alike.n) == pytest.approx((0.9, 0, 3))
    assert ratio_of_means([0.4], [0.5]) == Estimate(mean=0.8, stderr=None, n=1)


def test_the_error_of_a_ratio_is_that_of_drawing_other_samples() -> None:
    draw = np.random.default_rng(0)

    def samples(n: int) -> tuple[list[float], list[float]]:
        before = draw.uniform(0.3, 1, n)
        return (before * draw.uniform(0.7, 1.1, n)).tolist(), before.tolist()

    found = [ratio_of_means(*samples(40)) for _ in range(2000)]
    spread = np.std([one.mean for one in found if isinstance(one, Estimate)], ddof=1)
    said = np.mean([one.stderr for one in found if isinstance(one, Estimate)])
    assert said == pytest.approx(spread, rel=0.05)


def test_what_is_of_one_dialogue_is_no_news_of_each_other() -> None:
    # Of two groups: deviations −0.4 and −0.2, and 0.1 and 0.5: sqrt(2 · (0.36 + 0.36)) / 4.
    found = reduce_scores([0.1, 0.3, 0.6, 1.0], ["a", "a", "b", "b"])
    assert isinstance(found, Estimate)
    assert (found.mean, found.stderr, found.n) == pytest.approx((0.5, 0.3, 4))
    after, before = [0.8, 0.9, 1.0, 0.4], [1.0, 1.0, 0.9, 0.8]
    # Said twice it is as sure as said once; one group tells nothing of another; each of its own is as without groups.
    for reduce in (
        lambda n, of: reduce_scores(after * n, of),
        lambda n, of: ratio_of_means(after * n, before * n, of),
    ):
        once, twice = reduce(1, None), reduce(2, [*"abcd", *"abcd"])
        assert isinstance(once, Estimate)
        assert isinstance(twice, Estimate)
        assert (twice.mean, twice.stderr) == pytest.approx((once.mean, once.stderr))
        assert reduce(1, [*"abcd"]) == once
        assert reduce(1, [*"aaaa"]) == once.model_copy(update={"stderr": None})


def test_the_error_of_groups_is_that_of_drawing_other_groups() -> None:
    draw = np.random.default_rng(0)
    of = [str(group) for group in range(40) for _ in range(group % 4 + 1)]

    def sample() -> list[float]:
        group = draw.uniform(0, 1, 40)
        return [float(group[int(name)] + draw.normal(0, 0.1)) for name in of]

    found = [reduce_scores(sample(), of) for _ in range(2000)]
    spread = np.std([one.mean for one in found if isinstance(one, Estimate)], ddof=1)
    said = np.sqrt(np.mean([(one.stderr or 0) ** 2 for one in found if isinstance(one, Estimate)]))
    assert said == pytest.approx(spread, rel=0.05)


def test_what_has_no_ratio() -> None:
    assert ratio_of_means([], []) == NotComputed(not_computed="no samples")
    assert ratio_of_means([0.0, 0.1], [0.0, 0.0]) == NotComputed(not_computed="it was 0 before")
    for after, before in (([math.nan, 1.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, math.inf])):
        found = ratio_of_means(after, before)
        assert isinstance(found, NotComputed)
        assert found.not_computed.startswith("1 of 2 scores are NaN or infinite")


def test_harmonic_mean() -> None:
    assert harmonic_mean([1, 1]) == 1
    assert harmonic_mean([0.5, 1]) == pytest.approx(2 / 3)
    assert harmonic_mean([0, 1]) == 0
    assert math.isnan(harmonic_mean([math.nan, 1]))
