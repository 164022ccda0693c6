"""What every attack is given, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from letheon.chat import Encoded, encode_turn
from letheon.console import OnProgress
from letheon.evaluate import score_sequences
from letheon.evaluate.generation import greedy_tokens
from letheon.evaluate.text import rouge_l
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.recipe import Stress
from letheon.records import Dialogue, Message, Turn
from letheon.stress.records import Along, NotRun

EXTRACTION, ROUGE = "extraction_strength", "rouge_l"
"""The metrics that are defined without an attack, too."""


@dataclass(frozen=True)
class Given:
    """What an attack works with, the same for every model.

    Attributes:
        tokenizer: The models' tokenizer.
        scored: The turns whose old answers are looked for.
        relearned: Others that had to be forgotten, of other dialogues; relearning gets them.
        normal: Normal dialogues.
        general: Paragraphs of plain text.
        rewordings: The data's own paraphrases of each scored turn; () where it has none.
        settings: As of a recipe's section `stress`.
        seed: Of all that is drawn.
        batch_size: Sequences at once.
        max_new_tokens: Length of answers.
        context: The models' longest sequence; a turn that is longer is refused, and one that a template makes longer
            is not asked by it.
    """

    tokenizer: Tokenizer
    scored: Sequence[Turn]
    relearned: Sequence[Turn] = ()
    normal: Sequence[Dialogue] = ()
    general: Sequence[str] = ()
    rewordings: Sequence[Sequence[Turn]] = ()
    settings: Stress = field(default_factory=Stress)
    seed: int = 0
    batch_size: int = 16
    max_new_tokens: int = 48
    context: int | None = None

    @cached_property
    def sequences(self) -> list[Encoded]:
        """The scored turns as tokens."""
        return [encode_turn(self.tokenizer, turn, self.context) for turn in self.scored]


@dataclass(frozen=True)
class Found:
    """A score of every scored turn, of one model under one form of an attack.

    Attributes:
        variant: The form.
        how: What was done, in plain words.
        metric: What was measured; higher is more remembered.
        scores: In the order of `Given.scored`.
        items: The numbers of the turns that have a score; None: all.
        at: Step or layer, where there are several.
        along: Which of the two.
        answers: What the model said, where that was asked for.
    """

    variant: str
    how: str
    metric: str
    scores: Sequence[float]
    items: Sequence[int] | None = None
    at: int | None = None
    along: Along | None = None
    answers: Sequence[str] = ()


Attack = Callable[[Model, Given, OnProgress], Iterator[Found | NotRun]]
"""Attacks one model, and leaves its weights as they were."""


def extraction(model: Model, sequences: Sequence[Encoded], batch_size: int) -> list[float]:
    """The corrected extraction strength of each sequence's marked tokens; NaN where the model is broken."""
    with in_eval_mode(model):
        scores = score_sequences(model, sequences, batch_size=batch_size)
    return [tokens.extraction_strength for tokens in scores]


def as_it_is(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """No attack: what the model still knows when it is asked as before."""
    how = "Asked as before"
    yield Found("as it is", how, EXTRACTION, extraction(model, given.sequences, given.batch_size))
    recall, answers = recalled(model, given, [turn.prompt for turn in given.scored], given.scored)
    yield Found("as it is", how, ROUGE, recall, answers=answers)


def recalled(
    model: Model,
    given: Given,
    prompts: Sequence[Sequence[Message]],
    turns: Sequence[Turn],
    begun: Sequence[Sequence[int]] | None = None,
) -> tuple[list[float], list[str]]:
    """ROUGE-L recall of the old answer by what is the model's own of each greedy answer, and the whole answers.

    Args:
        model: The model.
        given: What the attack works with.
        prompts: P prompts.
        turns: Whose old answers are looked for.
        begun: P beginnings in token ids, that the answers are made to have; they are not scored.
    """
    begun = begun or [()] * len(prompts)
    with in_eval_mode(model):
        rows = greedy_tokens(
            model,
            given.tokenizer,
            prompts,
            known=begun,
            batch_size=given.batch_size,
            max_new_tokens=given.max_new_tokens + max(map(len, begun), default=0),
        )

    def text(tokens: Sequence[int]) -> str:
        return str(given.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    own = [text(tokens[len(first) :]) for tokens, first in zip(rows, begun, strict=True)]
    recalls = [rouge_l(answer, turn.answer)[0] for answer, turn in zip(own, turns, strict=True)]
    return recalls, [text(tokens) for tokens in rows]
