"""What a judge's score is worth, told by labelled examples: it becomes how often the judge is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.special import expit

from letheon.records import NORMAL
from letheon.screen.combine import Combine, Given, log_odds
from letheon.screen.judge import Opinion

FEWEST_TO_SCALE = 10
"""Opinions on turns of either label, from which on a judge's score is calibrated."""

FLAT = 0.1
"""A judge of a smaller a says about the same of every answer (ours)."""


class Calibrated:
    """Platt's scaling of each judge's score, p = σ(a · log-odds(score) + b), and then another combination.

    Platt (1999), with his smoothed targets: (n₊ + 1) / (n₊ + 2) for what is to be forgotten, 1 / (n₋ + 2) for the
    rest. a is at least 0: a judge that is wrong more often than right says the share of what is to be forgotten, not
    the opposite of what it thinks. Such a judge (a < `FLAT`) is heard only where no other has an opinion: that share
    would be a floor under every score. A score of a judge that was not fitted stays as it is, and so does one of
    "normal": who finds nothing has nothing to be scaled.
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
            found = any(opinion.category != NORMAL for opinion, _ in own)
            if found and min(truth.sum(), (~truth).sum()) >= FEWEST_TO_SCALE:
                scale = platt(scores, truth)
                # Of what a judge looks for, examples of other kinds alone do not say that it is wrong.
                if scale[0] >= FLAT or looked_for:
                    scales[judge] = scale
        return cls(combine, scales)

    def __call__(self, given: Sequence[Given]) -> Given:
        """Scale, then combine."""
        telling = [one for one in given if one[0] not in self.flat]
        return self._combine([(judge, self._scaled(judge, opinion)) for judge, opinion in telling or given])

    @property
    def flat(self) -> set[str]:
        """The judges whose scores do not tell the examples apart."""
        return {judge for judge, (slope, _) in self.scales.items() if slope < FLAT}

    def _scaled(self, judge: str, opinion: Opinion) -> Opinion:
        if judge not in self.scales or opinion.unable or opinion.category == NORMAL:
            return opinion
        slope, offset = self.scales[judge]
        return replace(opinion, score=float(expit(slope * log_odds(opinion.score) + offset)))


def platt(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """The a ≥ 0 and the b of σ(a · log-odds(score) + b), by the likelihood of Platt's targets; a = 0 of one score."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    targets = np.where(truth, (positive + 1) / (positive + 2), 1 / (negative + 2))
    odds = log_odds(scores)

    def loss(scale: NDArray[np.float64]) -> float:
        z = scale[0] * odds + scale[1]
        return float(np.sum(np.logaddexp(0, z) - targets * z))

    base = float(np.log(positive / negative))
    if np.ptp(odds) == 0:
        # Any a fits one score, with its b.
        return 0.0, base
    found = scipy.optimize.minimize(
        loss, np.array([1.0, base]), method="L-BFGS-B", bounds=[(0, None), (None, None)]
    ).x
    return float(found[0]), float(found[1])
