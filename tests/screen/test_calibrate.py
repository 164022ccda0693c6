from __future__ import annotations

import numpy as np
import pytest

from letheon.screen.calibrate import Calibrated, platt
from letheon.screen.combine import Given, highest, log_odds
from letheon.screen.judge import Opinion


def told(*scores: float, name: str = "j") -> list[list[Given]]:
    return [[(name, Opinion("harmful", score))] for score in scores]


def test_a_calibrated_score_is_how_often_it_is_right() -> None:
    # Of 40 that it calls .9 thirty are to be forgotten, of 40 that it calls .2 ten.
    given = told(*[0.9] * 40, *[0.2] * 40)
    kinds = [*["harmful"] * 30, *[None] * 10, *["harmful"] * 10, *[None] * 30]
    combine = Calibrated.fit(highest, ["j"], given, kinds)
    assert [combine(own)[1].score for own in told(0.9, 0.2)] == pytest.approx([0.74, 0.26], abs=0.02)
    # As the regression that it is, without a penalty, says.
    slope, offset = platt(
        np.array([own[0][1].score for own in given]), np.array([kind is not None for kind in kinds])
    )
    assert slope == pytest.approx(2 * np.log(30.5 / 10.5 + 0.02) / (log_odds(0.9) - log_odds(0.2)), rel=0.1)
    assert offset + slope * log_odds(0.9) == pytest.approx(-(offset + slope * log_odds(0.2)), abs=0.05)


def test_a_judge_that_is_wrong_says_how_many_there_are() -> None:
    given = told(*[0.9] * 20, *[0.1] * 20)
    combine = Calibrated.fit(highest, ["j"], given, [*[None] * 20, *["harmful"] * 20])
    assert [combine(own)[1].score for own in told(0.9, 0.1)] == pytest.approx([0.5, 0.5], abs=0.01)


def test_what_is_not_known_is_left_as_it_is() -> None:
    given = told(*[0.9] * 9, *[0.1] * 20)
    combine = Calibrated.fit(highest, ["j"], given, [*["harmful"] * 9, *[None] * 20])
    assert combine.scales == {}
    assert combine(told(0.9)[0])[1].score == 0.9
    combine = Calibrated.fit(highest, ["j"], [*given, *given], [*["harmful"] * 9, *[None] * 20] * 2)
    assert combine(told(0.9, name="another")[0])[1].score == 0.9
    # It could not look: what it says of itself stays.
    assert combine([("j", Opinion("harmful", 0.9, unable=True))])[1].score == 0.9
    assert combine(told(0.9)[0])[1].score > 0.9


def test_a_judge_is_held_to_what_it_looks_for() -> None:
    """One that sees one kind alone must not say of a harmless answer how many are bad in another way."""
    given = told(*[0.9] * 20, *[0.0] * 60)
    kinds = [*["harmful"] * 20, *["privacy"] * 30, *[None] * 30]
    combine = Calibrated.fit(highest, ["j"], given, kinds)
    assert [combine(own)[1].score for own in told(0.9, 0.0)] == pytest.approx([0.95, 0.02], abs=0.01)
    # Where the examples call nothing as it does, it is held to all of them.
    combine = Calibrated.fit(highest, ["j"], given, [kind and "insult" for kind in kinds])
    assert combine(told(0.0)[0])[1].score == pytest.approx(0.5, abs=0.01)


def test_a_judge_that_found_nothing_forgets_nothing() -> None:
    """The share of what is to be forgotten must be no floor under every score."""
    nothing = ("privacy", Opinion("normal", 0.0))
    kinds = [*["harmful"] * 60, *[None] * 40]
    # None of the examples has what it looks for.
    unasked = Calibrated.fit(highest, ["privacy"], [[nothing]] * 100, kinds)
    assert unasked.scales == {}
    # Some normal examples have: of what it looks for they say nothing.
    leaks = ("privacy", Opinion("privacy", 0.9))
    unasked = Calibrated.fit(highest, ["privacy"], [*[[nothing]] * 80, *[[leaks]] * 20], kinds)
    assert unasked([leaks])[1].score == 0.9
    # It is scaled, and what it did not find is not.
    kinds = [*["privacy"] * 60, *[None] * 40]
    combine = Calibrated.fit(highest, ["privacy"], [*[[leaks]] * 30, *[[nothing]] * 70], kinds)
    assert set(combine.scales) == {"privacy"}
    assert combine([("embedding", Opinion("harmful", 0.01)), nothing])[1].score == 0.01


@pytest.mark.parametrize("scores", [[0.9] * 100, [0.2] * 60 + [0.8] * 40])
def test_a_judge_that_tells_nothing_apart_is_heard_alone_only(scores: list[float]) -> None:
    kinds = [*["harmful"] * 60, *[None] * 40]
    combine = Calibrated.fit(highest, ["j"], told(*scores), kinds)
    assert combine.flat == {"j"}
    flat, other = ("j", Opinion("harmful", 0.7)), ("embedding", Opinion("harmful", 0.01))
    assert combine([flat])[1].score == pytest.approx(0.6, abs=0.01)
    assert combine([flat, other]) == other
