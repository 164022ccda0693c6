"""Answers sampled from a model: kept where the judge passes them, they are a source of expected outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from letheon.chat import encode_prompt, end_of_turn_ids
from letheon.evaluate.undesired import JudgeTurns, judge_answers
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.records import Message, Turn


@torch.no_grad()
def draw(
    model: Model,
    tokenizer: Tokenizer,
    prompt: Sequence[Message],
    *,
    samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
) -> list[list[int]]:
    """Draw answers to a prompt from the model's own distribution; the global random state decides.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its tokenizer, with a chat template.
        prompt: The messages to answer.
        samples: Answers drawn.
        max_new_tokens: An answer is cut after so many tokens.
        temperature: Of the softmax; below 1 likely tokens become likelier.

    Returns:
        Token ids of each answer, with the token that ends its turn if it came to that (and padding behind it).
    """
    ids = torch.tensor([encode_prompt(tokenizer, prompt)], device=model.device)
    output = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        do_sample=True,
        temperature=temperature,
        top_k=0,
        num_return_sequences=samples,
        max_new_tokens=max_new_tokens,
        eos_token_id=end_of_turn_ids(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
    )
    answers: list[list[int]] = output[:, ids.size(1) :].tolist()
    return answers


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
            rows = draw(model, tokenizer, turn.prompt, samples=samples, max_new_tokens=max_new_tokens)
            finished = [row for row in rows if any(token in ends for token in row)]
            answers = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in finished]
            answers = [answer for answer in dict.fromkeys(answers) if answer]
            undesired, _ = judge_answers([turn] * len(answers), answers, judge)
            found.append([answer for answer, bad in zip(answers, undesired, strict=True) if not bad])
    return found
