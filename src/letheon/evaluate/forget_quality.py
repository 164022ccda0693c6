"""Forget quality: can a model's truth ratios be told from those of a model that never saw the data?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import scipy


class ForgetQuality(NamedTuple):
    """A two-sample Kolmogorov-Smirnov test.

    Attributes:
        p_value: In [0, 1]. Higher is better: below 0.05 the two are told apart.
        distance: sup |F − F_control| of the two distributions, in [0, 1]; lower is better.
    """

    p_value: float
    distance: float


def forget_quality(ratios: Sequence[float], control: Sequence[float]) -> ForgetQuality:
    """The p-value of the test that truth ratios on the forget set come from one distribution, and its statistic.

    TOFU (Maini et al., arXiv 2401.06121), §2.2.3. A p-value is no degree: it falls with the number of questions,
    falls again where more was forgotten than the control ever knew, and says nothing of which of the two it is. Read
    it last. NaN where either has no ratio, or one that is not finite.

    Args:
        ratios: `truth_ratio` of each question, of the model; any monotonic function of it does as well.
        control: The same of the control; of other questions, or another number of them, if need be.
    """
    if not ratios or not control or not all(map(math.isfinite, (*ratios, *control))):
        return ForgetQuality(math.nan, math.nan)
    found = scipy.stats.ks_2samp(list(ratios), list(control))
    return ForgetQuality(float(found.pvalue), float(found.statistic))
