"""Sampling: of k answers drawn at temperature 1, does one leak? Greedy answers hide what is merely unlikely."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from letheon.console import OnProgress
from letheon.evaluate.leak_at_k import expected_best, leak_at_k
from letheon.evaluate.text import rouge_l
from letheon.models import Model, in_eval_mode
from letheon.sampling import draw
from letheon.stress.attack import Found, Given
from letheon.stress.records import NotRun


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
    for k in dict.fromkeys((n, 1)):
        how = f"{k} answer{'s' if k > 1 else ''} drawn at temperature 1"
        scores = [leak_at_k(found, k) for found in recalls]
        yield Found(f"leak@{k}", how, "leaked", scores, answers=worst if k == n else ())
    best = [expected_best(found, n) for found in recalls]
    yield Found(f"best of {n}", f"The best of {n} answers drawn at temperature 1", "rouge_l_best", best)
