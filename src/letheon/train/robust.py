"""Robust mode: trains against what `letheon stress` does to a model, with templates that it does not measure with.

- *Other prompts.* Half of the time an item is asked in another way: by a template of each kind (`rephrasings.yaml`,
  `train`), or after a random beginning of its old answer, from where the expected answer is to follow.
- *Relearning.* The distance's gradient is taken where relearning others would lead (`letheon.train.relearning`).
- *Quantisation.* Rounding weights to 4 bits moves the margins of the old tokens by some δ, the median of |m_q − m|
  under θ₀; the hinge pushes as much further: its ρ becomes σ(logit ρ − δ). The stop rule's limits stay: they are what
  a model has that never saw the answers. But its probe is asked in other ways, too.

Sources: random answer beginnings, JensUn++ (arXiv 2607.09236); a margin of rounding steps, QUAIL
(arXiv 2601.15538); that the margin is measured, and the templates, are ours.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from letheon.chat import Encoded, encode_reply
from letheon.expected import Target
from letheon.forward import answer_logits, batch_for, batches
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.objective import MASC, LogOddsHinge, Objective, log_odds_margin
from letheon.quantise import linear_weights, round_absmax, rounded, roundings
from letheon.records import Turn
from letheon.rephrasing import Template, templates
from letheon.train.dataset import Forget

BEGINNINGS = 2
"""Random beginnings of each old answer."""
BITS, GROUP, RIVALS = 4, 64, 10


def ways_of(
    tokenizer: Tokenizer, target: Target, number: int, max_length: int | None, seed: int, *, expects: bool
) -> tuple[Forget, ...]:
    """The other ways in which an item is asked.

    Args:
        tokenizer: With a chat template.
        target: What to forget, and what to say instead.
        number: Of the item: which templates it gets.
        max_length: Most tokens; longer prompts lose their oldest.
        seed: Of the beginnings.
        expects: Whether expected answers are read.
    """
    turn = target.turn
    answers, weights = (target.answers, target.weights) if expects else ((), ())
    asked = [
        Forget(
            template.encode(tokenizer, turn, max_length),
            tuple(template.encode(tokenizer, turn, max_length, answer) for answer in answers),
            weights,
        )
        for template in _one_of_each(number)
    ]
    words = turn.answer.split()
    draw = random.Random(f"{seed}-{number}-beginnings")
    places = sorted(draw.sample(range(1, len(words)), min(BEGINNINGS, len(words) - 1)))
    for place in places:
        begin = " ".join(words[:place])
        encode = partial(encode_reply, tokenizer, turn.prompt, max_length=max_length, truncate=True, begin=begin)
        old = encode(reply=" ".join(words[place:]))
        asked.append(Forget(old, tuple(encode(reply=answer) for answer in answers), weights))
    return tuple(asked)


def asked_otherwise(tokenizer: Tokenizer, turns: Sequence[Turn], max_length: int | None) -> list[Encoded]:
    """Turns in other ways, for the stop rule's probe: the n-th by one kind of template, in turn."""
    found = []
    for number, turn in enumerate(turns):
        kinds = _one_of_each(number)
        found.append(kinds[number % len(kinds)].encode(tokenizer, turn, max_length))
    return found


def _one_of_each(number: int) -> list[Template]:
    return [listed[number % len(listed)] for listed in templates("train").values()]


@torch.no_grad()
def rounding_shift(model: Model, sequences: Sequence[Encoded], batch_size: int) -> float:
    """δ: the median of |m_q − m| over answer tokens, m being their log-odds margins, q the weights rounded to 4 bits.

    In [0, ∞), nats. The head is not rounded, as by most schemes.

    Args:
        model: The model under θ₀.
        sequences: Old answers.
        batch_size: Sequences at once.
    """

    def margins() -> torch.Tensor:
        found = []
        for numbers in batches(sequences, batch_size):
            batch = batch_for(model, [sequences[number] for number in numbers], pad_token_id=0)
            logits, targets, _ = answer_logits(model, batch)
            found.append(log_odds_margin(logits, targets, RIVALS))
        return torch.cat(found)

    with in_eval_mode(model):
        plain = margins()
        with rounded(roundings(linear_weights(model), partial(round_absmax, bits=BITS, group=GROUP))):
            moved = margins() - plain
    return float(moved.abs().median())


def with_wider_margin(objective: Objective, model: Model, old: Sequence[Encoded], batch_size: int) -> Objective:
    """Let a hinge push as much further as rounding to 4 bits may take back; the arguments are as above."""
    negative = objective.negative
    if not isinstance(negative, LogOddsHinge | MASC):
        return objective
    rho = lowered(negative.rho, rounding_shift(model, old, batch_size))
    return replace(objective, negative=replace(negative, rho=rho))


def lowered(rho: float, shift: float) -> float:
    """σ(logit ρ − δ): the probability whose log-odds are lower by δ. In (0, ρ]."""
    return 1 / (1 + (1 - rho) / rho * math.exp(shift))
