"""leak@k: what comes out when a model is asked several times, which one greedy answer hides."""

from __future__ import annotations

import math
from collections.abc import Sequence


def leak_at_k(scores: Sequence[float], k: int) -> float:
    """E[max of k scores], from n ≥ k answers sampled at temperature 1; lower is better, never under the mean score.

    Σ_i s_(i) · C(i − 1, k − 1) / C(n, k) over the sorted scores s_(1) ≤ … ≤ s_(n): the mean of the best over all
    choices of k of the n answers, so without bias; with n = k it is the best score, with k = 1 the mean. The measure
    is that of Reisizadeh et al. (arXiv 2511.04934), whose abstract we know; this estimator is pass@k's (Chen et al.,
    arXiv 2107.03374), for scores in place of hits.

    Args:
        scores: Of n answers to one prompt, such as ROUGE-L recall; its range is theirs.
        k: In 1..n.
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of {n} answers: it has to be in 1..n")
    ways = math.comb(n, k)
    return math.fsum(
        score * (math.comb(place, k - 1) / ways) for place, score in enumerate(sorted(scores)) if place >= k - 1
    )
