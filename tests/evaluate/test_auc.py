from __future__ import annotations

import math
import random
import statistics

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from letheon.evaluate.auc import auc_interval, membership_auc, priv_leak, priv_leak_interval
from letheon.records import Interval, NotComputed


def drawn(
    seed: int, members: int, others: int, apart: float = 1.0, digits: int = 9
) -> tuple[list[float], list[float]]:
    draw = random.Random(seed)
    return (
        [round(draw.gauss(apart, 1), digits) for _ in range(members)],
        [round(draw.gauss(0, 1), digits) for _ in range(others)],
    )


def interval(members: list[float], others: list[float]) -> Interval:
    found = auc_interval(members, others)
    assert isinstance(found, Interval)
    return found


@pytest.mark.parametrize("digits", [9, 0])
@pytest.mark.parametrize("sizes", [(1, 1), (7, 30), (50, 40)])
def test_agrees_with_scikit_learn(sizes: tuple[int, int], digits: int) -> None:
    members, others = drawn(sum(sizes), *sizes, digits=digits)
    wanted = roc_auc_score([1] * len(members) + [0] * len(others), [*members, *others])
    assert membership_auc(members, others) == pytest.approx(wanted)
    if min(sizes) > 1:
        assert interval(members, others).estimate == pytest.approx(wanted)


def test_auc_against_counting_pairs() -> None:
    members, others = [0.3, 0.1, 0.5, 0.2], [0.2, 0.0, 0.4]
    pairs = [(m > o) + (m == o) / 2 for m in members for o in others]
    assert membership_auc(members, others) == pytest.approx(sum(pairs) / len(pairs))
    assert membership_auc(others, members) == pytest.approx(1 - sum(pairs) / len(pairs))


def test_auc_at_its_limits() -> None:
    assert membership_auc([2.0, 3.0], [0.0, 1.0]) == 1.0
    assert membership_auc([0.0], [1.0]) == 0.0
    assert membership_auc([1.0, 1.0], [1.0]) == 0.5
    assert math.isnan(membership_auc([], [1.0]))
    assert math.isnan(membership_auc([math.nan], [1.0]))


def test_the_variance_by_hand() -> None:
    # Of the members 3 and 1, over the others 2 and 0: shares 1 and ½, and of the others ½ and 1.
    found = interval([3.0, 1.0], [2.0, 0.0])
    variance = 0.125 / 2 + 0.125 / 2
    half = 1.959964 * math.sqrt(variance) / (0.75 * 0.25)
    assert found.low == pytest.approx(1 / (1 + math.exp(half - math.log(3))))
    assert found.high == pytest.approx(1 / (1 + math.exp(-half - math.log(3))))


def test_the_interval_holds_the_truth() -> None:
    truth = statistics.NormalDist().cdf(1 / math.sqrt(2))
    found = [interval(*drawn(seed, 30, 25)) for seed in range(400)]
    inside = statistics.fmean(one.low <= truth <= one.high for one in found)
    assert 0.92 < inside < 0.98
    assert all(0 < one.low < one.estimate < one.high < 1 for one in found if one.estimate < 1)


def test_turned_round() -> None:
    members, others = drawn(3, 12, 9)
    one, other = interval(members, others), interval(others, members)
    assert (other.low, other.high) == pytest.approx((1 - one.high, 1 - one.low))


def test_wholly_apart() -> None:
    found = interval([2.0, 3.0, 4.0], [0.0, 1.0, 0.5, 0.7])
    # Three of three pairs: the truth is over .292, or that would happen in under 2.5% of all cases.
    assert (found.estimate, found.high) == (1, 1)
    assert found.low**3 == pytest.approx(0.025)
    turned = interval([0.0, 1.0], [2.0, 3.0])
    assert (turned.estimate, turned.low, turned.high) == (0, 0, pytest.approx(1 - math.sqrt(0.025)))


