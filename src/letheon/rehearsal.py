"""Rehearsal: everyday questions that the model answers itself before unlearning, to be kept like normal dialogues.

The normal dialogues of a log are few. Training keeps those, and what it has not seen drifts, most of all what
resembles the forget set. Questions are cheap, and the model's own answers to them, right or wrong, are what it is to
go on saying. Self-synthesised rehearsal is due to Huang et al. (arXiv 2403.01244), where the model makes up the
questions as well; here they come with Letheon.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import torch

from letheon.chat import Encoded, encode_prompt
from letheon.evaluate.generation import greedy_tokens
from letheon.evaluate.undesired import JudgeTurns
from letheon.models import Model, Tokenizer, context_length, fast_bf16, in_eval_mode
from letheon.records import Dialogue, Message

LONGEST_ANSWER = 32
"""Tokens; a longer answer is rehearsed up to there, without an end."""
TOGETHER = 128
"""Questions answered at once."""


def everyday_questions() -> list[str]:
    """The questions that come with Letheon: facts, numbers, how-to, sayings and fiction, feelings, safety.

    None is close to a question of the demo's log (a cosine of .65 by MiniLM is the most), which would make what the
    demo holds out look better kept than it is.
    """
    return files("letheon").joinpath("rehearsal.txt").read_text(encoding="utf-8").splitlines()


def rehearse(
    model: Model,
    tokenizer: Tokenizer,
    judge: JudgeTurns | None = None,
    questions: Sequence[str] | None = None,
    max_length: int | None = None,
) -> list[Encoded]:
    """Answer questions greedily, and keep the answers that are fit to be kept.

    Args:
        model: The model before unlearning.
        tokenizer: Its tokenizer, with a chat template.
        judge: Answers on which it decides "forget" are left out; None keeps them all.
        questions: None takes `everyday_questions`.
        max_length: Most tokens of a sequence; None: the model's context.

    Returns:
        Sequences in the form of `normal_dataset`, at most one a question: the prompt and the tokens of the answer,
        which alone are marked. Questions that leave no room for an answer are left out.
    """
    most = max_length or context_length(model)
    asked = [Message(role="user", content=q) for q in (everyday_questions() if questions is None else questions)]
    prompts = {message.content: encode_prompt(tokenizer, [message]) for message in asked}
    asked = [m for m in asked if most is None or len(prompts[m.content]) + LONGEST_ANSWER <= most]
    # Training sees the model in this precision too.
    with in_eval_mode(model), torch.autocast(model.device.type, torch.bfloat16, enabled=fast_bf16()):
        answers = greedy_tokens(
            model, tokenizer, [[m] for m in asked], batch_size=TOGETHER, max_new_tokens=LONGEST_ANSWER
        )
    said = [
        (message, answer, text)
        for message, answer in zip(asked, answers, strict=True)
        if (text := tokenizer.decode(answer, skip_special_tokens=True).strip())
    ]
    dialogues = [
        Dialogue(id=f"rehearsal-{n}", messages=(message, Message(role="assistant", content=text)))
        for n, (message, _, text) in enumerate(said)
    ]
    verdicts = judge([dialogue.last_turn for dialogue in dialogues]) if judge is not None and dialogues else []
    unfit = {verdict.id for verdict in verdicts if verdict.decision == "forget"}
    return [
        _sequence(prompts[message.content], answer)
        for dialogue, (message, answer, _) in zip(dialogues, said, strict=True)
        if dialogue.id not in unfit
    ]


def _sequence(prompt: list[int], answer: list[int]) -> Encoded:
    return Encoded(prompt + answer, [False] * len(prompt) + [True] * len(answer))
