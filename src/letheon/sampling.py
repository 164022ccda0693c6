"""Answers sampled from a model, two sources of expected outputs: those that the judge passes, and alternates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from letheon.chat import encode_prompt, end_of_turn_ids
from letheon.evaluate.generation import drawing, generate
from letheon.evaluate.undesired import JudgeTurns, judge_answers
from letheon.models import Model, Tokenizer, context_length, in_eval_mode
from letheon.records import Message, Turn

ALTERNATE = "Write another answer to the same question, with other facts that are just as plausible."
"""What an alternate is asked for by, after question and answer."""


def sample_passing(
    model: Model,
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    judge: JudgeTurns,
    *,
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> list[list[str]]:
    """Sample answers at temperature 1 and keep those that are neither empty, cut off, nor judged undesired.

    Args:
        model: The model before unlearning.
        tokenizer: Its tokenizer.
        turns: Whose prompts to answer.
        judge: Judges the answers.
        samples: Answers drawn per prompt.
        max_new_tokens: Longest answer; one that is not finished by then is dropped.
        seed: Of the draws.

    Returns:
        The passing answers of each turn; possibly none.
    """
    found = []
    for turn, rows in _drawn(model, tokenizer, turns, [turn.prompt for turn in turns], samples, max_new_tokens, seed):
        answers = _texts(tokenizer, [row for row, finished in rows if finished])
        undesired, _ = judge_answers([turn] * len(answers), answers, judge)
        found.append([answer for answer, bad in zip(answers, undesired, strict=True) if not bad])
    return found


def sample_alternates(
    model: Model,
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    *,
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> list[list[str]]:
    """Ask for other answers than the old one, as plausible, at temperature 1; no judge passes them.

    AltPO's way (arXiv 2409.13474; molereddy/Alternate-Preference-Optimization, prompts.py), with an instruction of
    our own and no examples before it.

    Args:
        model: The model before unlearning.
        tokenizer: Its tokenizer.
        turns: Whose answers to find others for.
        samples: Answers drawn per turn.
        max_new_tokens: Longest answer; one that is not finished by then is dropped, if another is.
        seed: Of the draws.

    Returns:
        The alternates of each turn, none of them its old answer; none where the question leaves no room for one in
        the model's context.
    """
    found = []
    asked = [
        (*turn.prompt, Message(role="assistant", content=turn.answer), Message(role="user", content=ALTERNATE))
        for turn in turns
    ]
    for turn, rows in _drawn(model, tokenizer, turns, asked, samples, max_new_tokens, seed):
        answers = _texts(tokenizer, [row for row, finished in rows if finished] or [row for row, _ in rows])
        found.append([answer for answer in answers if answer.casefold() != turn.answer.strip().casefold()])
    return found


def _drawn(
    model: Model,
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    prompts: Sequence[Sequence[Message]],
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> Iterator[tuple[Turn, list[tuple[list[int], bool]]]]:
    """Each turn with what is drawn after its prompt, and whether that is finished."""
    torch.manual_seed(seed)
    ends, context = end_of_turn_ids(tokenizer), context_length(model)
    with in_eval_mode(model):
        for turn, prompt in zip(turns, prompts, strict=True):
            ids = encode_prompt(tokenizer, prompt)
            encoded = [ids] * (samples if context is None or len(ids) < context else 0)
            rows = generate(model, tokenizer, encoded, drawing(), batch_size=samples, max_new_tokens=max_new_tokens)
            yield turn, [(row, any(token in ends for token in row)) for row in rows]


def _texts(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """What they say, each once, without those that say nothing."""
    texts = [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]
    return [text for text in dict.fromkeys(texts) if text]
