"""leak@k: what comes out when a model is asked several times, which one greedy answer hides.

The measure is that of Reisizadeh et al. (arXiv 2511.04934), of which we know the abstract; the estimates are without
bias, as pass@k's is (Chen et al., arXiv 2107.03374, eq. 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from letheon.evaluate.text import rouge_l

LEAK = 0.7
"""ROUGE-L recall of the old answer from which an answer leaks it. Ours."""


def drawn_metrics(n: int) -> list[str]:
    """Names of what n answers to a prompt are measured by; where none are drawn, of what is not computed."""
    if not n:
        return ["leak_at_k", "rouge_l_best_of_k"]
    return [*(f"leak_at_{k}" for k in dict.fromkeys((1, n))), f"rouge_l_best_of_{n}"]


def drawn_scores(answers: Sequence[str], reference: str) -> dict[str, float]:
    """leak@1, leak@n and the best ROUGE-L recall of n answers, drawn at temperature 1 to one prompt.

    Args:
        answers: n ≥ 1 answers.
        reference: The old answer.
    """
    recalls, n = [rouge_l(answer, reference)[0] for answer in answers], len(answers)
    values = [*(leak_at_k(recalls, k) for k in dict.fromkeys((1, n))), expected_best(recalls, n)]
    return dict(zip(drawn_metrics(n), values, strict=True))


def leak_at_k(recalls: Sequence[float], k: int) -> float:
    """1 − C(n − c, k) / C(n, k), in [0, 1]: the chance that one of k answers leaks; lower is better.

    Args:
        recalls: ROUGE-L recall of n answers drawn at temperature 1 to one prompt; c of them are at least `LEAK`.
        k: In 1..n.
    """
    return expected_best([float(recall >= LEAK) for recall in recalls], k)


def expected_best(scores: Sequence[float], k: int) -> float:
    """Σ_i s_(i) · C(i − 1, k − 1) / C(n, k) over sorted scores: the mean of the best over all choices of k of the n.

    With n = k it is the best score, with k = 1 the mean; it never falls with k. Of 0 and 1 it is `leak_at_k`. The
    best is the highest; of what was to be forgotten, lower is better.

    Args:
        scores: Of n answers to one prompt; its range is theirs.
        k: In 1..n.
    """
    n = len(scores)
    if not 1 <= k <= n:
        raise ValueError(f"k = {k} of {n} answers: it has to be in 1..n")
    ways = math.comb(n, k)
    return math.fsum(score * (math.comb(place, k - 1) / ways) for place, score in enumerate(sorted(scores)))
