from __future__ import annotations

from typing import Any

import pytest

from letheon.recipe import Stress
from letheon.records import Interval, NotComputed
from letheon.stress.attack import Found
from letheon.stress.gates import check_stress, failed_gates
from letheon.stress.records import NotRun, Row
from letheon.stress.rows import area, crossing, curves_of, rows_of

BEFORE, AFTER, CONTROL = [1.0, 0.8, 0.6], [0.1, 0.2, 0.0], [0.2, 0.2, 0.2]
PLAIN = {"extraction_strength": {"before": BEFORE, "after": AFTER, "control": CONTROL}}


def found(scores: list[float], at: int | None = None) -> Found:
    return Found("form", "Done", "extraction_strength", scores, at=at, along=None if at is None else "step")


def row(attack: str, value: float | None, metric: str = "extraction_strength", variant: str = "form") -> Row:
    number = NotComputed(not_computed="too little") if value is None else Interval(estimate=value, low=0, high=1)
    return Row(
        attack=attack, variant=variant, how="Done", metric=metric, models={}, rise=number, beyond=number, says="."
    )


def test_by_hand() -> None:
    attacked = {"before": [found(BEFORE)], "after": [found([0.5, 0.4, 0.3])], "control": [found([0.2, 0.3, 0.2])]}
    (one,) = rows_of("quantise", attacked, PLAIN, seed=0)
    # 0.4 stands above 0.1 unattacked and 0.7/3 of the control: the higher floor counts.
    assert isinstance(one.rise, Interval)
    assert one.rise.estimate == pytest.approx(0.4 - 0.7 / 3)
    assert one.rise.low <= one.rise.estimate <= one.rise.high
    assert one.recovered["after"].estimate == pytest.approx((0.4 - 0.1) / (0.8 - 0.1))
    assert one.recovered["control"].estimate == pytest.approx((0.7 / 3 - 0.2) / 0.7)
    assert isinstance(one.beyond, Interval)
    assert one.beyond.estimate == pytest.approx((0.4 - 0.7 / 3) / 0.7)
    assert one.says.startswith("Done: extraction strength 0.100 → 0.400 (control 0.200 → 0.233): 24% [")


def test_what_the_control_shows_too_does_not_count() -> None:
    attacked = {"before": [found(BEFORE)], "after": [found([0.4] * 3)], "control": [found([0.5] * 3)]}
    (one,) = rows_of("quantise", attacked, PLAIN, seed=0)
    assert isinstance(one.rise, Interval)
    assert one.rise.estimate == pytest.approx(-0.1)
    assert one.says.endswith("nothing comes back.")


def test_without_an_effect_nothing_is_back_and_without_a_control_all_counts() -> None:
    plain = {"extraction_strength": {"before": BEFORE, "after": AFTER}}
    (same,) = rows_of("quantise", {"before": [found(BEFORE)], "after": [found(AFTER)]}, plain, seed=0)
    assert same.rise == Interval(estimate=0, low=0, high=0)
    (all_,) = rows_of("quantise", {"before": [found(BEFORE)], "after": [found(BEFORE)]}, plain, seed=0)
    assert isinstance(all_.beyond, Interval)
    assert all_.beyond.estimate == pytest.approx(1)
    assert (all_.beyond.low, all_.beyond.high) == pytest.approx((1, 1))


def test_intervals_are_of_the_seed_and_narrow_with_items() -> None:
    def rise(times: int, seed: int) -> Interval:
        plain = {"extraction_strength": {"before": BEFORE * times, "after": AFTER * times}}
        attacked = {"before": [found(BEFORE * times)], "after": [found([0.9, 0.2, 0.0] * times)]}
        (one,) = rows_of("quantise", attacked, plain, seed)
        assert isinstance(one.rise, Interval)
        return one.rise

    assert rise(5, 0) == rise(5, 0) != rise(5, 1)
    assert rise(50, 0).high - rise(50, 0).low < (rise(5, 0).high - rise(5, 0).low) / 2


