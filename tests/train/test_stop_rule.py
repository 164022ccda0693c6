from __future__ import annotations

import json
import math
from typing import Any

import pytest

from letheon.train.stop import Probe, StopRule


def probe(probability: float = 0.5, **changes: Any) -> Probe:
    # A strength between "clean" and the limit, so that the probability decides.
    fields: dict[str, Any] = {"step": 5, "extraction_strength": 0.06, "normal_ratio": 1.0, "kl": 0.0}
    return Probe(**{**fields, "probability": probability, **changes})


def test_forgotten_takes_a_quick_look_and_a_larger_one() -> None:
    rule = StopRule(probability=0.1)
    assert rule.look(probe(0.11)).action == "continue"
    assert rule.look(probe(0.1)).action == "confirm"
    assert rule.confirm(probe(0.2)).action == "continue"
    assert rule.look(probe(0.05)).action == "confirm"
    decision = rule.confirm(probe(0.1, repetition=0.1))
    assert decision.action == "stop"
    assert decision.reason == (
        "forgotten: on the probe, probability 0.100 (limit 0.1) and extraction strength 0.060 (limit 0.1)"
    )


def test_expected_answers_in_the_old_ones_place_are_enough() -> None:
    rule = StopRule(probability=0.1, extraction_strength=0.1, truth_probability=0.8)
    replaced = probe(0.3, extraction_strength=0.25, truth_probability=0.8)
    assert rule.remaining(replaced) == pytest.approx(1)
    assert rule.forgotten(replaced) == (
        "replaced: on the probe, expected answers have taken the old ones' place, truth probability 0.800 (limit 0.8)"
    )
    assert rule.remaining(probe(0.3, truth_probability=0.6)) == pytest.approx(2)
    assert rule.forgotten(probe(0.3, truth_probability=0.6)) is None
    # The nearer one counts: an improbable answer need not have a likely one in its place.
    assert rule.remaining(probe(0.09, truth_probability=0.1)) == pytest.approx(0.9)
    assert (rule.forgotten(probe(0.09, truth_probability=0.1)) or "").startswith("forgotten: on the probe, prob")
    assert rule.remaining(probe(0.3)) == pytest.approx(3)


def test_forgotten_is_at_the_limits() -> None:
    rule = StopRule(probability=0.1)
    assert rule.forgotten(probe(0.1)) is not None
    assert rule.forgotten(probe(0.11)) is None
    assert rule.forgotten(probe(0.0, kl=math.nan)) is None


@pytest.mark.parametrize(
    ("probability", "overrun", "action"),
    [
        (0.085, 1.2, "confirm"),
        # Scaled back to the guard, this one would no longer be at the limits.
        (0.095, 1.2, "continue"),
        # So much is not scaled back where it may still be mended.
        (0.05, 1.3, "continue"),
        # Beyond twice the guards it rests, however much is forgotten.
        (0.01, 2.1, "hold"),
    ],
)
def test_beyond_a_guard_it_is_done_if_scaling_back_still_forgets(
    probability: float, overrun: float, action: str
) -> None:
    rule = StopRule(probability=0.1, kl_budget=0.1)
    found = probe(probability, extraction_strength=0.0, kl=0.1 * overrun)
    assert rule.left(found) == pytest.approx(probability / 0.1 * math.sqrt(overrun))
    assert rule.look(found).action == action


def test_to_forget_ever_more_beside_the_guards_is_no_progress() -> None:
    rule = StopRule(probability=0.1, kl_budget=0.1, patience=3)
    actions = [rule.look(probe(p, extraction_strength=0.0, kl=0.13)).action for p in (0.1, 0.07, 0.05, 0.03, 0.01)]
    # At 0.07 there is nothing left to forget; two probes on, it is still as far from the guards.
    assert actions == ["continue", "continue", "continue", "stop", "stop"]


def test_both_limits_must_be_kept() -> None:
    rule = StopRule(probability=0.1, extraction_strength=0.2)
    assert rule.remaining(probe(0.05, extraction_strength=0.5)) == 2.5
    assert rule.look(probe(0.05, extraction_strength=0.5)).action == "continue"
    assert rule.look(probe(0.05, extraction_strength=0.2)).action == "confirm"


