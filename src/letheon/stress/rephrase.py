"""Rephrasing: in other words, in a role, in another language, with the answer begun, in a longer chat, with hints.

Forgetting one wording is not forgetting (arXiv 2406.13356, 2310.02949). Each scored turn is asked by the data's own
paraphrases (split "test") and by Letheon's templates (`rephrasings.yaml`), the n-th turn by the n-th template of each
kind; measured are the old answer under teacher forcing, after what the answer is made to begin with, and the greedy
answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

from letheon.chat import encode_prompt, encode_turn
from letheon.console import OnProgress
from letheon.models import Model
from letheon.rephrasing import Template, templates
from letheon.stress.attack import EXTRACTION, ROUGE, Found, Given, extraction, recalled
from letheon.stress.records import NotRun

HOW = {
    "paraphrase": "Asked by the data's own paraphrases",
    "translated": "Asked in another language's frame",
    "role-play": "Asked in a role",
    "prefix injection": 'With an answer made to begin as in "Sure, here is"',
    "longer chat": "Asked late in a longer chat",
    "hint": "Given the first quarter of the answer",
}


def rephrase(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """Ask in every way."""
    kinds = templates("stress")
    yield from _paraphrased(model, given)
    for number, (kind, listed) in enumerate(kinds.items(), start=1):
        update(number, 1 + len(kinds))
        yield from _asked(model, given, kind, [listed[n % len(listed)] for n in range(len(given.scored))])


def _paraphrased(model: Model, given: Given) -> Iterator[Found | NotRun]:
    items = [number for number, turns in enumerate(given.rewordings) if turns]
    if not items:
        yield NotRun(attack="rephrase", variant="paraphrase", why="the data has none (data.paraphrases, split test)")
        return
    turns = list(chain.from_iterable(given.rewordings))
    strength = extraction(model, [encode_turn(given.tokenizer, t, given.context) for t in turns], given.batch_size)
    recall, answers = recalled(model, given, [turn.prompt for turn in turns], turns)
    sizes = [len(given.rewordings[number]) for number in items]
    for metric, scores in ((EXTRACTION, strength), (ROUGE, recall)):
        left = iter(scores)
        means = [sum(next(left) for _ in range(size)) / size for size in sizes]
        shown = answers if metric == ROUGE and len(answers) == len(items) else ()
        yield Found("paraphrase", HOW["paraphrase"], metric, means, items=items, answers=shown)


def _asked(model: Model, given: Given, kind: str, ways: list[Template]) -> Iterator[Found | NotRun]:
    every = [way.encode(given.tokenizer, turn, None) for way, turn in zip(ways, given.scored, strict=True)]
    lengths = [len(sequence.ids) + given.max_new_tokens for sequence in every]
    items = [number for number, length in enumerate(lengths) if given.context is None or length <= given.context]
    if not items:
        yield NotRun(attack="rephrase", variant=kind, why=f"{min(lengths)} tokens are more than the model reads")
        return
    all_fit = len(items) == len(every)
    how = HOW[kind] if all_fit else f"{HOW[kind]} (the {len(items)} of {len(every)} that fit the model's context)"
    sequences, turns = [every[number] for number in items], [given.scored[number] for number in items]
    prompts = [ways[number].prompt(given.scored[number]) for number in items]
    begun = [
        sequence.ids[len(encode_prompt(given.tokenizer, prompt)) : sequence.answer_mask.index(True)]
        for sequence, prompt in zip(sequences, prompts, strict=True)
    ]
    found = partial(Found, kind, how, items=None if all_fit else items)
    yield found(EXTRACTION, extraction(model, sequences, given.batch_size))
    recall, answers = recalled(model, given, prompts, turns, begun)
    yield found(ROUGE, recall, answers=answers)
