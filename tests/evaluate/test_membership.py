from __future__ import annotations

import math

import pytest
import torch

from letheon.evaluate.membership import membership_auc, min_k, priv_leak


def test_min_k_is_the_mean_of_the_least_likely() -> None:
    log_probs = torch.tensor([-1.0, -5.0, -2.0, -4.0, -3.0])
    assert min_k(log_probs) == pytest.approx(-4.5)
    assert min_k(log_probs, 1.0) == pytest.approx(-3.0)
    # Of a short text at least one token.
    assert min_k(torch.tensor([-1.0, -2.0])) == -2.0


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


def test_priv_leak() -> None:
    # The control itself; a model that remembers all; one that has forgotten more than the control.
    assert priv_leak(0.4, 0.4) == 0
    assert priv_leak(1.0, 0.4) == pytest.approx(-100)
    assert priv_leak(0.1, 0.4) == pytest.approx(50)
    assert math.isnan(priv_leak(0.5, 1.0))
