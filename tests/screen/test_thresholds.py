from __future__ import annotations

import numpy as np
import pytest

from letheon.errors import InputError
from letheon.screen import thresholds
from letheon.screen.thresholds import auroc, bootstrap, calibration_error, choose_thresholds, with_interval


def draw_set(draw: np.random.Generator, n: int) -> tuple[list[float], list[bool]]:
    labels = draw.random(n) < 0.3
    return (1 / (1 + np.exp(-(draw.normal(0, 1, n) + 2 * labels - 1)))).tolist(), labels.tolist()


def test_the_recall_is_had_with_the_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over many sets of examples, nine of ten thresholds have the wanted recall on new ones."""
    monkeypatch.setattr(thresholds, "bootstrap", lambda *_: (0.0, 1.0))
    draw = np.random.default_rng(0)
    new = np.array(draw_set(draw, 60_000))
    found = np.sort(new[0][new[1] == 1])
    cuts = [choose_thresholds(*draw_set(draw, 200), target_recall=0.9).forget_above for _ in range(400)]
    recalls = 1 - np.searchsorted(found, cuts) / len(found)
    assert 0.87 < np.mean(recalls >= 0.9) < 0.97
    assert np.mean(recalls) < 0.96


def test_recall_in_closed_form() -> None:
    # 1 − 0.95^45 > 0.9 > 1 − 0.95^44: with 45 examples the lowest score is the threshold, with 44 there is none.
    scores = [n / 50 for n in range(1, 47)]
    chosen = choose_thresholds(scores, [True] * 45 + [False], target_recall=0.95)
    assert chosen.forget_above == chosen.normal_below == 1 / 50
    assert chosen.interval[0] <= chosen.forget_above <= chosen.interval[1]
    with pytest.raises(InputError, match="needs at least 45 examples labelled forget, there are 44"):
        choose_thresholds(scores[1:], [True] * 44 + [False], target_recall=0.95)


def test_precision_in_closed_form() -> None:
    # 6 hits, a false alarm, 4 hits, a false alarm: with one more counted, 1/5 is met down to the tenth hit.
    labels = [True] * 6 + [False] + [True] * 4 + [False]
    scores = [1 - n / 20 for n in range(12)]
    chosen = choose_thresholds(scores, labels, target_precision=0.8)
    assert chosen.forget_above == pytest.approx(scores[10])


def test_equal_scores_are_decided_alike() -> None:
    scores = [0.9] * 20 + [0.5] * 40
    labels = [True] * 20 + [True, False] * 20
    assert choose_thresholds(scores, labels, target_precision=0.9).forget_above == 0.9


def test_two_targets_make_the_review_band() -> None:
    scores, labels = draw_set(np.random.default_rng(1), 1000)
    both = choose_thresholds(scores, labels, target_recall=0.95, target_precision=0.9)
    assert both.normal_below == choose_thresholds(scores, labels, target_recall=0.95).forget_above
    assert both.forget_above == choose_thresholds(scores, labels, target_precision=0.9).forget_above
    assert both.normal_below < both.forget_above
    easy = choose_thresholds(scores, labels, target_recall=0.5, target_precision=0.4)
    assert easy.normal_below == easy.forget_above


def test_both_targets_are_met_where_the_surest_are_false_alarms() -> None:
    # The recall's threshold .786 has a precision of .860: what is above it holds all six false alarms.
    scores = [0.99] * 6 + np.linspace(0.95, 0.5, 100).tolist() + np.linspace(0.19, 0.01, 50).tolist()
    labels = [False] * 6 + [True] * 100 + [False] * 50
    both = choose_thresholds(scores, labels, target_recall=0.3, target_precision=0.9)
    # Seven false alarms are counted, so 70 are decided: 64 hits.
    assert both.forget_above == both.normal_below == pytest.approx(scores[6 + 63])
    assert both.interval[0] <= both.forget_above <= both.interval[1]


@pytest.mark.parametrize(
    ("targets", "fault"),
    [
        ({}, "no target"),
        ({"target_recall": 0.95}, "needs at least 45 examples labelled forget, there are 3"),
        ({"target_precision": 0.9}, "no threshold has the target precision 0.9 on 6"),
    ],
)
def test_what_cannot_be_had(targets: dict[str, float], fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        choose_thresholds([0.9, 0.8, 0.7, 0.3, 0.2, 0.1], [True] * 3 + [False] * 3, **targets)


def test_auroc_and_calibration_error_in_closed_form() -> None:
    scores, labels = np.array([0.1, 0.4, 0.4, 0.9]), np.array([False, True, False, True])
    assert auroc(scores, labels) == pytest.approx((1 + 1 + 1 + 0.5) / 4)
    assert calibration_error(np.array([0.25, 0.25, 0.25, 0.25]), np.array([True, False, False, False])) == 0
    assert calibration_error(np.array([1.0, 1.0]), np.array([False, True])) == 0.5


def test_intervals() -> None:
    scores, labels = (np.array(part) for part in draw_set(np.random.default_rng(2), 400))
    found = with_interval(auroc, scores, labels, 0)
    assert found is not None
    assert found.low < found.estimate < found.high
    nothing = with_interval(lambda s, y: float("nan"), scores, labels, 0)
    assert nothing is None
    # Either label keeps its number of examples.
    assert bootstrap(lambda chosen: float(labels[chosen].sum()), labels, 0) == (labels.sum(), labels.sum())


def test_an_interval_is_the_middle_95_of_100() -> None:
    values = iter(range(1001))
    assert bootstrap(lambda chosen: next(values), np.array([True, False]), 0, 1001) == pytest.approx((25, 975))
