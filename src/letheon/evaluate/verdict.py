"""Was it forgotten, what did it cost, and by which numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from letheon.recipe import Gates
from letheon.records import Estimate, Headline, ModelMetrics, NotComputed

BROKEN = math.nan
"""Of what was measured before and no longer can be: a broken model, which fails every check."""


@dataclass(frozen=True)
class Check:
    """A number against its threshold.

    Attributes:
        what: Its name, for people.
        value: The number.
        limit: The threshold.
        before: The same number before unlearning, where it is one of what had to be forgotten.
        stderr: Standard error of the number, where it is known; the threshold does not allow for it.
        at_most: Whether the number has to stay at or under the threshold, or at or over it.
    """

    what: str
    value: float
    limit: float
    before: float | None = None
    at_most: bool = True
    stderr: float | None = None

    @property
    def passed(self) -> bool:
        """Whether the threshold is kept."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign = ("≤" if self.at_most else "≥") if self.passed else (">" if self.at_most else "<")
        error = "" if self.stderr is None else f" ± {self.stderr:.3f}"
        return f"{self.what} {self.value:.3f}{error} {sign} {self.limit:.3f}"


def headline(metrics: Mapping[str, ModelMetrics], gates: Gates) -> Headline:
    """Say whether the model forgot, in one sentence with the numbers and their thresholds.

    Forgotten: with a control, probability and extraction strength on forget prompts and on paraphrases are at most
    the control's + margin; without one that could be measured, the probabilities are at most max_probability. Kept:
    the ratio of the held-out normal answers' probability after to before is at least min_normal, and that of the loss
    on general text at most max_general. What was measured before and no longer can be fails. The rule is ours.

    "yes": forgotten and kept. "partly": forgotten, but not kept (over-forgotten); or half-way there. "no": the
    probability of the old answers has not come half of the way from before to its threshold.

    Args:
        metrics: Of "before" and "after", and of "control" where there is one.
        gates: The thresholds.
    """
    before, after, control = (metrics.get(name, {}) for name in ("before", "after", "control"))
    if _mean(after, "forget", "probability") is None:
        found = after.get("forget", {}).get("probability")
        why = found.not_computed if isinstance(found, NotComputed) else "the model after was not evaluated"
        return Headline(forgotten="no", why=f"No evidence: the old answers' probability was not computed: {why}.")
    no_control = "there is no control"
    if control and _mean(control, "forget", "probability") is None:
        found = control.get("forget", {}).get("probability")
        why = f": {found.not_computed}" if isinstance(found, NotComputed) else ""
        no_control += f" that could be measured{why}"
        control = {}
    forgotten = _forgotten(before, after, control, gates)
    kept = _kept(before, after, gates)
    failed, broken = [c for c in forgotten if not c.passed], [c for c in kept if not c.passed]
    against = "the never-saw-it control's + margin" if control else f"the highest allowed ({no_control})"
    cost = _list(kept) if kept else "what it cost was not measured"
    if not failed and not broken:
        known = [c for c in forgotten if c.before is not None and c.before > c.limit]
        already = "" if known or not before else "; it did not say it before either"
        return Headline(forgotten="yes", why=f"Forgotten: {_list(forgotten)} ({against}){already}; kept: {cost}.")
    if not failed:
        return Headline(
            forgotten="partly",
            why=f"OVER-FORGOTTEN: {_list(broken)}; forgotten: {_list(forgotten)} ({against}).",
        )
    suffered = f"; and OVER-FORGOTTEN: {_list(broken)}" if broken else f"; kept: {cost}"
    if _half_way(forgotten[0]):
        return Headline(forgotten="partly", why=f"Only partly forgotten: {_list(failed)} ({against}){suffered}.")
    return Headline(forgotten="no", why=f"Not forgotten: {_list(failed)} ({against}){suffered}.")


def _forgotten(before: ModelMetrics, after: ModelMetrics, control: ModelMetrics, gates: Gates) -> list[Check]:
    """The checks of what had to be forgotten; the first is the probability on forget prompts."""
    checks = []
    for name in ("forget", "paraphrase"):
        for metric in ("probability", "extraction_strength"):
            old, value, floor = (_mean(metrics, name, metric) for metrics in (before, after, control))
            if value is None and old is not None:
                value = BROKEN
            if control:
                limit = None if floor is None else floor + gates.margin
            else:
                limit = gates.max_probability if metric == "probability" else None
            if value is not None and limit is not None:
                what = f"{name} {metric.replace('_', ' ')}"
                checks.append(Check(what, value, limit, old))
    return checks


def _kept(before: ModelMetrics, after: ModelMetrics, gates: Gates) -> list[Check]:
    """The checks of what had to be kept."""
    checks = []
    # Without held-out dialogues the trained ones say at least something.
    for name in ("normal_held_out", "normal_trained"):
        if found := _ratio(before, after, name, "probability"):
            what = f"{name.replace('_', ' ')} probability after/before"
            checks.append(Check(what, found.mean, gates.min_normal, at_most=False, stderr=found.stderr))
            break
    if found := _ratio(before, after, "general", "loss"):
        checks.append(Check("general loss after/before", found.mean, gates.max_general, stderr=found.stderr))
    return checks


def _half_way(check: Check) -> bool:
    """Whether a number has come at least half of the way from before to its threshold."""
    if check.passed:
        return True
    return check.before is not None and check.before - check.value >= (check.before - check.limit) / 2


def _ratio(before: ModelMetrics, after: ModelMetrics, name: str, metric: str) -> Estimate | None:
    """What a metric is after unlearning, as a multiple of what it was before; None where it was not measured."""
    found = after.get(name, {}).get(f"{metric}_ratio")
    if isinstance(found, Estimate):
        return found
    return Estimate(mean=BROKEN, stderr=None, n=0) if _mean(before, name, metric) else None


def _mean(metrics: ModelMetrics, name: str, metric: str) -> float | None:
    """A metric's mean, or None where it was not computed."""
    found = metrics.get(name, {}).get(metric)
    return found.mean if isinstance(found, Estimate) else None


def _list(checks: list[Check]) -> str:
    return ", ".join(str(check) for check in checks)
