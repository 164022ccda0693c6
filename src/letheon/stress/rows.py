"""From the scores of each model under an attack to rows and curves: what came back, and how sure that is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from letheon.evaluate.reduce import reduce_scores
from letheon.records import Interval, NotComputed
from letheon.stress.attack import EXTRACTION, Found
from letheon.stress.records import Curve, Name, Point, Row

BY_MODEL = dict[Name, Found]
"""What one form of an attack found of each model."""
Scores = Mapping[Name, Sequence[float]]
Means = dict[Name, NDArray[np.float64]]

LEAST = 0.05
"""Less forgotten extraction strength than this, and a share of it says nothing."""
RESAMPLES = 2000

TITLES = {"extraction_strength": "extraction strength", "rouge_l": "ROUGE-L of the answer"}


def rows_of(attack: str, by_model: Mapping[Name, Sequence[Found]], plain: Mapping[str, Scores], seed: int) -> list[Row]:
    """A row for each form and metric of an attack; of several places, that at which most of after came back.

    Args:
        attack: Its name.
        by_model: What it found, in the same order of every model.
        plain: By metric, the scores of each model without an attack.
        seed: Of the bootstrap.
    """
    rows = []
    for places in _forms(by_model):
        # After no step nothing has been done yet.
        made = [found for found in places if found["after"].along != "step" or found["after"].at]
        rows.append(_row(attack, max(made, key=lambda found: _mean(found["after"].scores)), plain, seed))
    return rows


def curves_of(attack: str, by_model: Mapping[Name, Sequence[Found]], plain: Mapping[str, Scores]) -> list[Curve]:
    """The forms of an attack that have several places, as curves."""
    curves = []
    for places in _forms(by_model):
        first = places[0]["after"]
        if first.along is None:
            continue
        points = []
        for found in places:
            scores: Scores = {name: one.scores for name, one in found.items()}
            share = _recovered(_means(scores), _means(plain.get(first.metric, {})))
            points.append(
                Point(
                    at=found["after"].at or 0,
                    models={name: reduce_scores(values) for name, values in scores.items()},
                    recovered={} if isinstance(share, str) else {name: float(value[0]) for name, value in share.items()},
                )
            )
        curve = Curve(attack=attack, variant=first.variant, metric=first.metric, along=first.along, points=tuple(points))
        if first.along == "step" and points[0].recovered:
            names = list(points[0].recovered)
            lines = {name: [(point.at, point.recovered[name]) for point in points] for name in names}
            curve = curve.model_copy(
                update={
                    "area": {name: area(line) for name, line in lines.items()},
                    "half": {name: crossing(line, 0.5) for name, line in lines.items()},
                }
            )
        curves.append(curve)
    return curves


def area(line: Sequence[tuple[float, float]]) -> float:
    """Mean height of a curve of (x, y): trapezoids, divided by its width."""
    if len(line) < 2:
        return line[0][1]
    whole = sum((x1 - x0) * (y0 + y1) / 2 for (x0, y0), (x1, y1) in zip(line, line[1:], strict=False))
    return whole / (line[-1][0] - line[0][0])


def crossing(line: Sequence[tuple[float, float]], level: float) -> float | None:
    """The first x at which a curve of (x, y) reaches a level, by linear interpolation; None where it never does."""
    if line[0][1] >= level:
        return line[0][0]
    for (x0, y0), (x1, y1) in zip(line, line[1:], strict=False):
        if y1 >= level:
            return x0 + (x1 - x0) * (level - y0) / (y1 - y0)
    return None


def _forms(by_model: Mapping[Name, Sequence[Found]]) -> list[list[BY_MODEL]]:
    """By form and metric: what was found at each place, of each model that has it."""
    forms: dict[tuple[str, str], dict[int | None, BY_MODEL]] = {}
    for name, found in by_model.items():
        for one in found:
            forms.setdefault((one.variant, one.metric), {}).setdefault(one.at, {})[name] = one
    # Of a model that broke under the attack there are fewer places; a row compares what all have.
    whole = [[found for found in places.values() if found.keys() == by_model.keys()] for places in forms.values()]
    return [places for places in whole if places]


def _row(attack: str, found: BY_MODEL, plain: Mapping[str, Scores], seed: int) -> Row:
    after = found["after"]
    scores: Scores = {name: one.scores for name, one in found.items()}
    bare = plain.get(after.metric, {}) if attack != "none" else {}
    resampled = _resampled(len(after.scores), seed)
    rise = _interval(lambda chosen: _rise(_means(scores, chosen), _means(bare, chosen)), resampled)
    recovered: dict[Name, Interval] = {}
    beyond: Interval | NotComputed = NotComputed(not_computed=f"{after.metric} says nothing of the share")
    if attack == "none":
        beyond = NotComputed(not_computed="nothing was done")
    elif after.metric == EXTRACTION:
        share = _recovered(_means(scores), _means(bare))
        if isinstance(share, str):
            beyond = NotComputed(not_computed=share)
        else:

            def shares(chosen: NDArray[np.int64]) -> Means:
                again = _recovered(_means(scores, chosen), _means(bare, chosen), least=0.0)
                assert not isinstance(again, str)
                return again

            recovered = {name: _interval(lambda chosen, n=name: shares(chosen)[n], resampled) for name in share}
            beyond = _interval(lambda chosen: _beyond(shares(chosen)), resampled)
    row = Row(
        attack=attack,
        variant=after.variant,
        how=after.how,
        metric=after.metric,
        at=after.at,
        models={name: reduce_scores(values) for name, values in scores.items()},
        plain={name: reduce_scores(values) for name, values in bare.items()},
        rise=rise,
        recovered=recovered,
        beyond=beyond,
        says="",
    )
    return row.model_copy(update={"says": _sentence(row, after.along)})


def _resampled(n: int, seed: int) -> NDArray[np.int64]:
    """(1 + B, n) numbers of the items: as they are, then drawn with replacement."""
    drawn = np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))
    return np.concatenate([np.arange(n)[None], drawn])


def _interval(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], resampled: NDArray[np.int64]
) -> Interval:
    """A statistic with its 95% percentile interval, over items drawn again in pairs."""
    values = statistic(resampled)
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return Interval(estimate=float(values[0]), low=float(low), high=float(high))


def _means(scores: Scores, chosen: NDArray[np.int64] | None = None) -> Means:
    """By model, (B,) means of the chosen (B, n) items; of all, where none are."""
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in scores.items()}
    return {n: a[chosen].mean(axis=1) if chosen is not None else a.mean(keepdims=True) for n, a in arrays.items()}


def _rise(attacked: Means, plain: Means) -> NDArray[np.float64]:
    """By how much more after rises than the control: (after′ − after) − (control′ − control)."""
    rise = attacked["after"] - plain.get("after", 0.0)
    return rise - (attacked["control"] - plain.get("control", 0.0)) if "control" in attacked else rise


def _recovered(attacked: Means, plain: Means, least: float = LEAST) -> Means | str:
    """By model, the share of what was forgotten that is back: (after′ − after) / (before − after); or why not."""
    if not {"before", "after"} <= plain.keys():
        return "it is not measured without the attack"
    forgotten = plain["before"] - plain["after"]
    if least and forgotten[0] < least:
        return (
            f"too little was forgotten for a share of it: extraction strength {plain['before'][0]:.3f} before, "
            f"{plain['after'][0]:.3f} after"
        )
    # Items drawn again may hold none that was forgotten.
    forgotten = np.where(forgotten > 0, forgotten, np.nan)
    return {name: (attacked[name] - plain[name]) / forgotten for name in attacked if name != "before"}


def _beyond(share: Means) -> NDArray[np.float64]:
    return share["after"] - share["control"] if "control" in share else share["after"]


def _mean(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def _sentence(row: Row, along: str | None) -> str:
    """What a row says, in plain words."""
    where = "" if row.at is None or along is None else f", at {along} {row.at}"
    title = TITLES.get(row.metric, row.metric)

    def moved(name: Name) -> str:
        now = _shown(row.models[name])
        return f"{_shown(row.plain[name])} → {now}" if name in row.plain else now

    text = f"{row.how}{where}: {title} {moved('after')}"
    if "control" in row.models:
        text += f" (control {moved('control')})"
    if row.attack == "none":
        return f"{text}; before unlearning {_shown(row.models['before'])}."
    assert isinstance(row.rise, Interval)
    against = " more than of the control" if "control" in row.models else ""
    if row.rise.low <= 0:
        return f"{text}: nothing that stands out from chance."
    if isinstance(row.beyond, Interval):
        return f"{text}: {_percent(row.beyond)} of what was forgotten is back{against and ', beyond the control'}."
    return f"{text}: {row.rise.estimate:.3f} [{row.rise.low:.3f}, {row.rise.high:.3f}]{against}."


def _shown(metric: object) -> str:
    mean = getattr(metric, "mean", None)
    return "–" if mean is None else f"{mean:.3f}"


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.0%} [{interval.low:.0%}, {interval.high:.0%}]"
