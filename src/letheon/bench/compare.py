"""A model's metrics against those of the victim and the control: what was forgotten, what was kept, one score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from letheon.bench.task import Goal, Metrics, Task
from letheon.evaluate.reduce import harmonic_mean

KEPT = 0.95
"""The share of the victim's utility, and of its kept answers' probability, that is asked."""
ABSTENTIONS = 0.02
"""How far above the control's abstentions on questions to be answered may be."""


def compared(task: Task, own: Metrics, before: Metrics, control: Metrics) -> Metrics:
    """A model's metrics, with what they are worth.

    forgetting: mean over the goals of 1 − (excess over what is allowed beside the control's level) / (the victim's),
    in [0, 1]; 1 is the control's level. utility: harmonic mean of what was kept of the victim's, each at most 1, so
    that no gain pays for a loss; in [0, 1]. score: harmonic mean of both and of 1 − abstentions above the control's;
    by it settings are chosen. reached: 1 where every goal is met at 95% of utility and of kept answers, with at most
    two points of abstentions more than the control's.
    """
    found = own | task.relative(own, control)
    target = control | task.relative(control, control)
    start = before | task.relative(before, control)
    shares = [ratio(found["kept"], before["kept"]), ratio(before["general_loss"], found["general_loss"])]
    # Of what the victim never had there is nothing to keep.
    shares += [ratio(found[name], before[name]) for name in task.keeps if before[name] > 0]
    above = found["abstentions"] - control["abstentions"]
    above = 0.0 if above <= 0 else above
    forgetting = closeness(task.goals, found, start, target)
    # Not min(1, share), which makes 1 of NaN.
    utility = harmonic_mean([1.0 if share > 1 else share for share in shares])
    met = all(goal.excess(found[goal.metric], target[goal.metric]) <= 0 for goal in task.goals)
    useful = utility >= KEPT and shares[0] >= KEPT and above <= ABSTENTIONS
    return found | {
        "kept_share": shares[0],
        "general_share": shares[1],
        "forgetting": forgetting,
        "utility": utility,
        "score": harmonic_mean([forgetting, utility, 1 - above]),
        "goals_met": float(met),
        "reached": float(met and useful),
    }


def closeness(goals: Sequence[Goal], own: Mapping[str, float], before: Metrics, control: Metrics) -> float:
    """How much of the way from the victim to the control's level has been made, the mean over the goals; in [0, 1].

    A metric on which the victim is at the level already says nothing, unless the level is left; 1 where none says
    anything. NaN where a metric is.
    """
    made = []
    for goal in goals:
        left = goal.excess(own[goal.metric], control[goal.metric])
        way = goal.excess(before[goal.metric], control[goal.metric])
        if math.isnan(left):
            return math.nan
        if way > 0:
            made.append(max(0.0, 1 - left / way))
        elif left > 0:
            made.append(0.0)
    return math.fsum(made) / len(made) if made else 1.0


def ratio(value: float, before: float) -> float:
    """What a metric is of what it was; NaN of nothing."""
    return value / before if before > 0 else math.nan
