"""How several judges' opinions on one turn become one."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from letheon.errors import MissingExtraError
from letheon.screen.judge import Opinion

Given = tuple[str, Opinion]
"""A judge's name and its opinion."""
FEWEST_TO_SCALE = 10
"""Opinions on turns of either label, from which on a judge's score is calibrated."""


class Combine(Protocol):
    """Makes one opinion of the opinions on one turn, of which there is at least one."""

    def __call__(self, given: Sequence[Given]) -> Given:
        """The judge that decided, and the opinion."""
        ...


def highest(given: Sequence[Given]) -> Given:
    """The highest score of all decides; at a tie the earlier judge."""
    return max(given, key=lambda one: one[1].score)


def mean(given: Sequence[Given]) -> Given:
    """The mean score of the judges that named a category is its score; the highest category decides.

    The judge of the highest score in it gives the span and the reason.
    """
    by_category: dict[str, list[Given]] = {}
    for one in given:
        by_category.setdefault(one[1].category, []).append(one)
    scores = {category: sum(o.score for _, o in own) / len(own) for category, own in by_category.items()}
    category = max(scores, key=lambda name: scores[name])
    judge, opinion = highest(by_category[category])
    return judge, Opinion(category, scores[category], opinion.span, opinion.reason)


class Stacked:
    """A logistic regression on the judges' scores: score = σ(w · x + b).

    x holds the log-odds of each judge's score, and for each judge a 1 where it had no opinion (its log-odds are 0
    then). The category, span and reason are those of the highest score.
    """

    def __init__(self, judges: Sequence[str], model: Any):
        self._judges = list(judges)
        self._model = model

    @classmethod
    def fit(cls, judges: Sequence[str], given: Sequence[Sequence[Given]], labels: Sequence[bool]) -> Stacked:
        """Fit on turns with labels, judged by judges that had not seen them.

        Args:
            judges: Their names, each once.
            given: The opinions on each turn.
            labels: Whether each turn is to be forgotten.

        Raises:
            MissingExtraError: scikit-learn is not installed.
        """
        try:
            linear = importlib.import_module("sklearn.linear_model")
        except ImportError:
            raise MissingExtraError("screen.combine: stacked", "screen") from None
        rows = np.stack([_row(judges, own) for own in given])
        return cls(judges, linear.LogisticRegression().fit(rows, np.asarray(labels, dtype=int)))

    def __call__(self, given: Sequence[Given]) -> Given:
        """Combine."""
        judge, opinion = highest(given)
        score = float(self._model.predict_proba(_row(self._judges, given)[None])[0, 1])
        return judge, Opinion(opinion.category, score, opinion.span, opinion.reason)


def _row(judges: Sequence[str], given: Sequence[Given]) -> NDArray[np.float64]:
    by_name = {name: float(log_odds(opinion.score)) for name, opinion in given}
    odds = [by_name.get(name, 0.0) for name in judges]
    return np.array([*odds, *(float(name not in by_name) for name in judges)])


class Calibrated:
    """Platt's scaling of each judge's score, p = σ(a · log-odds(score) + b), and then another combination.

    Platt (1999), with his smoothed targets: (n₊ + 1) / (n₊ + 2) for what is to be forgotten, 1 / (n₋ + 2) for the
    rest. a is at least 0: a judge that is wrong more often than right says the share of what is to be forgotten, not
    the opposite of what it thinks. A score of a judge that was not fitted stays as it is.
    """

    def __init__(self, combine: Combine, scales: Mapping[str, tuple[float, float]]):
        self._combine, self.scales = combine, dict(scales)

    @classmethod
    def fit(
        cls, combine: Combine, judges: Sequence[str], given: Sequence[Sequence[Given]], kinds: Sequence[str | None]
    ) -> Calibrated:
        """Fit on turns with labels, judged by judges that had not seen them.

        A judge is held to what it looks for: what is to be forgotten in a category that it names. Otherwise one that
        sees private data alone would say of every harmless answer how many are undesired of another kind.

        Args:
            combine: What makes one of the scaled opinions.
            judges: Names of those to calibrate, each once. One with fewer than `FEWEST_TO_SCALE` opinions on turns of
                either label is left as it is.
            given: The opinions on each turn.
            kinds: The category of each turn that is to be forgotten; None of the others.
        """
        scales = {}
        for judge in judges:
            own = [(o, kind) for ones, kind in zip(given, kinds, strict=True) for name, o in ones if name == judge]
            looked_for = {opinion.category for opinion, _ in own} & {kind for _, kind in own if kind is not None}
            scores = np.array([opinion.score for opinion, _ in own])
            # One whose categories have other names than those of the examples is held to all of them.
            truth = np.array([kind is not None and (not looked_for or kind in looked_for) for _, kind in own])
            if min(truth.sum(), (~truth).sum()) >= FEWEST_TO_SCALE:
                scales[judge] = platt(scores, truth)
        return cls(combine, scales)

    def __call__(self, given: Sequence[Given]) -> Given:
        """Scale, then combine."""
        return self._combine([(judge, self._scaled(judge, opinion)) for judge, opinion in given])

    def _scaled(self, judge: str, opinion: Opinion) -> Opinion:
        if judge not in self.scales or opinion.unable:
            return opinion
        slope, offset = self.scales[judge]
        return replace(opinion, score=float(expit(slope * log_odds(opinion.score) + offset)))


def platt(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """A ≥ 0 and b of σ(a · log-odds(score) + b), by the likelihood of Platt's targets."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    odds = log_odds(scores)

    def loss(scale: NDArray[np.float64]) -> float:
        z = scale[0] * odds + scale[1]
        return float(np.sum(np.logaddexp(0, z) - targets * z))

    base = float(np.log(positive / negative))
    found = minimize(loss, np.array([1.0, base]), method="L-BFGS-B", bounds=[(0, None), (None, None)]).x
    return float(found[0]), float(found[1])


def log_odds(score: Any) -> Any:
    """log(p / (1 − p)), of scores kept off 0 and 1."""
    kept = np.clip(score, 0.01, 0.99)
    return np.log(kept / (1 - kept))
