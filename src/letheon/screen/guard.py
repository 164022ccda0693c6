"""The judge that asks a generative guard model: a language model that answers "safe" or "unsafe" in its own form.

It judges the answer and not the question: a refusal of a harmful request is safe, and harm behind a disavowal is not.
It reads the last question and the answer, as such models were trained to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from letheon import recipe
from letheon.errors import InputError
from letheon.models import Model, Tokenizer, load_tokenizer, plain_generation
from letheon.records import Turn
from letheon.screen.guard_presets import MAIN, PRESETS, Preset
from letheon.screen.judge import Opinion
from letheon.screen.pretrained import (
    SLACK,
    Window,
    alike,
    check_architecture,
    ending,
    judge_name,
    loaded,
    longest_input,
    token_count,
    windows,
)
from letheon.screen.progress import part

if TYPE_CHECKING:
    from torch import Tensor

    from letheon.chat import Encoded

IN_FORM = 0.5
"""Probability that a guard says one of its preset's verdicts; below, its answer means nothing to us."""
NAMED = 0.05
"""Score from which the guard is asked what kind of content it is."""
KIND_TOKENS = 32
"""Tokens in which it names that."""
DOUBTED = 3
"""Prompts after which a guard that has never answered in form is not one of its preset's."""
FEWEST = 64
"""Tokens of question and answer that must fit."""


