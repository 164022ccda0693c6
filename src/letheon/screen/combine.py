"""How several judges' opinions on one turn become one."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from letheon.errors import MissingExtraError
from letheon.screen.judge import Opinion

Given = tuple[str, Opinion]
"""A judge's name and its opinion."""


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


def log_odds(score: Any) -> Any:
    """log(p / (1 − p)), of scores kept off 0 and 1."""
    kept = np.clip(score, 0.01, 0.99)
    return np.log(kept / (1 - kept))
