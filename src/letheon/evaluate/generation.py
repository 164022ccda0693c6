"""Answers of a model, generated once and read by every metric of texts: the greedy one, or several that are drawn."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from letheon.chat import Encoded, encode_prompt, end_of_turn_ids
from letheon.errors import BrokenModelError, InputError
from letheon.forward import can_pack, collate
from letheon.models import Model, Tokenizer, context_length, plain_generation
from letheon.records import Message

Prompt = str | Sequence[Message]
"""Messages for the assistant to answer; or a text to go on with, as a base model does."""

SHORTEST = 8
"""Tokens that prompts have to share for that to be used."""
GREEDY: Mapping[str, Any] = {"do_sample": False}
"""How each token is chosen: the likeliest."""


def greedy_answers(model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], **options: Any) -> list[str]:
    """Answer every prompt in text; everything is handed to `greedy_tokens`.

    Returns:
        P answers in the order of the prompts, without special tokens and white space around them; "" where the model
        ends its turn at once.
    """
    answers = greedy_tokens(model, tokenizer, prompts, **options)
    return [str(tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in answers]


def sampled_answers(
    model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], *, samples: int, seed: int = 0, **options: Any
) -> list[list[str]]:
    """Draw answers to every prompt from the model's own distribution, at temperature 1; in text.

    Args:
        model: A causal language model in eval mode, plain or with an adapter.
        tokenizer: Its tokenizer.
        prompts: P prompts.
        samples: Answers to each; 0 leaves every list empty.
        seed: Of the draws; with another batch size they are other ones. The global random state is left alone.
        options: As of `generate`, but for what is known.

    Returns:
        P lists of answers, as of `greedy_answers`.

    Raises:
        BrokenModelError: The model's logits are not finite.
    """
    repeated = [encode_either(tokenizer, prompt) for prompt in prompts for _ in range(samples)]
    devices = [model.device] if model.device.type != "cpu" else []
    with torch.random.fork_rng(devices=devices, device_type=devices[0].type if devices else "cuda"):
        torch.manual_seed(seed)
        rows = generate(model, tokenizer, repeated, drawing(), **options)
    texts = [str(tokenizer.decode(tokens, skip_special_tokens=True)).strip() for tokens in rows]
    return [texts[number * samples : (number + 1) * samples] for number in range(len(prompts))]


def greedy_tokens(model: Model, tokenizer: Tokenizer, prompts: Sequence[Prompt], **options: Any) -> list[list[int]]:
    """Answer every prompt, with the likeliest token at each step; `options` are those of `generate`."""
    return generate(model, tokenizer, [encode_either(tokenizer, prompt) for prompt in prompts], GREEDY, **options)


def drawing(temperature: float = 1.0) -> Mapping[str, Any]:
    """How each token is chosen: drawn from the model's own distribution, at a temperature."""
    return {"do_sample": True, "temperature": temperature, "top_k": 0}


@torch.inference_mode()
def generate(
    model: Model,
    tokenizer: Tokenizer,
    prompts: Sequence[Sequence[int]],
    choice: Mapping[str, Any],
    *,
    known: Sequence[Sequence[int]] | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 48,
    progress: Callable[[int], None] | None = None,
) -> list[list[int]]:
    """Go on after token ids, prompts of like length together, with a cache.

    Args:
        model: A causal language model in eval mode, plain or with an adapter. Settings of its own generation config
            have no part in it.
        tokenizer: Its tokenizer, which tells what ends a turn.
        prompts: P prompts in token ids.
        choice: How each token is chosen: `GREEDY`, or `drawing()`, by the global random state.
        known: P beginnings of the answers in token ids, each token the model's own likeliest as a pass over a given
            answer has shown; they need not be generated again, and an answer known to its end costs nothing.
        batch_size: Prompts answered at once.
        max_new_tokens: An answer is cut after so many tokens, or where the model's context ends.
        progress: Called with the number of prompts answered by each batch.

    Returns:
        P answers in the order of the prompts, each with the token that ends its turn, if it came to that.

    Raises:
        InputError: A prompt leaves no room for an answer.
        BrokenModelError: Tokens are to be drawn from logits that are not finite.
    """
    from transformers import GenerationConfig, LogitsProcessorList

    ends = end_of_turn_ids(tokenizer)
    config = GenerationConfig(eos_token_id=ends, pad_token_id=ends[0], use_cache=True, **choice)
    answers = [list(tokens[:max_new_tokens]) for tokens in known] if known is not None else [[] for _ in prompts]
    begun = [[*prompt, *ids] for prompt, ids in zip(prompts, answers, strict=True)]
    room = _room(model, begun, max_new_tokens)
    if full := [number for number, ids in enumerate(answers) if not (room[number] or ids)]:
        raise InputError(
            f"prompt {full[0] + 1} has {len(prompts[full[0]])} tokens, and the model's context no room for an answer"
        )
    open_ = [
        n for n, ids in enumerate(answers) if room[n] and len(ids) < max_new_tokens and not (ids and ids[-1] in ends)
    ]
    if progress is not None and len(open_) < len(prompts):
        progress(len(prompts) - len(open_))
    beginning = _Beginning(model, [begun[number] for number in open_])
    for numbers in _together(open_, begun, room, batch_size):
        ends_of = [begun[number][len(beginning.ids) :] for number in numbers]
        batch = collate([Encoded(own, [False] * len(own)) for own in ends_of], pad_token_id=ends[0])
        ids, attention, cache = beginning.before(batch["input_ids"], batch["attention_mask"])
        most = max_new_tokens - min(len(answers[number]) for number in numbers)
        config.max_new_tokens = min(most, room[numbers[0]])
        with plain_generation(model):
            output = model.generate(
                input_ids=ids,
                attention_mask=attention,
                generation_config=config,
                logits_processor=LogitsProcessorList([_drawable] if config.do_sample else []),
                **{_cache_name(): cache},
            )
        for number, tokens in zip(numbers, output[:, ids.size(1) :].tolist(), strict=True):
            answers[number] = (answers[number] + tokens)[:max_new_tokens]
        if progress is not None:
            progress(len(numbers))
    return [_until(tokens, ends) for tokens in answers]


