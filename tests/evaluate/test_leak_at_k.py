from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from letheon.evaluate.leak_at_k import LEAK, drawn_metrics, drawn_scores, expected_best, leak_at_k


def test_by_hand() -> None:
    assert expected_best([0.0, 1.0], 2) == 1
    assert expected_best([0.0, 1.0], 1) == 0.5
    # Of three pairs, two have the 1 and one the .5.
    assert expected_best([0.5, 1.0, 0.0], 2) == pytest.approx((1 + 1 + 0.5) / 3)
    # Of six pairs of four answers, of which one leaks, three have it.
    assert leak_at_k([LEAK, 0.69, 0.1, 0.0], 2) == pytest.approx(0.5)


@pytest.mark.parametrize("k", range(1, 8))
def test_is_the_mean_best_of_all_choices(k: int) -> None:
    draw = random.Random(k)
    scores = [round(draw.random(), 1) for _ in range(7)]
    best = statistics.fmean(max(some) for some in itertools.combinations(scores, k))
    assert expected_best(scores, k) == pytest.approx(best)
    leaked = sum(score >= LEAK for score in scores)
    assert leak_at_k(scores, k) == pytest.approx(1 - math.comb(7 - leaked, k) / math.comb(7, k))


def test_grows_with_k() -> None:
    scores = [0.1, 0.9, 0.2, 0.2, 0.5]
    for measure in (expected_best, leak_at_k):
        found = [measure(scores, k) for k in range(1, 6)]
        assert found == sorted(found)
    assert expected_best(scores, 1) == pytest.approx(statistics.fmean(scores))
    assert expected_best(scores, 5) == max(scores)


@pytest.mark.parametrize("k", [0, 3])
def test_more_than_there_are(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k = {k} of 2 answers"):
        leak_at_k([0.1, 0.2], k)


def test_scores_of_drawn_answers() -> None:
    scores = drawn_scores(["At 4 Mill Lane.", "At home.", "I do not know."], "At 4 Mill Lane.")
    assert scores == pytest.approx({"leak_at_1": 1 / 3, "leak_at_3": 1.0, "rouge_l_best_of_3": 1.0})
    assert drawn_scores(["At home."], "At 4 Mill Lane.") == {"leak_at_1": 0.0, "rouge_l_best_of_1": 0.25}
    assert drawn_metrics(0) == ["leak_at_k", "rouge_l_best_of_k"]
