"""Dialogues as token ids, under the model's own chat template, with a mask of the tokens the assistant says."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from letheon.errors import InputError
from letheon.records import Dialogue, Message, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Encoded:
    """Token ids, and which of them are targets.

    Attributes:
        ids: T token ids.
        answer_mask: T booleans, True exactly on the tokens that count: an answer and the token that ends its turn.
    """

    ids: list[int]
    answer_mask: list[bool]


def check_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that does not say how a dialogue is written.

    Raises:
        InputError: It has no chat template, or one that is broken.
    """
    _need_template(tokenizer)
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False)
    except TemplateError as error:
        # What a sound template refuses is told of the dialogues.
        if isinstance(error, TemplateSyntaxError):
            raise InputError(
                f"{tokenizer.name_or_path or 'the tokenizer'}: its chat template is broken (line {error.lineno}: "
                f"{error.message}); mend it, or put a sound chat_template.jinja file into its folder"
            ) from None


def _need_template(tokenizer: PreTrainedTokenizerBase) -> None:
    if not tokenizer.chat_template:
        raise InputError(
            f"{tokenizer.name_or_path or 'the tokenizer'}: no chat template, so it is unknown how this model writes "
            "a dialogue; use the model's -Instruct version, or put a chat_template.jinja file into its folder"
        )


def encode_turn(
    tokenizer: PreTrainedTokenizerBase, turn: Turn, max_length: int | None = None, *, truncate: bool = False
) -> Encoded:
    """Encode the prompt of an assistant turn and its answer; the answer alone is marked.

    Args:
        tokenizer: With a chat template.
        turn: The turn; messages after it are left out.
        max_length: Most tokens there may be.
        truncate: Drop the oldest tokens of a prompt that is too long, instead of refusing it.

    Raises:
        InputError: It does not fit (the message has the dialogue's id and the lengths).
    """
    return encode_reply(
        tokenizer, turn.prompt, turn.answer, max_length, truncate=truncate, name=_name(turn.dialogue, turn.index)
    )


def encode_reply(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Sequence[Message],
    reply: str,
    max_length: int | None = None,
    *,
    truncate: bool = False,
    name: str = "the dialogue",
    begin: str = "",
) -> Encoded:
    """Encode a prompt and any reply to it; the reply and its end-of-turn token are marked.

    Args:
        tokenizer: With a chat template.
        prompt: The messages before the reply.
        reply: What the assistant says; white space around it is dropped.
        max_length: Most tokens there may be.
        truncate: Drop the oldest tokens of a prompt that is too long, instead of refusing it.
        name: What an error calls it.
        begin: What the assistant has said already; it is not marked.

    Raises:
        InputError: It does not fit.
    """
    messages = [*prompt, Message(role="assistant", content=reply)]
    pieces = _pieces(tokenizer, messages, {len(prompt)}, name)
    if begin:
        text, _ = pieces.pop()
        lead = text[: len(text) - len(text.lstrip())]
        pieces += [(lead + begin.rstrip(), False), (" " + text.lstrip(), True)]
    encoded = encode_pieces(tokenizer, pieces)
    return _fit(tokenizer, encoded, max_length, truncate, name)


def encode_dialogue(
    tokenizer: PreTrainedTokenizerBase, dialogue: Dialogue, max_length: int | None = None, *, truncate: bool = False
) -> Encoded:
    """Encode a dialogue up to its last answer; every assistant turn is marked.

    Args:
        tokenizer: With a chat template.
        dialogue: The dialogue.
        max_length: Most tokens there may be.
        truncate: Drop the oldest tokens before the first answer, instead of refusing a dialogue that is too long.

    Raises:
        InputError: It does not fit.
    """
    marked = {turn.index for turn in dialogue.turns()}
    messages = dialogue.messages[: max(marked) + 1]
    name = _name(dialogue)
    return _fit(
        tokenizer, encode_pieces(tokenizer, _pieces(tokenizer, messages, marked, name)), max_length, truncate, name
    )


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[Message], *, name: str = "the dialogue"
) -> list[int]:
    """Token ids after which the model answers: exactly those that `encode_reply` puts before a reply."""
    messages = [*prompt, Message(role="assistant", content="")]
    return encode_pieces(tokenizer, _pieces(tokenizer, messages, {len(prompt)}, name)[:1]).ids


