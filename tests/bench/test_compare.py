from __future__ import annotations

import math
from typing import Any

import pytest

from letheon.bench.compare import closeness, compared
from letheon.bench.task import Goal, Task

BEFORE = {"strength": 0.6, "rate": 0.9, "kept": 0.8, "general_loss": 2.0, "abstentions": 0.0, "world": 0.5}
CONTROL = {"strength": 0.1, "rate": 0.1, "kept": 0.8, "general_loss": 2.0, "abstentions": 0.01, "world": 0.5}
GOALS = (Goal("strength", 0.02, both=True), Goal("rate", 0.02))


def task(**fields: Any) -> Task:
    rest: dict[str, Any] = {"victim": (), "control": (), "log": (), "recipe": {}, "parts": {}}
    return Task(**rest, metrics=lambda part, seen: {}, goals=GOALS, keeps=("world",), **fields)


def test_a_goal_forgives_what_is_beside_the_control_and_below_it_only_where_that_is_no_leak() -> None:
    near, least = GOALS
    assert near.excess(0.115, 0.1) == 0
    assert near.excess(0.15, 0.1) == pytest.approx(0.03)
    assert near.excess(0.0, 0.1) == pytest.approx(0.08)
    assert least.excess(0.0, 0.1) == 0
    assert math.isnan(least.excess(math.nan, 0.1))


def test_closeness_is_the_part_of_the_way_that_was_made() -> None:
    assert closeness(GOALS, BEFORE, BEFORE, CONTROL) == 0
    assert closeness(GOALS, CONTROL, BEFORE, CONTROL) == 1
    # Half of the way on one goal, all of it on the other.
    half = {"strength": 0.12 + 0.48 / 2, "rate": 0.0}
    assert closeness(GOALS, half, BEFORE, CONTROL) == pytest.approx(0.75)
    # Forgetting more than the control counts as little as forgetting too little.
    over = {"strength": 0.1 - 0.02 - 0.05, "rate": 0.1}
    under = {"strength": 0.1 + 0.02 + 0.05, "rate": 0.1}
    assert closeness(GOALS, over, BEFORE, CONTROL) == pytest.approx(closeness(GOALS, under, BEFORE, CONTROL))
    assert math.isnan(closeness(GOALS, {"strength": math.nan, "rate": 0.1}, BEFORE, CONTROL))


def test_a_goal_that_the_victim_meets_says_nothing_until_it_is_left() -> None:
    met = {**BEFORE, "rate": 0.1}
    assert closeness(GOALS, {"strength": 0.1, "rate": 0.1}, met, CONTROL) == 1
    assert closeness(GOALS, {"strength": 0.6, "rate": 0.1}, met, CONTROL) == 0
    assert closeness(GOALS, {"strength": 0.1, "rate": 0.5}, met, CONTROL) == 0.5
    assert closeness(GOALS[1:], met, met, CONTROL) == 1


def test_the_victim_has_all_utility_and_no_forgetting_and_the_control_both() -> None:
    before, control = (compared(task(), own, BEFORE, CONTROL) for own in (BEFORE, CONTROL))
    assert (before["forgetting"], before["utility"], before["score"], before["reached"]) == (0, 1, 0, 0)
    assert (control["forgetting"], control["utility"], control["score"], control["reached"]) == (1, 1, 1, 1)


def test_a_gain_pays_for_no_loss() -> None:
    own = {**CONTROL, "kept": 1.6, "general_loss": 4.0}
    found = compared(task(), own, BEFORE, CONTROL)
    assert found["kept_share"] == 2
    assert found["general_share"] == 0.5
    assert found["utility"] == pytest.approx(3 / (1 + 2 + 1))
    assert found["goals_met"] == 1
    assert found["reached"] == 0


@pytest.mark.parametrize(
    ("name", "value", "reached"),
    [("kept", 0.77, 1), ("kept", 0.75, 0), ("abstentions", 0.03, 1), ("abstentions", 0.04, 0), ("rate", 0.13, 0)],
)
def test_what_must_hold_for_the_level_to_be_reached(name: str, value: float, reached: int) -> None:
    assert compared(task(), {**CONTROL, name: value}, BEFORE, CONTROL)["reached"] == reached


def test_what_the_victim_never_had_cannot_be_kept() -> None:
    assert compared(task(), {**CONTROL, "world": 0.0}, BEFORE, CONTROL)["utility"] == 0
    assert compared(task(), {**CONTROL, "world": 0.0}, {**BEFORE, "world": 0.0}, CONTROL)["utility"] == 1


def test_abstentions_lower_the_score() -> None:
    plain = compared(task(), CONTROL, BEFORE, CONTROL)["score"]
    assert compared(task(), {**CONTROL, "abstentions": 0.51}, BEFORE, CONTROL)["score"] == pytest.approx(3 / 4)
    assert compared(task(), {**CONTROL, "abstentions": 0.0}, BEFORE, CONTROL)["score"] == plain


def test_a_relative_metric_may_be_a_goal() -> None:
    made = Task(
        victim=(), control=(), log=(), recipe={}, parts={}, metrics=lambda part, seen: {},
        goals=(Goal("leak", 10, both=True),),
        relative=lambda own, control: {"leak": 100 * (own["strength"] - control["strength"])},
    )  # fmt: skip
    assert compared(made, BEFORE, BEFORE, CONTROL)["leak"] == pytest.approx(50)
    assert compared(made, {**BEFORE, "strength": 0.15}, BEFORE, CONTROL)["goals_met"] == 1
    # Forgetting goes by what the victim's was: 40 above what is allowed.
    assert compared(made, BEFORE, BEFORE, CONTROL)["forgetting"] == 0
    assert compared(made, {**BEFORE, "strength": 0.4}, BEFORE, CONTROL)["forgetting"] == pytest.approx(1 - 20 / 40)


def test_a_broken_model_has_no_score() -> None:
    found = compared(task(), {**CONTROL, "general_loss": math.nan}, BEFORE, CONTROL)
    assert math.isnan(found["utility"])
    assert math.isnan(found["score"])
    assert found["reached"] == 0