class GuardJudge:
    """Score of an answer: the weighted probability of the guard's verdicts, in [0, 1]; higher is more surely bad.

    score = Σ_v w_v P(v) / Σ_v P(v), over the verdicts v of the preset: w = 1 for unsafe, 0 for safe, and ½ for
    Qwen3Guard's "Controversial", which leaves it in the middle. P(v) is the probability of all tokens that the guard
    says up to and with its verdict (teacher forcing), so it does not matter in how many tokens the tokenizer writes
    "unsafe", or that "safe" is a part of it. WildGuard speaks of request and refusal before its verdict; its P(yes)
    is summed over all that it may say there.

    Where Σ_v P(v) < ½ the guard answers in a form that the preset does not know, and the turn waits for a person.
    Of an answer in windows the worst counts.
    """

    def __init__(self, settings: recipe.Guard):
        self.name = judge_name("guard", settings.model)
        self._settings = settings
        self._preset = PRESETS[settings.preset]
        self._known = False

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Give every turn an opinion."""
        if not turns:
            return []
        with loaded(self._settings.model, "CausalLM") as (model, tokenizer):
            asked = list(
                self._questions(turns, tokenizer, longest_input(model, tokenizer, self._settings.max_length))
            )
            with part(0, 2):
                heard = self._hear(model, tokenizer, asked)
            worst: dict[int, Heard] = {}
            for one in heard:
                known = worst.get(one.asked.number)
                if known is None or (one.in_form, one.score) > (known.in_form, known.score):
                    worst[one.asked.number] = one
            suspects = [one for one in worst.values() if one.in_form and one.score >= NAMED]
            with part(1, 2):
                named = self._categories(model, tokenizer, suspects)
        categories = {one.asked.number: category for one, category in zip(suspects, named, strict=True)}
        unheard = {one.asked.number for one in heard if not one.in_form}
        return [
            _opinion(worst[number], categories.get(number, MAIN), unable=number in unheard)
            for number in range(len(turns))
        ]

    def _questions(self, turns: Sequence[Turn], tokenizer: Tokenizer, most: int) -> Iterator[Asked]:
        preset = self._preset
        longest = max(token_count(tokenizer, verdict) for verdict in preset.verdicts)
        frame = len(tokenizer(guard_prompt(tokenizer, preset, "?", "!"), add_special_tokens=False).input_ids)
        room = most - frame - longest - KIND_TOKENS - SLACK
        if room < FEWEST:
            raise InputError(
                f"screen.guard: of the {most} tokens that the model reads at once, {max(room, 0)} are left for "
                "question and answer; raise max_length, or use a guard with a longer context"
            )
        for number, turn in enumerate(turns):
            question = ending(tokenizer, turn.question, room // 3)
            found = windows(tokenizer, turn.answer, room - token_count(tokenizer, question))
            for window in found:
                prompt = guard_prompt(tokenizer, preset, question, turn.answer[slice(*window)])
                yield Asked(number, window if len(found) > 1 else None, prompt)

    def _hear(self, model: Model, tokenizer: Tokenizer, asked: Sequence[Asked]) -> list[Heard]:
        """What the guard says to each prompt."""
        verdicts = list(self._preset.verdicts)
        heard: dict[int, Heard] = {}
        for numbers in alike([len(one.prompt) for one in asked], self._settings.batch_size):
            replies = [
                [_encoded(tokenizer, asked[number].prompt, verdict) for verdict in verdicts] for number in numbers
            ]
            for number, row in zip(numbers, reply_log_probs(model, replies), strict=True):
                heard[number] = _heard(asked[number], row, self._preset)
            self._known |= any(one.in_form for one in heard.values())
            if not self._known and len(heard) >= DOUBTED:
                # Not one of the first: then it is not the turns.
                raise InputError(
                    f"screen.guard: {self._settings.model} does not answer as preset {self._settings.preset!r} says; "
                    "name the preset of its family"
                )
        return [heard[number] for number in range(len(asked))]

    def _categories(self, model: Model, tokenizer: Tokenizer, suspects: Sequence[Heard]) -> list[str]:
        """The kinds of content that the guard names, supposing that it has said its likeliest undesired verdict."""
        if not self._preset.kinds:
            return [MAIN] * len(suspects)
        begun = [_encoded(tokenizer, one.asked.prompt, one.undesired) for one in suspects]
        found = [MAIN] * len(suspects)
        for numbers in alike([len(one.ids) for one in begun], self._settings.batch_size):
            said = continued(model, tokenizer, [begun[number] for number in numbers], KIND_TOKENS)
            for number, words in zip(numbers, said, strict=True):
                found[number] = self._preset.category(suspects[number].undesired + words)
        return found


@dataclass(frozen=True)
class Asked:
    """A prompt of the guard: the number of the turn, the part of its answer (None for all of it), and the text."""

    number: int
    span: Window | None
    prompt: str


@dataclass(frozen=True)
class Heard:
    """What the guard says to a prompt.

    Attributes:
        asked: The prompt.
        score: As `GuardJudge` has it.
        in_form: Whether it says one of the verdicts at all.
        undesired: The likeliest of those with a weight.
    """

    asked: Asked
    score: float
    in_form: bool
    undesired: str


def check_guard(settings: recipe.Guard) -> None:
    """Check, without its weights, that the guard is there and can be asked.

    Raises:
        InputError: It is not, or its chat template leaves out the answer.
    """
    from jinja2 import TemplateError

    check_architecture(settings.model, "CausalLM", "screen.guard.model")
    try:
        prompt = guard_prompt(load_tokenizer(settings.model), PRESETS[settings.preset], "a question", "an answer")
    except TemplateError as error:
        raise InputError(
            f"screen.guard: the chat template of {settings.model} refuses a question and an answer: {error}"
        ) from None
    if "an answer" not in prompt:
        raise InputError(
            f"screen.guard: the chat template of {settings.model} leaves out the answer; "
            "name the preset of its family, or a text-only model"
        )


def guard_prompt(tokenizer: Tokenizer, preset: Preset, question: str, answer: str) -> str:
    """What the guard is asked about an answer, with all special tokens.

    Raises:
        InputError: It has no chat template.
    """
    if preset.prompt is not None:
        return f"{tokenizer.bos_token or ''}{preset.prompt.format(question=question, answer=answer)}"
    from letheon.chat import check_tokenizer

    check_tokenizer(tokenizer)
    rows = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True, **preset.options))


def reply_log_probs(model: Model, replies: Sequence[Sequence[Encoded]]) -> Tensor:
    """(B, K) log P of each of K replies to each of B prompts: the sum over the reply's tokens.

    Args:
        model: A causal language model in eval mode.
        replies: Of each prompt its K replies, each encoded behind it and marked.
    """
    import torch

    from letheon.evaluate.teacher_forced import score_sequences

    flat = [reply for row in replies for reply in row]
    # All at once, so that a prompt is computed once for its replies where the model can pack.
    scores = score_sequences(model, flat, batch_size=len(flat))
    return torch.stack([score.log_probs.double().sum() for score in scores]).view(len(replies), -1)


def continued(model: Model, tokenizer: Tokenizer, begun: Sequence[Encoded], most: int) -> list[str]:
    """What the model says next, with the likeliest token at each step; without special tokens."""
    import torch
    from transformers import GenerationConfig

    from letheon.chat import Encoded
    from letheon.forward import collate

    ends = model.generation_config.eos_token_id
    known = {*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id} - {None}
    config = GenerationConfig(
        do_sample=False,
        max_new_tokens=most,
        eos_token_id=sorted(known) or None,
        pad_token_id=tokenizer.pad_token_id,
    )
    unmarked = [Encoded(one.ids, [False] * len(one.ids)) for one in begun]
    batch = collate(unmarked, tokenizer.pad_token_id)
    ids, attention = (batch[name].to(model.device) for name in ("input_ids", "attention_mask"))
    with torch.inference_mode(), plain_generation(model):
        output = model.generate(input_ids=ids, attention_mask=attention, generation_config=config)
    return [str(text) for text in tokenizer.batch_decode(output[:, ids.size(1) :], skip_special_tokens=True)]


def _encoded(tokenizer: Tokenizer, prompt: str, reply: str) -> Encoded:
    from letheon.chat import encode_pieces

    return encode_pieces(tokenizer, [(prompt, False), (reply, True)])


def _heard(asked: Asked, log_probs: Tensor, preset: Preset) -> Heard:
    weights = list(preset.verdicts.values())
    shares = log_probs.softmax(dim=0).tolist()
    score = sum(weight * share for weight, share in zip(weights, shares, strict=True))
    undesired = max(zip(shares, weights, preset.verdicts, strict=True), key=lambda one: (one[1] > 0, one[0]))[2]
    return Heard(asked, min(1.0, score), float(log_probs.exp().sum()) >= IN_FORM, undesired)


def _opinion(heard: Heard, category: str, *, unable: bool) -> Opinion:
    score = heard.score if heard.in_form else 0.0
    reason = "the guard's probability of its verdicts"
    if unable:
        reason = "the guard answers in a form that its preset does not know"
    return Opinion(category, score, heard.asked.span, reason, unable)