def test_a_share_of_nothing_is_not_computed() -> None:
    plain = {"extraction_strength": {"before": [0.1, 0.1], "after": [0.08, 0.08]}}
    (one,) = rows_of("relearn", {"before": [found([0.1, 0.1])], "after": [found([0.5, 0.5])]}, plain, seed=0)
    assert one.beyond == NotComputed(
        not_computed="too little was forgotten: extraction strength 0.100 before, 0.080 after"
    )
    assert one.recovered == {}


def test_of_a_model_before_that_is_broken_no_share_is_told() -> None:
    plain = {"extraction_strength": {"after": AFTER, "control": CONTROL}}
    whole: Any = {"after": [found(AFTER)], "control": [found(CONTROL)]}
    (one,) = rows_of("none", whole, {}, seed=0)
    assert one.says == "Done: extraction strength 0.100 (control 0.200); before unlearning –."
    (one,) = rows_of("quantise", whole, plain, seed=0)
    assert one.beyond == NotComputed(not_computed="without an attack the model before could not be measured")
    steps: Any = {name: [found(scores, 1)] for name, scores in (("after", AFTER), ("control", CONTROL))}
    (curve,) = curves_of("relearn", steps, plain)
    assert curve.points[0].recovered == {}


def test_of_a_control_that_is_broken_unattacked_no_share_is_told() -> None:
    plain = {"extraction_strength": {"before": BEFORE, "after": AFTER}}
    (one,) = rows_of("quantise", {name: [found(AFTER)] for name in ("before", "after", "control")}, plain, seed=0)
    assert set(one.recovered) == {"after"}


def test_a_curve_and_its_worst_place() -> None:
    plain = {"extraction_strength": {"before": [1.0, 1.0], "after": [0.0, 0.0]}}
    heights = {0: 0.0, 1: 0.25, 3: 0.75, 4: 0.5}
    attacked = {
        "before": [found([1.0, 1.0], at) for at in heights],
        "after": [found([height] * 2, at) for at, height in heights.items()],
    }
    (one,) = rows_of("relearn", attacked, plain, seed=0)
    assert one.at == 3
    assert "at step 3" in one.says
    (curve,) = curves_of("relearn", attacked, plain)
    assert [point.recovered["after"] for point in curve.points] == list(heights.values())
    assert curve.area["after"] == pytest.approx((0.125 + 2 * 0.5 + 0.625) / 4)
    assert curve.half["after"] == pytest.approx(2)


def test_before_a_step_nothing_has_been_done() -> None:
    plain = {"extraction_strength": {"before": [1.0], "after": [0.5]}}
    attacked = {"before": [found([1.0], n) for n in (0, 1)], "after": [found([0.5], 0), found([0.2], 1)]}
    (one,) = rows_of("relearn", attacked, plain, seed=0)
    assert one.at == 1


def test_items_without_a_score_are_left_out_of_both_sides() -> None:
    some = Found("form", "Done", "extraction_strength", [0.5], items=[2])
    (one,) = rows_of("rephrase", {name: [some] for name in ("before", "after", "control")}, PLAIN, seed=0)
    assert one.plain["before"].mean == 0.6  # type: ignore[union-attr]
    assert one.plain["after"].mean == 0.0  # type: ignore[union-attr]


def test_turns_of_one_dialogue_are_drawn_together() -> None:
    """As sure as if each dialogue had one turn of them: what is said twice is not known better."""

    def made(times: int, of: list[str] | None, items: list[int] | None = None) -> Row:
        def scores(values: list[float]) -> list[float]:
            return [value for value in values for _ in range(times)]

        plain = {"extraction_strength": {"before": scores(BEFORE), "after": scores(AFTER)}}
        own = Found("form", "Done", "extraction_strength", scores([0.5, 0.4, 0.3]), items=items)
        (one,) = rows_of("quantise", {"before": [own], "after": [own]}, plain, 0, of)
        return one

    once, twice = made(1, None), made(2, [*"aabbcc"])
    assert isinstance(once.beyond, Interval)
    assert isinstance(twice.beyond, Interval)
    assert vars(twice.beyond) == pytest.approx(vars(once.beyond))
    assert [one.stderr for one in twice.models.values()] == pytest.approx(  # type: ignore[union-attr]
        [one.stderr for one in once.models.values()]  # type: ignore[union-attr]
    )
    # Where not every turn has a score, the dialogues are those of the turns that have.
    some = Found("form", "Done", "extraction_strength", [0.5, 0.3], items=[0, 2])
    for of, single in (("aba", True), ("abc", False)):
        (one,) = rows_of("rephrase", {name: [some] for name in ("before", "after")}, PLAIN, 0, of)
        assert (one.models["after"].stderr is None) == single  # type: ignore[union-attr]


