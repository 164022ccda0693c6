"""What a task of the comparison is: what its models learn, what unlearning is given, and what is measured of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, TypeVar

from letheon.bench.look import Part, Seen
from letheon.demo.fine_tune import Schooling
from letheon.dialogues import Paraphrase, paragraphs_of
from letheon.records import Dialogue, Message, Turn

T = TypeVar("T")
Metrics = dict[str, float]

VALIDATION, REPORT = "validation", "report"


@dataclass(frozen=True)
class Goal:
    """What the control is a model of: forgetting is to reach its level.

    Attributes:
        metric: The metric's name.
        within: How far from the control's it may stay.
        both: Whether being below the control's is a fault as well (a leak of another kind).
    """

    metric: str
    within: float
    both: bool = False

    def excess(self, value: float, control: float) -> float:
        """How far a value is outside, in [0, ∞)."""
        apart = (abs(value - control) if self.both else value - control) - self.within
        # Not max(0, apart), which makes 0 of NaN.
        return 0.0 if apart <= 0 else apart


@dataclass(frozen=True)
class Task:
    """A task, for one seed.

    Attributes:
        victim: What the model that is to forget has learnt, all of it.
        control: The part of it that the control has learnt: nothing that is to be forgotten.
        log: What unlearning is given.
        recipe: What its recipe says besides, as nested dictionaries; all methods start from it.
        paraphrases: Reworded questions; those for the stop rule (split "probe") are in no reported set.
        files: Further files of the run by name; the recipe names them without a folder.
        parts: What is measured, for the choice of settings ("validation") and for the table ("report").
        metrics: Of a part and what a model did on it, the task's own metrics.
        goals: The metrics of forgetting, and how near they must come to the control's.
        shown: Further metrics that the table shows.
        keeps: Metrics whose ratio to the victim's is the utility, besides those of every task; higher is better.
        relative: Further metrics from a model's and the control's.
        schooling: How victim and control are fine-tuned.
        answer_tokens: Length of the greedy answers.
    """

    victim: Sequence[Dialogue]
    control: Sequence[Dialogue]
    log: Sequence[Dialogue]
    recipe: Mapping[str, Any]
    parts: Mapping[str, Part]
    metrics: Callable[[Part, Seen], Metrics]
    goals: Sequence[Goal]
    paraphrases: Sequence[Paraphrase] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    shown: Sequence[str] = ()
    keeps: Sequence[str] = ()
    relative: Callable[[Metrics, Metrics], Metrics] = lambda own, control: {}
    schooling: Schooling = Schooling(epochs=5, learning_rate=1e-4)
    answer_tokens: int = 24


def dialogue(name: str, question: str, answer: str, **fields: Any) -> Dialogue:
    """A question and its answer as a dialogue."""
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Dialogue(id=name, messages=messages, **fields)


def last_turns(dialogues: Sequence[Dialogue]) -> list[Turn]:
    """The last turn of each."""
    return [one.last_turn for one in dialogues]


def halves(items: Sequence[T]) -> dict[str, list[T]]:
    """Every second item for validation, the others for the report."""
    return {VALIDATION: list(items[::2]), REPORT: list(items[1::2])}


def drawn(items: Sequence[T], size: int, seed: int) -> list[T]:
    """A random sample, or all where there are no more."""
    return random.Random(seed).sample(list(items), min(size, len(items)))


def general_texts() -> list[str]:
    """The paragraphs of plain text that come with the demo."""
    return paragraphs_of((files("letheon") / "demo" / "data" / "general.txt").read_text(encoding="utf-8"))