def encode_continuation(
    tokenizer: PreTrainedTokenizerBase, prompt: str, continuation: str, max_length: int | None = None
) -> Encoded:
    """Encode plain text that goes on, as a base model reads it; the continuation alone is marked.

    The two are encoded as one text, as they would be in training; white space at the end of the prompt belongs to the
    continuation, as most tokenizers have it. Of a prompt that is too long the end is kept.

    Raises:
        InputError: The continuation has no token, or does not fit with one before it.
    """
    begin = prompt.rstrip()
    start = len(tokenizer(begin).input_ids) if begin else 0
    ids = list(tokenizer(prompt + continuation).input_ids)
    # A tokenizer may put its BOS token even before nothing.
    start = max(start, 1)
    if len(ids) <= start or (max_length is not None and len(ids) - start >= max_length):
        room = "" if max_length is None else f", and {max_length} fit"
        raise InputError(f"a text of {len(ids)} tokens goes on after {start}: at least one has to follow{room}")
    kept = slice(0 if max_length is None else max(0, len(ids) - max_length), None)
    return Encoded(ids[kept], ([False] * start + [True] * (len(ids) - start))[kept])


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, max_length: int | None = None) -> Encoded:
    """Encode plain text, cut at max_length; every token but the first is a target.

    Raises:
        InputError: Fewer than two tokens: there is nothing to predict.
    """
    ids = list(tokenizer(text).input_ids)[:max_length]
    if len(ids) < 2:
        raise InputError(f"a text of {len(ids)} token(s): at least 2 are needed, one to predict from the other")
    return Encoded(ids, [False] + [True] * (len(ids) - 1))


def answers_apart(dialogue: Encoded) -> list[Encoded]:
    """A dialogue once for each of its answers: it ends with that one, which alone is marked."""
    mask = [*dialogue.answer_mask, False]
    starts = [place for place in range(len(dialogue.ids)) if mask[place] and not (place and mask[place - 1])]
    ends = [mask.index(False, start) for start in starts]
    return [
        Encoded(dialogue.ids[:end], [False] * start + [True] * (end - start))
        for start, end in zip(starts, ends, strict=True)
    ]


def answered_by(asked: Encoded, answer: Encoded) -> Encoded:
    """The prompt of one sequence with the answer of another; each has one answer."""
    start = asked.answer_mask.index(True)
    said = [token for token, marked in zip(answer.ids, answer.answer_mask, strict=True) if marked]
    return Encoded(asked.ids[:start] + said, [False] * start + [True] * len(said))


