"""Greedy answers, generated once and read by every metric of texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from letheon.chat import Encoded, encode_prompt, end_of_turn_ids
from letheon.forward import collate
from letheon.models import Model, Tokenizer
from letheon.records import Message


@torch.inference_mode()
def greedy_answers(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[Message]],
    *,
    batch_size: int = 16,
    max_new_tokens: int = 48,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Answer every prompt, with the likeliest token at each step.

    Args:
        model: A causal language model in eval mode, plain or with an adapter.
        tokenizer: Its tokenizer, with a chat template.
        prompts: P lists of messages, each to be answered by the assistant.
        batch_size: Prompts answered at once.
        max_new_tokens: An answer is cut after so many tokens.
        progress: Called with the number of prompts answered by each batch.

    Returns:
        P answers in the order of the prompts, without special tokens and white space around them; "" where the model
        ends its turn at once.
    """
    from transformers import GenerationConfig

    ends = end_of_turn_ids(tokenizer)
    # The model's own generation config may penalise repetition, which would hide it.
    config = GenerationConfig(
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        max_new_tokens=max_new_tokens,
        eos_token_id=ends,
        pad_token_id=ends[0],
        use_cache=True,
    )
    encoded = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda number: -len(encoded[number]))
    answers: dict[int, str] = {}
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = collate([Encoded(encoded[n], [False] * len(encoded[n])) for n in numbers], pad_token_id=ends[0])
        ids = batch["input_ids"].to(model.device)
        attention = batch["attention_mask"].to(model.device)
        output = model.generate(input_ids=ids, attention_mask=attention, generation_config=config)
        texts = tokenizer.batch_decode(output[:, ids.size(1) :], skip_special_tokens=True)
        answers.update(zip(numbers, (text.strip() for text in texts), strict=True))
        if progress is not None:
            progress(len(numbers))
    return [answers[number] for number in range(len(prompts))]