@pytest.mark.parametrize(
    ("breached", "word"),
    [
        ({"normal_ratio": 1.11}, "normal perplexity is 1.110"),
        ({"kl": 0.101}, "KL"),
        ({"normal_kept": 0.79}, "own normal answers have kept 79.0%"),
        ({"repetition": 0.6}, "repeat"),
    ],
)
def test_a_breached_guard_holds_the_negative_loss_until_it_recovers(breached: dict[str, float], word: str) -> None:
    # The negative loss rests when a guard is overrun by twice what it allows.
    rule = StopRule(patience=6, normal_budget=1.05, kl_budget=0.05)
    # Even where it looks forgotten: a wrecked model is not done.
    for left in (0.5, 0.0):
        decision = rule.look(probe(left, **breached))
        assert decision.action == "hold"
        assert word in decision.reason
    assert rule.confirm(probe(0.0, **breached)).action == "hold"
    assert rule.look(probe(0.4)).action == "continue"
    # Between the guard and that, training goes on; but it is neither done nor a state to keep.
    wide = probe(0.05, normal_ratio=1.1, kl=0.1)
    assert rule.look(wide).action == "continue"
    assert not rule.is_best(wide)


def test_budgets_may_be_used_up() -> None:
    rule = StopRule(normal_budget=1.05, kl_budget=0.05)
    assert rule.breach(probe(normal_ratio=1.05, kl=0.05, normal_kept=0.9, repetition=0.5)) is None


