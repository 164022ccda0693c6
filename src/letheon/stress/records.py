"""`stress.json`: what each attack brought back, of which model. A file format: change it with its version."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from letheon.records import Interval, Metric, NotComputed, Record, read_record, write_text

STRESS_SCHEMA = "letheon/stress/1"

Name = Literal["before", "after", "control"]
Along = Literal["step", "layer"]


class Row(Record):
    """What one attack brought back.

    Attributes:
        attack: Its name, as of `letheon stress --attacks`; "none" where nothing was done.
        variant: Which form of it.
        how: What was done, in plain words.
        metric: What was measured.
        at: Step or layer at which most came back from the model after; the row is of there.
        models: The metric of each model under the attack.
        plain: The same without the attack, where that is defined.
        rise: How far after stands above where it stood without the attack, and above the control under the same one:
            under attack, after − max(after without it, control).
        recovered: (under attack − plain) / (before − after, both plain), of after and control.
        beyond: rise / (before − after, both plain): what the control shows as well does not count.
        says: All that in a sentence.
    """

    attack: str
    variant: str
    how: str
    metric: str
    at: int | None = None
    models: dict[Name, Metric]
    plain: dict[Name, Metric] = Field(default_factory=dict)
    rise: Interval | NotComputed
    recovered: dict[Name, Interval] = Field(default_factory=dict)
    beyond: Interval | NotComputed
    says: str


class Point(Record):
    """A place on a curve: each model's metric there, and of after and control the share that has come back."""

    at: int
    models: dict[Name, Metric]
    recovered: dict[Name, float] = Field(default_factory=dict)


class Curve(Record):
    """A metric along the steps of an attack, or along the layers that it looks into.

    Attributes:
        attack: As of `Row`.
        variant: As of `Row`.
        metric: As of `Row`.
        along: What the places are.
        points: In order.
        area: Mean share recovered over the steps (trapezoids, divided by the number of steps), of after and control.
        half: The step at which half has come back, by linear interpolation; None where it never has.
    """

    attack: str
    variant: str
    metric: str
    along: Along
    points: tuple[Point, ...]
    area: dict[Name, float] = Field(default_factory=dict)
    half: dict[Name, float | None] = Field(default_factory=dict)


class NotRun(Record):
    """An attack, or a form of it, that was not made, and why."""

    attack: str
    variant: str | None = None
    why: str


class GateCheck(Record):
    """A number against a gate of the recipe.

    Attributes:
        gate: The field, such as "stress.max_recovery".
        what: The worst of the attacks that it speaks of.
        value: What that brought back; None where it could not be computed, which fails.
        limit: The most that is allowed.
        passed: Whether value ≤ limit.
        why: Where there is no value: why not.
    """

    gate: str
    what: str
    value: float | None
    limit: float
    passed: bool
    why: str | None = None


class AttackedAnswer(Record):
    """What a model said under an attack; kept only where texts may be shown."""

    attack: str
    variant: str
    model: Name
    id: str
    answer: str


class StressResults(BaseModel):
    """`stress.json`: all attacks on a run's model, so far.

    Attributes:
        seed: Of all that is drawn.
        items: How many old answers were looked for, in every attack.
        relearned: How many others relearning was given.
        merged: Whether the model after is an adapter that was merged into its base to be attacked.
        rows: One for each attack, form and metric.
        curves: Relearning by steps, probing by layers.
        not_run: What was not done.
        gates: The recipe's gates on these rows.
        seconds: By attack.
        answers: Texts, where they may be shown.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["letheon/stress/1"] = Field(default="letheon/stress/1", alias="schema")
    seed: int
    items: int
    relearned: int
    merged: bool
    rows: list[Row] = Field(default_factory=list)
    curves: list[Curve] = Field(default_factory=list)
    not_run: list[NotRun] = Field(default_factory=list)
    gates: list[GateCheck] = Field(default_factory=list)
    seconds: dict[str, float] = Field(default_factory=dict)
    answers: list[AttackedAnswer] = Field(default_factory=list)

    def without(self, attacks: list[str]) -> StressResults:
        """What is there of the other attacks."""
        parts = ("rows", "curves", "not_run", "answers")
        kept = {part: [one for one in getattr(self, part) if one.attack not in attacks] for part in parts}
        return self.model_copy(update=kept)

    def save(self, path: Path) -> None:
        """Write atomically."""
        write_text(path, self.model_dump_json(by_alias=True, indent=2) + "\n")


def read_stress(path: Path) -> StressResults | None:
    """Read `stress.json`; None where there is none.

    Raises:
        InputError: The file was written by another version, or is damaged.
    """
    if not path.is_file():
        return None
    damaged = "not a stress file (damaged?); delete it and run 'letheon stress' again"
    return read_record(StressResults, path, STRESS_SCHEMA, damaged, "run 'letheon stress' again")
