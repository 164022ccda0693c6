from __future__ import annotations

import itertools
import random
import statistics

import pytest

from letheon.evaluate.leak_at_k import leak_at_k


def test_by_hand() -> None:
    assert leak_at_k([0.0, 1.0], 2) == 1
    assert leak_at_k([0.0, 1.0], 1) == 0.5
    # Of three pairs, two have the 1 and one the .5.
    assert leak_at_k([0.5, 1.0, 0.0], 2) == pytest.approx((1 + 1 + 0.5) / 3)


@pytest.mark.parametrize("k", range(1, 8))
def test_is_the_mean_best_of_all_choices(k: int) -> None:
    draw = random.Random(k)
    scores = [round(draw.random(), 1) for _ in range(7)]
    best = statistics.fmean(max(some) for some in itertools.combinations(scores, k))
    assert leak_at_k(scores, k) == pytest.approx(best)


def test_grows_with_k() -> None:
    scores = [0.1, 0.9, 0.2, 0.2, 0.5]
    found = [leak_at_k(scores, k) for k in range(1, 6)]
    assert found == sorted(found)
    assert found[0] == pytest.approx(statistics.fmean(scores))
    assert found[-1] == max(scores)


@pytest.mark.parametrize("k", [0, 3])
def test_more_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k = {k} of 2 answers"):
        leak_at_k([0.1, 0.2], k)
