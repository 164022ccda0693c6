from __future__ import annotations

import numpy as np
import pytest

from letheon.screen.combine import Stacked, highest, mean
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