def _drawable(ids: Tensor, logits: Tensor) -> Tensor:
    """Logits as they are, once they are known to be a distribution's: a GPU that draws from others is lost."""
    if not bool(logits.amax(dim=1).isfinite().all()):
        raise BrokenModelError
    return logits


def _room(model: Model, begun: Sequence[Sequence[int]], most: int) -> list[int]:
    """How many tokens may follow each of these in the model's context, up to the most that are wanted."""
    context = context_length(model)
    return [most if context is None else max(0, min(most, context - len(ids))) for ids in begun]


def _together(
    numbers: Sequence[int], begun: Sequence[Sequence[int]], room: Sequence[int], size: int
) -> Iterator[list[int]]:
    """Batches of like length, the longest first; those whose context ends early are with their like alone."""
    order = sorted(numbers, key=lambda number: -len(begun[number]))
    for _, alike in groupby(order, key=lambda number: room[number]):
        listed = list(alike)
        yield from (listed[start : start + size] for start in range(0, len(listed), size))


def encode_either(tokenizer: Tokenizer, prompt: Prompt) -> list[int]:
    """Token ids after which the model answers, or goes on."""
    return list(tokenizer(prompt).input_ids) if isinstance(prompt, str) else encode_prompt(tokenizer, prompt)


class _Beginning:
    """What all prompts begin with, such as a system message: the model reads it once.

    Args:
        model: A causal language model. One that may take more from a beginning than keys and values gets none.
        prompts: Token ids.
    """

    def __init__(self, model: Model, prompts: Sequence[Sequence[int]]):
        self.model = model
        shared = os.path.commonprefix([list(ids) for ids in prompts])
        shortest = min((len(ids) for ids in prompts), default=0)
        # Something has to be left to go on from; a few tokens are not worth a pass.
        self.ids = shared[: shortest - 1] if len(prompts) > 1 and len(shared) >= SHORTEST and can_pack(model) else []
        self._cache: Any = None
        if self.ids:
            row = torch.tensor([self.ids], device=model.device)
            self._cache = model(input_ids=row, use_cache=True)[_cache_name()]

    def before(self, ids: Tensor, attention: Tensor) -> tuple[Tensor, Tensor, Any]:
        """(B, T) tokens and mask with the beginning before them, on the model's device, and what is known of it."""
        device, rows = self.model.device, len(ids)
        cache = None
        if self._cache is not None:
            # What is generated is added to it.
            cache = copy.deepcopy(self._cache)
            cache.batch_repeat_interleave(rows)
            ids = torch.cat([torch.tensor([self.ids]).expand(rows, -1), ids], dim=1)
            attention = torch.cat([attention.new_ones(rows, len(self.ids)), attention], dim=1)
        return ids.to(device), attention.to(device), cache


def _cache_name() -> str:
    """What transformers calls it; the name has changed within version 5."""
    from transformers import GenerationMixin

    # What `generate` takes besides it hands on to this, and so its signature does not tell.
    known = inspect.signature(GenerationMixin.prepare_inputs_for_generation).parameters
    return "cache" if "cache" in known else "past_key_values"


def _until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """An answer up to its end; what follows is padding."""
    over = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    return tokens[: over + 1]
