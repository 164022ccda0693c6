"""One look at a model: a pass over given answers, and the answers that it gives itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from letheon.chat import Encoded, encode_continuation, encode_text, encode_turn
from letheon.evaluate.generation import greedy_answers
from letheon.evaluate.teacher_forced import TokenScores, score_sequences
from letheon.models import Model, Tokenizer, context_length
from letheon.records import Turn


@dataclass(frozen=True)
class Plain:
    """A text without a chat around it, as base models know them: a beginning ("" for none), and how it goes on."""

    prompt: str
    answer: str = ""


Item = Turn | Plain


def encode_item(tokenizer: Tokenizer, item: Item, max_length: int | None = None) -> Encoded:
    """Its prompt and its answer, which alone is marked; a plain text without a beginning is cut at max_length.

    Raises:
        InputError: It does not fit.
    """
    if isinstance(item, Turn):
        return encode_turn(tokenizer, item, max_length)
    if not item.prompt:
        return encode_text(tokenizer, item.answer, max_length)
    return encode_continuation(tokenizer, item.prompt, item.answer, max_length)


def look_at(
    model: Model,
    tokenizer: Tokenizer,
    given: Sequence[Item],
    asked: Sequence[Turn],
    *,
    batch_size: int = 16,
    max_new_tokens: int = 48,
    top_k: int = 0,
    standardise: bool = False,
    reference: Sequence[TokenScores | None] | None = None,
    scored: Callable[[int], None] | None = None,
    answered: Callable[[int], None] | None = None,
) -> tuple[list[TokenScores], list[str]]:
    """Score given answers, and answer prompts greedily.

    What the model would say itself of an answer that it has just been given is not generated again.

    Args:
        model: A causal language model in eval mode, plain or with an adapter.
        tokenizer: Its tokenizer.
        given: G items whose answers are scored; all are encoded, so that faults show, before the model works.
        asked: A turns whose prompts are answered.
        batch_size: Sequences at once; `letheon.forward.batches` takes fewer where they are long.
        max_new_tokens: Length of the greedy answers.
        top_k: As of `score_sequences`.
        standardise: As of `score_sequences`.
        reference: As of `score_sequences`, for each of the items.
        scored: Called with the number of items that each batch has scored.
        answered: The same of answers.

    Returns:
        G scores and A answers.

    Raises:
        InputError: An item does not fit the model's context.
    """
    context = context_length(model)
    encoded = [encode_item(tokenizer, item, context) for item in given]
    scores = score_sequences(
        model,
        encoded,
        batch_size=batch_size,
        top_k=top_k,
        standardise=standardise,
        reference=reference,
        progress=scored,
    )
    known = {
        item: known_beginning(one, own)
        for item, one, own in zip(given, encoded, scores, strict=True)
        if isinstance(item, Turn)
    }
    answers = greedy_answers(
        model,
        tokenizer,
        [turn.prompt for turn in asked],
        known=[known.get(turn, []) for turn in asked],
        batch_size=batch_size,
        max_new_tokens=max_new_tokens,
        progress=answered,
    )
    return scores, answers


def known_beginning(encoded: Encoded, tokens: TokenScores) -> list[int]:
    """The beginning of the given answer that the model would write itself, up to the first token it would not."""
    answer = [token for token, counts in zip(encoded.ids, encoded.answer_mask, strict=True) if counts]
    return answer[: int(tokens.matches.int().cumprod(0).sum())]