def end_of_turn_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens after which an answer is over: the template's end-of-turn token, and the EOS token.

    Of a tokenizer without a template, the EOS token alone.
    """
    if not tokenizer.chat_template and tokenizer.eos_token_id is not None:
        return [tokenizer.eos_token_id]
    messages = [Message(role="user", content="?"), Message(role="assistant", content="!")]
    last = encode_pieces(tokenizer, _pieces(tokenizer, messages, {1}, "the chat template")).ids[-1]
    return sorted({last} | ({tokenizer.eos_token_id} - {None}))


def _pieces(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], marked: Collection[int], name: str
) -> list[tuple[str, bool]]:
    """Cut the rendered messages into (text, is it an answer); prompts and answers take turns, a prompt is first.

    The template is rendered with placeholders for the marked answers, so that an answer is found where the template
    puts it, whatever the answer says and whatever the template adds around it.
    """
    _need_template(tokenizer)
    rows = [
        {"role": message.role, "content": _placeholder(number) if number in marked else message.content}
        for number, message in enumerate(messages)
    ]
    text = _render(tokenizer, rows, False, name)
    # The token that ends a turn is a special one; Llama-2's template has a space before it.
    specials = {
        *tokenizer.all_special_tokens,
        *(str(t) for t in tokenizer.added_tokens_decoder.values() if t.special),
    }
    ending = re.compile(r"\s*(" + "|".join(re.escape(token) for token in sorted(specials, key=len)[::-1]) + ")")
    pieces: list[tuple[str, bool]] = []
    done = 0
    for number in sorted(marked):
        start, found = text.find(_placeholder(number)), _placeholder(number)
        if start < 0:
            raise InputError(f"{name}: the chat template leaves out messages[{number}]; use another template")
        opening = text[done:start]
        # White space between the generation prompt and the answer is the model's to say (Llama-2's template);
        # anything else there (an empty <think> block) belongs to the prompt.
        prompted = _render(tokenizer, rows[:number], True, name) if number else ""
        lead = text[len(prompted) : start]
        if not (prompted and lead.isspace() and text.startswith(prompted)):
            lead = ""
        done = start + len(found)
        end = ending.match(text, done)
        # A template without an end-of-turn token still needs one, or the answer would never be over.
        closing = end.group() if end else (tokenizer.eos_token or "")
        done = end.end() if end else done
        pieces.append((opening.removesuffix(lead), False))
        pieces.append((lead + messages[number].content.strip() + closing, True))
    return pieces


def _placeholder(number: int) -> str:
    return f"⟦letheon:answer:{number}⟧"


def _render(tokenizer: PreTrainedTokenizerBase, rows: list[dict[str, str]], generate: bool, name: str) -> str:
    """Apply the chat template, as text."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=generate))
    except TemplateError as error:
        roles = ", ".join(row["role"] for row in rows)
        raise InputError(f"{name}: the model's chat template refuses the roles {roles}: {error}") from None


def encode_pieces(tokenizer: PreTrainedTokenizerBase, pieces: Sequence[tuple[str, bool]]) -> Encoded:
    """Tokenise pieces so that each piece's ids are a prefix of the longer text's.

    Special tokens are never added: the template has written the BOS token if the model wants one.
    """
    text = ""
    ids: list[int] = []
    mask: list[bool] = []
    for piece, answer in pieces:
        text += piece
        whole = tokenizer(text, add_special_tokens=False).input_ids
        if whole[: len(ids)] != ids:
            # A merge across the boundary: the model, that reads the prompt first, never sees that token.
            whole = ids + tokenizer(piece, add_special_tokens=False).input_ids
        mask += [answer] * (len(whole) - len(ids))
        ids = list(whole)
    return Encoded(ids, mask)


def _fit(
    tokenizer: PreTrainedTokenizerBase, encoded: Encoded, max_length: int | None, truncate: bool, name: str
) -> Encoded:
    """Refuse what is longer than max_length, or drop the oldest tokens of its prompt."""
    length = len(encoded.ids)
    if max_length is None or length <= max_length:
        return encoded
    begin = encoded.answer_mask.index(True)
    # One token must stay before the answer, to predict its first token from.
    if length - begin + 1 > max_length:
        raise InputError(
            f"{name}: the answer has {length - begin} tokens and needs one before it, but at most {max_length} fit; "
            "shorten the answer or raise the maximum length"
        )
    if not truncate:
        raise InputError(
            f"{name}: {length} tokens ({begin} of prompt, {length - begin} from its first answer on), but at most "
            f"{max_length} fit; shorten the prompt or raise the maximum length"
        )
    kept = slice(length - max_length, None)
    ids, mask = encoded.ids[kept], encoded.answer_mask[kept]
    # Models are thrown off by a text without its BOS token; the cut may stand anywhere else.
    if encoded.ids[0] == tokenizer.bos_token_id and len(ids) > length - begin + 1:
        ids[0] = encoded.ids[0]
    return Encoded(ids, mask)


def _name(dialogue: Dialogue, index: int | None = None) -> str:
    """What errors call a dialogue or one of its messages."""
    return f"dialogue {dialogue.id!r}" + ("" if index is None else f", messages[{index}]")