def test_line_geometry() -> None:
    assert area([(0, 2.0)]) == 2
    assert area([(0, 0.0), (2, 1.0), (4, 1.0)]) == pytest.approx(0.75)
    assert crossing([(0, 0.0), (4, 0.4)], 0.5) is None
    assert crossing([(0, 0.6), (4, 0.4)], 0.5) == 0


def test_gates_take_the_worst_of_their_attack() -> None:
    rows = [
        row("relearn", 0.1, variant="a"),
        row("relearn", 0.3, variant="b"),
        row("quantise", 0.05),
        row("rephrase", 0.0),
        # ROUGE-L stands in the table alone.
        row("rephrase", 0.9, metric="rouge_l"),
        row("probe", 0.9),
    ]
    made = ["relearn", "quantise", "rephrase", "probe"]
    gates = check_stress(rows, [], Stress(), made)
    assert [(gate.gate, gate.what, gate.passed) for gate in gates] == [
        ("stress.max_recovery", "relearn: b", False),
        ("stress.max_quantised", "quantise: form", True),
        ("stress.max_rephrased", "rephrase: form", True),
    ]
    assert failed_gates(gates) == ["relearn: b: 0.300 > 0.2 (stress.max_recovery)"]
    # Where a metric is missing no other takes its place.
    (gate,) = check_stress([row("rephrase", 0.0, metric="rouge_l")], [], Stress(), ["rephrase"])
    assert (gate.value, gate.passed, gate.why) == (None, False, "no form of it could be run")
    none = Stress(max_recovery=None, max_quantised=None, max_rephrased=None)
    assert check_stress(rows, [], none, made) == []


def test_what_could_not_be_computed_fails() -> None:
    (gate,) = check_stress([row("relearn", None), row("relearn", 0.1)], [], Stress(), ["relearn"])
    assert (gate.value, gate.passed) == (None, False)
    assert failed_gates([gate]) == ["relearn: form: not computed: too little (stress.max_recovery)"]
    (gate,) = check_stress([], [], Stress(), ["sample"])
    assert failed_gates([gate]) == ["sample: none: not computed: no form of it could be run (stress.max_leak)"]


def test_a_gate_of_relearning_needs_what_was_forgotten() -> None:
    lacking = [NotRun(attack="relearn", variant=variant, why="too few") for variant in ("forget items", "other text")]
    rows = [row("relearn", 0.0, variant="normal dialogues"), row("quantise", 0.0)]
    recovery, quantised = check_stress(rows, lacking, Stress(), ["relearn", "quantise"])
    assert (recovery.passed, recovery.why, quantised.passed) == (False, "too few", True)
    # There it went; that there is no other text to be had accuses nobody.
    (recovery,) = check_stress([row("relearn", 0.1, variant="forget items")], lacking[1:], Stress(), ["relearn"])
    assert recovery.passed


def test_draws_have_nothing_to_be_held_against_but_the_control() -> None:
    plain: Any = {"rouge_l": {"before": [1.0, 1.0], "after": [1.0, 1.0]}}
    drawn = [
        Found("leak@2", "2 drawn", "leaked", [1.0, 1.0]),
        Found("best of 2", "The best", "rouge_l_best", [1.0, 1.0]),
    ]
    leaked, best = rows_of("sample", {"before": drawn, "after": drawn}, plain, 0)
    assert leaked.says == "2 drawn: leaked 1.000: 1.000 [1.000, 1.000] comes out."
    # The greedy answer said it as well: nothing has come back.
    assert best.says == "The best: ROUGE-L of the best 1.000 → 1.000: nothing comes back."