def test_nothing_to_tell_them_by() -> None:
    # One of two pairs: the distribution functions of Beta(1, 2) and Beta(2, 1) by hand.
    found = interval([1.0, 1.0], [1.0, 1.0, 1.0])
    assert found.estimate == 0.5
    assert found.low == pytest.approx(1 - math.sqrt(0.975))
    assert found.high == pytest.approx(math.sqrt(0.975))
    # Half of three: it lies round ½, and the more texts there are, the less is open.
    three, many = interval([1.0] * 3, [1.0] * 4), interval([1.0] * 200, [1.0] * 300)
    assert three.low == pytest.approx(1 - three.high)
    assert three.low < 0.1
    assert 0.42 < many.low < 0.44


def test_too_few_or_broken() -> None:
    found = auc_interval([1.0], [2.0, 3.0])
    assert isinstance(found, NotComputed)
    assert "1 members and 2 others: at least 2 of each" in found.not_computed
    found = auc_interval([1.0, math.nan], [2.0, 3.0])
    assert isinstance(found, NotComputed)
    assert "1 scores are NaN" in found.not_computed


def test_members_of_one_dialogue_are_no_news_of_each_other() -> None:
    """As sure as if each dialogue had one of them."""
    (members, others), control = drawn(1, 12, 15), drawn(2, 12, 15, apart=0.2)
    of = [str(number) for number in range(12)]
    once, leak = auc_interval(members, others), priv_leak_interval((members, others), control)
    assert auc_interval(members, others, of) == once
    twice = auc_interval(members * 2, others, of * 2)
    assert isinstance(once, Interval)
    assert isinstance(twice, Interval)
    assert vars(twice) == pytest.approx(vars(once))
    again = priv_leak_interval((members * 2, others), (control[0] * 2, control[1]), of * 2)
    assert isinstance(leak, Interval)
    assert isinstance(again, Interval)
    assert vars(again) == pytest.approx(vars(leak))
    # Wholly apart: as many pairs as there are dialogues.
    assert auc_interval([2.0, 3.0, 4.0], [0.0, 1.0, 1.5], ["a", "a", "b"]) == auc_interval(
        [2.0, 3.0], [0.0, 1.0, 1.5]
    )
    alone = auc_interval([1.0, 2.0], [0.0, 3.0], ["a", "a"])
    assert isinstance(alone, NotComputed)
    assert "of one dialogue" in alone.not_computed


def test_priv_leak() -> None:
    # The control itself; a model that remembers all; one that has forgotten more than the control.
    assert priv_leak(0.4, 0.4) == 0
    assert priv_leak(1.0, 0.4) == pytest.approx(-100)
    assert priv_leak(0.1, 0.4) == pytest.approx(50)
    assert math.isnan(priv_leak(0.5, 1.0))


def test_priv_leak_of_the_control_itself_is_nothing() -> None:
    control = drawn(5, 20, 20, apart=0.1)
    found = priv_leak_interval(control, control)
    assert isinstance(found, Interval)
    assert (found.estimate, found.low, found.high) == pytest.approx((0, 0, 0), abs=1e-6)


def test_the_interval_of_priv_leak_against_a_bootstrap() -> None:
    draw = np.random.default_rng(0)
    # Texts that are hard for both models: their scores go together.
    ease = draw.normal(size=120)
    own = ease + draw.normal(size=120) * 0.5 + np.repeat([0.6, 0.0], 60)
    control = ease + draw.normal(size=120) * 0.5
    found = priv_leak_interval((own[:60].tolist(), own[60:].tolist()), (control[:60].tolist(), control[60:].tolist()))
    assert isinstance(found, Interval)
    values = []
    for _ in range(1000):
        rows, others = draw.integers(0, 60, 60), draw.integers(60, 120, 60)
        values.append(
            priv_leak(
                membership_auc(own[rows].tolist(), own[others].tolist()),
                membership_auc(control[rows].tolist(), control[others].tolist()),
            )
        )
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.std(values), rel=0.15)


def test_a_control_that_tells_them_apart() -> None:
    found = priv_leak_interval(([1.0, 2.0], [0.0, 3.0]), ([1.0, 2.0], [0.0, 0.5]))
    assert isinstance(found, NotComputed)
    assert "without fail" in found.not_computed
