"""What a task of the comparison is: what its models learn, what unlearning is given, and what is measured of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from letheon.bench.look import Part, Seen
from letheon.demo.fine_tune import Schooling
from letheon.dialogues import Paraphrase
from letheon.errors import InputError
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
    text = (files("letheon") / "demo" / "data" / "general.txt").read_text(encoding="utf-8")
    return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def check_files(folder: Path, names: Sequence[str]) -> None:
    """Look for the files that a task reads.

    Raises:
        InputError: Every one that is not there.
    """
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError([f"{folder / name}: no such file; name its folder with --data" for name in missing])


def read_json_lines(path: Path, *fields: str) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, each with the fields that are needed.

    Raises:
        InputError: A line is no such object.
    """
    rows = []
    # Not splitlines(): it also splits at U+2028 and its like, which JSON allows inside strings.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            rows.append(_checked(_parsed(line, f"{path}:{number}"), fields, f"{path}:{number}"))
    return rows


def read_json_list(path: Path, *fields: str) -> list[dict[str, Any]]:
    """The objects of a JSON file that holds a list of them; see `read_json_lines`."""
    rows = _parsed(path.read_text(encoding="utf-8"), str(path))
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of objects")
    return [_checked(row, fields, f"{path}: row {number}") for number, row in enumerate(rows)]


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise InputError(f"{where}: not valid JSON") from None


def _checked(row: Any, fields: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not set(fields) <= row.keys():
        raise InputError(f"{where}: expected an object with {', '.join(fields)}")
    return row
