"""Relearning: a few steps of ordinary fine-tuning, and what they bring back of what they were not about.

A forgotten answer that returns when its like is taught, or anything at all, was hidden rather than gone
(arXiv 2406.13356, 2409.18025). A copy of the model is fine-tuned on (a) other items that had to be forgotten, (b)
normal dialogues of the same log, (c) plain text; the extraction strength of the scored answers is taken along the
way. Fixed: AdamW (β 0.9, 0.999; no weight decay), all weights, constant rate, four sequences a step, dealt from
shuffled decks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from itertools import chain, islice

import torch
from torch.nn.functional import cross_entropy

from letheon.chat import Encoded, encode_dialogue, encode_text, encode_turn
from letheon.console import OnProgress
from letheon.forward import answer_logits, batch_for
from letheon.models import Model, as_before, fast_bf16
from letheon.split import spread
from letheon.stress.attack import EXTRACTION, Found, Given, extraction
from letheon.stress.records import NotRun

BATCH = 4
TEXT = 256
"""Tokens that are read of a paragraph."""


def relearn(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """Fine-tune copies on each kind of text, and score them on the way."""
    tokenizer, length, most = given.tokenizer, given.context, given.settings.steps * BATCH
    texts: dict[str, tuple[str, list[Encoded], str]] = {
        "forget items": (
            f"Fine-tuned on {len(given.relearned)} other items that were forgotten",
            [encode_turn(tokenizer, turn, length) for turn in given.relearned],
            "too few dialogues had to be forgotten to hold some out (three are needed)",
        ),
        "normal dialogues": (
            "Fine-tuned on normal dialogues of the same log",
            [encode_dialogue(tokenizer, dialogue, length) for dialogue in spread(given.normal, most)],
            "there are no normal dialogues",
        ),
        "unrelated text": (
            "Fine-tuned on unrelated plain text",
            [encode_text(tokenizer, text, min(length or TEXT, TEXT)) for text in spread(given.general, most)],
            "there is no general text (data.general)",
        ),
    }
    done, total = 0, given.settings.steps * sum(bool(sequences) for _, sequences, _ in texts.values())
    for variant, (how, sequences, missing) in texts.items():
        if not sequences:
            yield NotRun(attack="relearn", variant=variant, why=missing)
            continue
        with as_before(list(model.parameters())):
            for step, loss in chain([(0, 0.0)], fine_tuned(model, sequences, given, variant)):
                if not math.isfinite(loss):
                    why = f"the loss is not finite at step {step}: lower stress.learning_rate"
                    yield NotRun(attack="relearn", variant=variant, why=why)
                    break
                if step in looks(given.settings.steps):
                    scores = extraction(model, given.sequences, given.batch_size)
                    yield Found(variant, how, EXTRACTION, scores, at=step, along="step")
                update(done + step, total)
        done += given.settings.steps


def looks(steps: int) -> list[int]:
    """The steps after which is looked: 0, the powers of two, and the last."""
    return [0, *(2**n for n in range(steps.bit_length()) if 2**n < steps), steps]


def fine_tuned(model: Model, sequences: Sequence[Encoded], given: Given, variant: str) -> Iterator[tuple[int, float]]:
    """Fine-tune all weights in place, a step at a time.

    Yields:
        The number of steps made, and the loss of the last.
    """
    parameters = list(model.parameters())
    frozen = [p for p in parameters if not p.requires_grad]
    rate = given.settings.learning_rate or usual_rate(sum(p.numel() for p in parameters))
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    cards = _dealt(sequences, random.Random(f"{given.seed}-relearn-{variant}"))
    training = model.training
    model.requires_grad_(True).train()
    try:
        for step in range(1, given.settings.steps + 1):
            batch = batch_for(model, list(islice(cards, BATCH)), given.tokenizer.pad_token_id)
            with torch.autocast(model.device.type, torch.bfloat16, enabled=fast_bf16()):
                logits, targets, _ = answer_logits(model, batch)
                loss = cross_entropy(logits.float(), targets)
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            yield step, float(loss.detach())
    finally:
        optimizer.zero_grad()
        model.train(training)
        for parameter in frozen:
            parameter.requires_grad_(False)


def usual_rate(parameters: int) -> float:
    """The learning rate by size: high enough for a few steps to teach, as those of fine-tuning are."""
    if parameters < 5e8:
        return 1e-4
    return 2e-5 if parameters < 4e9 else 1e-5


def _dealt(sequences: Sequence[Encoded], draw: random.Random) -> Iterator[Encoded]:
    deck = list(sequences)
    while True:
        draw.shuffle(deck)
        yield from deck
