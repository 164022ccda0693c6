"""Answers sampled from a model: kept where the judge passes them, they are a source of expected outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from letheon.chat import encode_prompt, end_of_turn_ids
from letheon.evaluate.generation import drawing, generate
from letheon.evaluate.undesired import JudgeTurns, judge_answers
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.records import Turn


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
    torch.manual_seed(seed)
    ends = end_of_turn_ids(tokenizer)
    found = []
    with in_eval_mode(model):
        for turn in turns:
            prompts = [encode_prompt(tokenizer, turn.prompt)] * samples
            rows = generate(model, tokenizer, prompts, drawing(), batch_size=samples, max_new_tokens=max_new_tokens)
            finished = [row for row in rows if any(token in ends for token in row)]
            answers = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in finished]
            answers = [answer for answer in dict.fromkeys(answers) if answer]
            undesired, _ = judge_answers([turn] * len(answers), answers, judge)
            found.append([answer for answer, bad in zip(answers, undesired, strict=True) if not bad])
    return found