@pytest.mark.parametrize("field", ["probability", "normal_ratio", "kl"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_diverged(field: str, value: float) -> None:
    rule, broken = StopRule(), probe(**{field: value})
    decision = rule.look(broken)
    assert decision.action == "stop"
    assert decision.reason.startswith("diverged")
    assert not rule.is_best(broken)
    assert rule.confirm(broken) == decision
    # A model that says nothing sensible is not one that never knew.
    assert not rule.is_clean(probe(**{field: value, "extraction_strength": 0.0}))


def test_flat_probes_end_it() -> None:
    rule = StopRule(patience=3)
    actions = []
    for left in (0.9, 0.8, 0.795, 0.7, 0.695, 0.7, 0.71):
        actions.append(rule.look(probe(left)).action)
    assert actions == ["continue"] * 6 + ["stop"]


def test_to_fall_again_after_a_setback_is_not_counted() -> None:
    """As on the demo: nearly enough, then a guard that sends the normal weight up, and the way back."""
    rule = StopRule(patience=4)
    for left in (0.4, 0.102, 0.13, 0.2, 0.19, 0.17, 0.15, 0.12, 0.11, 0.101):
        assert rule.look(probe(left)).action == "continue"
    assert rule.look(probe(0.1)).action == "confirm"
    # To swing to and fro ends it all the same, if later.
    rule = StopRule(patience=4)
    actions = [rule.look(probe(left)).action for left in [0.102, *[0.2, 0.15] * 4]]
    assert actions.index("stop") == 7
    # To sink further beyond a guard does, too.
    rule = StopRule(patience=2, kl_budget=0.05)
    assert [rule.look(probe(0.5, kl=kl)).action for kl in (0.0, 1.0, 0.8)] == ["continue", "hold", "stop"]


def test_probes_in_breach_are_no_progress() -> None:
    rule = StopRule(patience=3, kl_budget=0.05)
    decisions = [rule.look(probe(left, kl=1.0)) for left in (0.9, 0.6, 0.3)]
    assert [decision.action for decision in decisions] == ["hold", "hold", "stop"]
    assert decisions[-1].reason == "no progress for 3 steps (KL to the model before is 1.000, allowed 0.05)"


def test_progress_is_what_would_be_left_within_the_guards() -> None:
    """Less remains, and as much more of it is over the guards: that is no progress. To recover is."""
    rule = StopRule(patience=2, normal_budget=math.exp(0.1))
    for left, overrun in ((0.2, 1.0), (0.18, 1.5)):
        assert rule.look(probe(left, normal_ratio=math.exp(0.1 * overrun))).action == "continue"
    assert rule.flat == 1
    rule.look(probe(0.18, normal_ratio=1.0))
    assert rule.flat == 0


def test_overrun_is_that_of_the_worse_guard() -> None:
    rule = StopRule(normal_budget=math.exp(0.1), kl_budget=0.05)
    assert rule.overrun(probe(normal_ratio=1.0, kl=0.0)) == 0.0
    assert rule.overrun(probe(normal_ratio=0.9, kl=0.025)) == pytest.approx(0.5)
    assert rule.overrun(probe(normal_ratio=math.exp(0.2), kl=0.05)) == pytest.approx(2.0)
    assert rule.overrun(probe(normal_ratio=math.exp(0.2), kl=0.05, normal_kept=0.7)) == pytest.approx(3.0)
    assert rule.overrun(probe(normal_ratio=1.0, kl=0.0, normal_kept=1.2)) == 0.0
    assert rule.overrun(probe(normal_ratio=math.inf)) == math.inf


def test_looks_that_are_never_confirmed_end_it() -> None:
    """The quick probe is satisfied, the larger one is not, and nothing changes any more."""
    rule = StopRule(patience=3)
    actions = []
    for step in range(1, 9):
        decision = rule.look(probe(0.05, step=step))
        seen = probe(0.05, step=step)
        if decision.action == "confirm":
            seen = probe(0.2, step=step)
            decision = rule.confirm(seen)
        rule.is_best(seen)
        actions.append(decision.action)
        if decision.action == "stop":
            break
    # The first look is progress: there was none before it.
    assert actions == ["continue"] * 3 + ["stop"]


def test_what_scaling_back_would_do_is_not_waited_for() -> None:
    """Forgotten, but with the guards overrun by more than a quarter, and no nearer to them."""
    rule, actions = StopRule(probability=0.1, kl_budget=0.1, patience=10), []
    for kl in (0.18, 0.15, 0.16, 0.17, 0.18):
        actions.append(rule.look(probe(0.05, extraction_strength=0.0, kl=kl)).action)
    # Two more looks are granted.
    assert actions == ["continue"] * 2 + ["stop"] * 3


def test_probes_are_seldom_where_it_is_far_from_enough() -> None:
    """At a limit of 0.1, with the steps of a real run."""
    rule, waits = StopRule(every=6, patience=10), []
    for step, left in ((0, 0.43), (12, 0.291), (24, 0.15), (30, 0.142), (48, 0.127), (66, 0.107)):
        rule.look(probe(left, step=step))
        waits.append(rule.wait(probe(left, step=step)))
    # At first there is no rate; later it slows down; near the limit it may be enough any time.
    assert waits == [12, 12, 6, 12, 12, 6]


def test_probes_are_frequent_beside_the_guards() -> None:
    rule = StopRule(every=6, kl_budget=0.1)
    for step in (0, 6, 12):
        assert rule.wait(probe(0.5, step=step, kl=0.11)) == 6


def test_at_a_standstill_patience_counts_the_steps_between_probes() -> None:
    rule, step, decision = StopRule(every=6, patience=10), 0, None
    looks = 0
    while decision is None or decision.action != "stop":
        decision = rule.look(probe(0.5, step=step))
        step += rule.wait(probe(0.5, step=step))
        looks += 1
    assert decision.reason == "no progress for 60 steps"
    assert looks == 6


def test_best_is_the_lowest_within_the_guards() -> None:
    rule = StopRule()
    seen = [(1, 0.6, 0.0), (2, 0.4, 0.0), (3, 0.1, 1.0), (4, 0.4, 0.0), (5, 0.3, 0.0), (6, 0.35, 0.0)]
    assert [rule.is_best(probe(left, step=step, kl=kl)) for step, left, kl in seen] == [
        True, True, False, False, True, False,
    ]  # fmt: skip
    assert (rule.best_step, rule.best_remaining) == (5, pytest.approx(3.0))


@pytest.mark.parametrize(("strength", "clean"), [(0.0, True), (0.05, True), (0.06, False), (1.0, False)])
def test_clean(strength: float, clean: bool) -> None:
    # By what it says, not by the probability: common words are preferred by any model.
    assert StopRule().is_clean(probe(1.0, extraction_strength=strength)) is clean


def test_state_goes_through_a_file() -> None:
    levels = [0.9, 0.8, 0.8, 0.7, 0.7, 0.7, 0.7, 0.7]
    whole, actions = StopRule(patience=4), []
    for step, left in enumerate(levels):
        actions.append(whole.look(probe(left, step=step)).action)
        whole.is_best(probe(left, step=step))
    for cut in range(len(levels)):
        rule, found = StopRule(patience=4), []
        for step, left in enumerate(levels):
            if step == cut:
                rule = StopRule(**json.loads(json.dumps(rule.state())))
            found.append(rule.look(probe(left, step=step)).action)
            rule.is_best(probe(left, step=step))
        assert found == actions
        assert rule == whole
