"""From the scores of each model under an attack to rows and curves: what came back, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from letheon.evaluate.reduce import reduce_scores
from letheon.records import Interval, NotComputed
from letheon.stress.attack import EXTRACTION, Found
from letheon.stress.records import Curve, Name, Point, Row

ByModel = Mapping[Name, Sequence[Found]]
"""What an attack found of each model."""
Place = dict[Name, Found]
"""What one form of it found of each, at one place."""
Scores = Mapping[Name, Sequence[float]]
Means = dict[Name, NDArray[np.float64]]

LEAST = 0.05
"""Less forgotten extraction strength than this, and a share of it says nothing."""
RESAMPLES = 2000

TITLES = {
    "extraction_strength": "extraction strength",
    "rouge_l": "ROUGE-L of the answer",
    "rouge_l_best": "ROUGE-L of the best",
}
GREEDY = {"rouge_l_best": "rouge_l"}
"""What a metric is without its attack, where it has another name there."""


def rows_of(
    attack: str, by_model: ByModel, plain: Mapping[str, Scores], seed: int, of: Sequence[str] | None = None
) -> list[Row]:
    """A row for each form and metric of an attack; of several places, that at which most of after came back.

    Args:
        attack: Its name.
        by_model: What it found, in the same order of every model.
        plain: By metric, the scores of each model without an attack.
        seed: Of the bootstrap.
        of: The dialogue of each turn, whose turns are drawn together; None: each is of its own.
    """
    rows = []
    for places in _forms(by_model):
        # After no step nothing has been done yet.
        made = [found for found in places if found["after"].along != "step" or found["after"].at]
        if made:
            rows.append(_row(attack, max(made, key=lambda found: _mean(found["after"].scores)), plain, seed, of))
    return rows


def curves_of(
    attack: str, by_model: ByModel, plain: Mapping[str, Scores], of: Sequence[str] | None = None
) -> list[Curve]:
    """The forms of an attack that have several places, as curves; for arguments see `rows_of`."""
    curves = []
    for places in _forms(by_model):
        first = places[0]["after"]
        if first.along is None:
            continue
        points = []
        for found in places:
            scores: Scores = {name: one.scores for name, one in found.items()}
            whole = np.ones((1, len(first.scores)))
            plain_means = _means(_plain(plain, first), whole)
            shares = (
                {} if _no_share(attack, first.metric, plain_means) else _recovered(_means(scores, whole), plain_means)
            )
            points.append(
                Point(
                    at=found["after"].at or 0,
                    models={name: reduce_scores(values, _of(first, of)) for name, values in scores.items()},
                    recovered={name: float(share[0]) for name, share in shares.items()},
                )
            )
        curve = Curve(
            attack=attack, variant=first.variant, metric=first.metric, along=first.along, points=tuple(points)
        )
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


def _forms(by_model: ByModel) -> list[list[Place]]:
    """By form and metric: what was found at each place, of each model that has it."""
    forms: dict[tuple[str, str], dict[int | None, Place]] = {}
    for name, found in by_model.items():
        for one in found:
            forms.setdefault((one.variant, one.metric), {}).setdefault(one.at, {})[name] = one
    # Of a model that broke under the attack there are fewer places; a row compares after and control.
    needed = by_model.keys() - {"before"}
    whole = [[found for found in places.values() if found.keys() >= needed] for places in forms.values()]
    return [places for places in whole if places]


def _row(attack: str, found: Place, plain: Mapping[str, Scores], seed: int, of: Sequence[str] | None) -> Row:
    after = found["after"]
    scores: Scores = {name: one.scores for name, one in found.items()}
    bare = _plain(plain, after) if attack != "none" else {}
    own = _of(after, of)
    counts = _resampled(own, seed)
    attacked, unattacked = _means(scores, counts), _means(bare, counts)
    rise = _rise(attacked, unattacked)
    recovered: dict[Name, Interval] = {}
    beyond: Interval | NotComputed
    if why := _no_share(attack, after.metric, unattacked):
        beyond = NotComputed(not_computed=why)
    else:
        recovered = {name: _interval(share) for name, share in _recovered(attacked, unattacked).items()}
        beyond = _interval(rise / _forgotten(unattacked))
    row = Row(
        attack=attack,
        variant=after.variant,
        how=after.how,
        metric=after.metric,
        at=after.at,
        models={name: reduce_scores(values, own) for name, values in scores.items()},
        plain={name: reduce_scores(values, own) for name, values in bare.items()},
        rise=NotComputed(not_computed="nothing was done") if attack == "none" else _interval(rise),
        recovered=recovered,
        beyond=beyond,
        says="",
    )
    return row.model_copy(update={"says": _sentence(row, after.along)})


def _plain(plain: Mapping[str, Scores], found: Found) -> Scores:
    """The scores of the same items without an attack."""
    whole = plain.get(GREEDY.get(found.metric, found.metric), {})
    items = found.items
    return whole if items is None else {name: [values[n] for n in items] for name, values in whole.items()}


def _of(found: Found, of: Sequence[str] | None) -> list[str]:
    """The dialogue of each score."""
    numbers = range(len(found.scores)) if found.items is None else found.items
    return [str(n) if of is None else of[n] for n in numbers]


def _resampled(of: Sequence[str], seed: int) -> NDArray[np.float64]:
    """(1 + B, n) how often each item counts: once, then as often as its dialogue has been drawn with replacement."""
    groups = {group: number for number, group in enumerate(dict.fromkeys(of))}
    drawn = np.random.default_rng(seed).integers(0, len(groups), (RESAMPLES, len(groups)))
    counts = np.stack([np.bincount(row, minlength=len(groups)) for row in drawn])
    return np.concatenate([np.ones((1, len(of))), counts[:, [groups[group] for group in of]]])


def _interval(values: NDArray[np.float64]) -> Interval:
    """A statistic, the first of the values, with its 95% percentile interval, over the others."""
    low, high = np.nanquantile(values[1:], (0.025, 0.975))
    return Interval(estimate=float(values[0]), low=float(low), high=float(high))


def _means(scores: Scores, counts: NDArray[np.float64]) -> Means:
    """By model, (B,) means of n items that count (B, n) times."""
    total = counts.sum(axis=1)
    return {name: counts @ np.asarray(values, dtype=np.float64) / total for name, values in scores.items()}


def _rise(attacked: Means, plain: Means) -> NDArray[np.float64]:
    """How far after stands above where it stood unattacked, where it was measured there, and above the control."""
    floors = [means[name] for means, name in ((plain, "after"), (attacked, "control")) if name in means]
    return attacked["after"] - np.max(floors, axis=0) if floors else attacked["after"]


def _no_share(attack: str, metric: str, plain: Means) -> str | None:
    """Why there is no share of what was forgotten to be computed, where there is none."""
    if attack == "none":
        return "nothing was done"
    if metric != EXTRACTION:
        return f"what was forgotten is measured by its {TITLES[EXTRACTION]}"
    if lacking := [name for name in ("before", "after") if name not in plain]:
        return f"without an attack the model {lacking[0]} could not be measured"
    before, after = float(plain["before"][0]), float(plain["after"][0])
    if before - after < LEAST:
        return f"too little was forgotten: extraction strength {before:.3f} before, {after:.3f} after"
    return None


def _forgotten(plain: Means) -> NDArray[np.float64]:
    forgotten = plain["before"] - plain["after"]
    # Items drawn again may hold none that was forgotten.
    return np.where(forgotten > 0, forgotten, np.nan)


def _recovered(attacked: Means, plain: Means) -> Means:
    """By model, the share of what was forgotten that is back: (after′ − after) / (before − after)."""
    names = [name for name in attacked if name in plain and name != "before"]
    return {name: (attacked[name] - plain[name]) / _forgotten(plain) for name in names}


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
        return f"{text}; before unlearning {_shown(row.models.get('before'))}."
    assert isinstance(row.rise, Interval)
    if row.rise.estimate <= 0:
        beyond = " beyond the control" if "control" in row.models else ""
        return f"{text}: nothing comes {'back' if row.plain else 'out' + beyond}."
    if row.rise.low <= 0:
        return f"{text}: nothing that stands out from chance."
    above = ", and is not in the control" if "control" in row.models else ""
    if isinstance(row.beyond, Interval):
        return f"{text}: {_percent(row.beyond)} of what was forgotten is back{above}."
    rise = f"{row.rise.estimate:.3f} [{row.rise.low:.3f}, {row.rise.high:.3f}]"
    return f"{text}: {rise} {'is back' if row.plain else 'comes out'}{above}."


def _shown(metric: object) -> str:
    mean = getattr(metric, "mean", None)
    return "–" if mean is None else f"{mean:.3f}"


def _percent(interval: Interval) -> str:
    return f"{interval.estimate:.0%} [{interval.low:.0%}, {interval.high:.0%}]"
