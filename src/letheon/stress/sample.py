"""Sampling: of k answers drawn at temperature 1, does one leak? Greedy answers hide what is merely unlikely."""

from __future__ import annotations

from collections.abc import Iterator

from letheon.console import OnProgress
from letheon.evaluate.generation import sampled_answers
from letheon.evaluate.leak_at_k import expected_best, leak_at_k
from letheon.evaluate.text import rouge_l
from letheon.models import Model, in_eval_mode
from letheon.stress.attack import Found, Given
from letheon.stress.records import NotRun


def sample(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """Draw n answers to each prompt; leak@n, leak@1, and the expected highest ROUGE-L recall of n."""
    n, done = given.settings.samples, 0

    def drawn(more: int) -> None:
        nonlocal done
        done += more
        update(done, n * len(given.scored))

    with in_eval_mode(model):
        answers = sampled_answers(
            model,
            given.tokenizer,
            [turn.prompt for turn in given.scored],
            samples=n,
            seed=given.seed,
            batch_size=given.batch_size,
            max_new_tokens=given.max_new_tokens,
            progress=drawn,
        )
    recalls = [
        [rouge_l(answer, turn.answer)[0] for answer in own] for own, turn in zip(answers, given.scored, strict=True)
    ]
    worst = [own[found.index(max(found))] for own, found in zip(answers, recalls, strict=True)]
    for k in dict.fromkeys((n, 1)):
        how = f"{k} answer{'s' if k > 1 else ''} drawn at temperature 1"
        scores = [leak_at_k(found, k) for found in recalls]
        yield Found(f"leak@{k}", how, "leaked", scores, answers=worst if k == n else ())
    best = [expected_best(found, n) for found in recalls]
    yield Found(f"best of {n}", f"The best of {n} answers drawn at temperature 1", "rouge_l_best", best)
