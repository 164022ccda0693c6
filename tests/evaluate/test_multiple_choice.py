from __future__ import annotations

import math

import pytest

from letheon.evaluate.multiple_choice import best_is_likeliest, correct_mass, probability_among


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) for p in probabilities]


def test_by_hand() -> None:
    assert best_is_likeliest(math.log(0.4), logs(0.3, 0.2)) == 1
    assert best_is_likeliest(math.log(0.4), logs(0.3, 0.5)) == 0
    # What is no likelier than another is not the likeliest.
    assert best_is_likeliest(math.log(0.4), logs(0.4)) == 0
    assert correct_mass(logs(0.2, 0.4), logs(0.3)) == pytest.approx(0.6 / 0.9)
    assert probability_among(-math.log(0.5), [-x for x in logs(0.25, 0.125, 0.125)]) == pytest.approx(0.5)


def test_of_a_broken_model_nothing_is_told() -> None:
    for best, others in ((math.nan, [-1.0]), (-1.0, [-2.0, math.nan])):
        assert math.isnan(best_is_likeliest(best, others))
        assert math.isnan(correct_mass([best], others))


def test_long_answers_do_not_vanish() -> None:
    # Every probability here is 0 as a float.
    assert correct_mass([-2000.0], [-2000.0 - math.log(3)]) == pytest.approx(0.75)
    assert probability_among(3.0, []) == 1


def test_a_constant_of_the_question_does_not_matter() -> None:
    right, wrong = logs(0.2, 0.1), logs(0.05, 0.3)
    moved = correct_mass([x - 7 for x in right], [x - 7 for x in wrong])
    assert correct_mass(right, wrong) == pytest.approx(moved)
    assert correct_mass(right, wrong) + correct_mass(wrong, right) == pytest.approx(1)
