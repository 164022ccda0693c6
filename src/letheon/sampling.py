"""Answers sampled from the model itself, kept where the judge passes them: a source of expected outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from letheon.chat import encode_prompt, end_of_turn_ids
from letheon.evaluate.undesired import JudgeTurns, judge_answers
from letheon.models import Model, Tokenizer
from letheon.records import Turn


@torch.no_grad()
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
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    ends = end_of_turn_ids(tokenizer)
    found = []
    for turn in turns:
        ids = torch.tensor([encode_prompt(tokenizer, turn.prompt)], device=device)
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=samples,
            max_new_tokens=max_new_tokens,
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
        )[:, ids.size(1) :]
        finished = [row for row in output if any(int(token) in ends for token in row)]
        answers = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in finished]
        answers = [answer for answer in dict.fromkeys(answers) if answer]
        undesired, _ = judge_answers([turn] * len(answers), answers, judge)
        found.append([answer for answer, bad in zip(answers, undesired, strict=True) if not bad])
    model.train(training)
    return found
