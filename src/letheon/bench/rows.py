"""The rows of a comparison, a file each, so that it goes on where it was cut off; and which of them count."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from letheon.errors import InputError
from letheon.records import Record, first_fault, write_text

BEFORE, CONTROL = "before", "control"
REFERENCES = (BEFORE, CONTROL)
"""Rows of models that no method made."""


class Row(Record):
    """One training of a method, or a model that it is held against, on one seed.

    Attributes:
        task: Name of the task.
        tuning: "lora" or "full"; of the references as well, to keep a table together.
        method: Name of the method, or of a reference.
        seed: Of victim, control, data and training.
        trial: Number of the trial, from 0.
        key: Hash of all that the row depends on.
        models: Hashes of the victim and the control that it was measured with.
        settings: What the trial changes in the method's settings.
        seconds: Of unlearning; of a reference, of its fine-tuning.
        tokens: Read in the steps of training.
        steps: Steps taken.
        stop: Why training ended.
        within_guards: Whether a stop rule found the model fit for use.
        level_seconds: Seconds until the old answers came to the control's level; None: they never did.
        level_step: The step of that.
        validation: Metrics by which settings are chosen; None where one is not a number.
        report: The same on questions that had no say in the choice.
        failed: Why there is no result.
    """

    task: str
    tuning: str
    method: str
    seed: int
    trial: int
    key: str
    models: str = ""
    settings: str = ""
    seconds: float | None = None
    tokens: int | None = None
    steps: int | None = None
    stop: str = ""
    within_guards: bool | None = None
    level_seconds: float | None = None
    level_step: int | None = None
    validation: dict[str, float | None] = {}
    report: dict[str, float | None] = {}
    failed: str | None = None


def file_of(folder: Path, task: str, tuning: str, method: str, seed: int, trial: int) -> Path:
    """Where a row lies."""
    return folder / "rows" / f"{task}-{tuning}-{method}-{seed}-{trial}.json"


def save(folder: Path, row: Row) -> None:
    """Write a row's file."""
    write_text(file_of(folder, row.task, row.tuning, row.method, row.seed, row.trial), row.model_dump_json() + "\n")


def load(path: Path) -> Row:
    """Read a row's file.

    Raises:
        InputError: It is no row.
    """
    try:
        return Row.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise InputError(f"{path}: damaged: {first_fault(error)}; delete it, and the row is computed again") from None


def load_all(folder: Path, task: str, tuning: str) -> list[Row]:
    """All rows of a task, whoever computed them, in the order of their names."""
    rows = [load(path) for path in sorted((folder / "rows").glob(f"{task}-{tuning}-*.json"))]
    return [row for row in rows if row.task == task and row.tuning == tuning]


def numbers(metrics: dict[str, float]) -> dict[str, float | None]:
    """Metrics as they are written; what is not a finite number is None."""
    return {name: round(value, 5) if math.isfinite(value) else None for name, value in metrics.items()}


def chosen(rows: Iterable[Row]) -> list[Row]:
    """Of each method and seed the trial with the best score on validation; of those without a score the first.

    Each seed chooses for itself: tuning is part of what is repeated.
    """
    best: dict[tuple[str, int], Row] = {}
    for row in sorted(rows, key=lambda row: row.trial):
        held = best.get((row.method, row.seed))
        if held is None or _score(row) > _score(held):
            best[row.method, row.seed] = row
    return list(best.values())


def _score(row: Row) -> float:
    score = row.validation.get("score")
    return -1.0 if score is None or row.failed is not None else score


def spread(values: Sequence[float | None]) -> tuple[float, float | None] | None:
    """Mean and standard deviation over seeds; without the second for one seed, None where a value is missing."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None
