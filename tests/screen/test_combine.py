from __future__ import annotations

import numpy as np
import pytest

from letheon.screen.combine import Stacked, highest, log_odds, mean
from letheon.screen.judge import Opinion

GIVEN = [
    ("a", Opinion("harmful", 0.9, reason="why a")),
    ("b", Opinion("harmful", 0.3)),
    ("c", Opinion("privacy", 0.7, (0, 3))),
]


def test_highest() -> None:
    judge, opinion = highest(GIVEN)
    assert (judge, opinion.category, opinion.score) == ("a", "harmful", 0.9)


def test_mean_is_by_category() -> None:
    judge, opinion = mean(GIVEN)
    assert (judge, opinion.category, opinion.score, opinion.span) == ("c", "privacy", 0.7, (0, 3))
    judge, opinion = mean(GIVEN[:2])
    assert (judge, opinion.score, opinion.reason) == ("a", pytest.approx(0.6), "why a")


def test_stacked_learns_whom_to_believe() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random(300) < 0.5).tolist()
    good = [0.8 if label else 0.2 for label in labels]
    given = [
        [("good", Opinion("harmful", score)), ("noise", Opinion("harmful", float(draw.random())))] for score in good
    ]
    combine = Stacked.fit(["good", "noise"], given, labels)
    judge, opinion = combine([("good", Opinion("harmful", 0.2)), ("noise", Opinion("privacy", 0.95))])
    assert opinion.score < 0.2
    assert (judge, opinion.category) == ("noise", "privacy")
    assert combine([("good", Opinion("harmful", 0.8)), ("noise", Opinion("privacy", 0.05))])[1].score > 0.8
    assert 0.2 < combine([("noise", Opinion("privacy", 0.5))])[1].score < 0.8


def test_stacked_learns_what_silence_says() -> None:
    """A judge that has no opinion is not one that is in doubt."""
    doubt = ("j", Opinion("harmful", 0.5))
    silent = [("other", Opinion("harmful", 0.5))]
    combine = Stacked.fit(["other", "j"], [silent, [*silent, doubt]] * 50, [True, False] * 50)
    assert combine(silent)[1].score > 0.8
    assert combine([*silent, doubt])[1].score < 0.2


def test_no_score_is_surer_than_a_hundred_to_one() -> None:
    np.testing.assert_allclose(log_odds(np.array([0.0, 0.5, 1.0])), [-np.log(99), 0, np.log(99)])
