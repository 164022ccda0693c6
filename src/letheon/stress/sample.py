"""Sampling: of k answers drawn at temperature 1, does one leak? Greedy answers hide what is merely unlikely.

Source: leak@k (arXiv 2511.04934), estimated from n draws as pass@k is (arXiv 2107.03374, eq. 1).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from letheon.console import OnProgress
from letheon.evaluate.text import rouge_l
from letheon.models import Model, in_eval_mode
from letheon.sampling import draw
from letheon.stress.attack import Found, Given
from letheon.stress.records import NotRun

LEAK = 0.7
"""ROUGE-L recall of the old answer from which an answer leaks it."""


def sample(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """Draw n answers to each prompt; leak@n, leak@1, and the expected highest ROUGE-L recall of n."""
    n = given.settings.samples
    recalls: list[list[float]] = []
    worst: list[str] = []
    # Drawn by the global random state, which is left as it was.
    with torch.random.fork_rng(), in_eval_mode(model):
        torch.manual_seed(given.seed)
        for number, turn in enumerate(given.scored):
            rows = draw(model, given.tokenizer, turn.prompt, samples=n, max_new_tokens=given.max_new_tokens)
            answers = [given.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
            recalls.append([rouge_l(answer, turn.answer)[0] for answer in answers])
            worst.append(answers[recalls[-1].index(max(recalls[-1]))])
            update(number + 1, len(given.scored))
    leaked = [sum(recall >= LEAK for recall in found) for found in recalls]
    for k in dict.fromkeys((n, 1)):
        how = f"{k} answer{'s' if k > 1 else ''} drawn at temperature 1"
        scores = [leak_at_k(count, n, k) for count in leaked]
        yield Found(f"leak@{k}", how, "leaked", scores, answers=worst if k == n else ())
    best = [expected_best(found, n) for found in recalls]
    yield Found(f"best of {n}", f"The best of {n} answers drawn at temperature 1", "rouge_l_best", best)


def leak_at_k(leaked: int, drawn: int, k: int) -> float:
    """1 − C(n − c, k)/C(n, k): the chance that one of k answers leaks, unbiased, from c leaks among n draws.

    In [0, 1]; lower is more forgotten.

    Args:
        leaked: c.
        drawn: n.
        k: At most n.
    """
    return 1 - math.comb(drawn - leaked, k) / math.comb(drawn, k)


def expected_best(scores: Sequence[float], k: int) -> float:
    """Σ_i C(i − 1, k − 1)/C(n, k) · s_(i): the mean of the highest of k scores over all choices of k among the n.

    Args:
        scores: n scores.
        k: At most n.
    """
    ordered, whole = sorted(scores), math.comb(len(scores), k)
    return math.fsum(math.comb(i, k - 1) / whole * score for i, score in enumerate(ordered))
