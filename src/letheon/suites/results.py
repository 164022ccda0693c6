"""The file that a suite writes, and the table of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from letheon.console import Console
from letheon.errors import InputError
from letheon.records import Estimate, Metric, ModelMetrics, NotComputed, Record, write_text

OWN, BEFORE, CONTROL = "model", "before", "control"


class Examined(Record):
    """A model that was measured: its name, its fingerprint, and how long it took."""

    name: str
    hash: str
    seconds: float


class SuiteResults(BaseModel):
    """What a suite found, without any text.

    Attributes:
        suite: Its name.
        models: "model", and "before" and "control" where there are such.
        data: Fingerprints of the files, by name.
        limit: Most rows of each file; None: all were read.
        samples: Answers drawn to a prompt.
        notes: What one should know of the numbers.
        metrics: "model", "before" or "control" → set → metric → value.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["letheon/suite/1"] = Field(default="letheon/suite/1", alias="schema")
    suite: str
    models: dict[str, Examined]
    data: dict[str, str]
    limit: int | None
    samples: int
    notes: list[str]
    metrics: dict[str, ModelMetrics]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, self.model_dump_json(by_alias=True, indent=2) + "\n")


def check_output(*paths: Path) -> None:
    """Look whether files can be written, and leave nothing behind: it is asked before hours of measuring.

    Raises:
        InputError: One is a folder, or lies where none can be.
    """
    for path in paths:
        if path.is_dir():
            raise InputError(f"--output {path}: a folder; name a file in it, or another one")
        # A folder that is not there is made in the end.
        held = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
        try:
            # Permissions do not tell of a disk that is read-only.
            with tempfile.TemporaryFile(dir=held):
                pass
        except OSError as error:
            why = (error.strerror or "cannot be used").lower()
            raise InputError(
                f"--output {path}: nothing can be written to {held} ({why}); name another file"
            ) from None


def show(results: SuiteResults, console: Console) -> None:
    """Print a table of the metrics, then why others were not computed, then the notes."""
    models = list(results.metrics)
    rows = []
    reasons: dict[str, list[str]] = {}
    for name, metrics in results.metrics[OWN].items():
        for metric, value in metrics.items():
            others = [results.metrics[model].get(name, {}).get(metric) for model in models[1:]]
            if isinstance(value, NotComputed):
                reasons.setdefault(value.not_computed, []).append(f"{name} {metric}")
            if any(not isinstance(one, NotComputed) for one in (value, *others) if one is not None):
                rows.append([f"{name}: {metric}", *(_cell(one) for one in (value, *others))])
    console.table(results.suite, ["", *models], rows)
    console.say("a mean ± its standard error, or an estimate [its 95% interval]")
    for why, names in reasons.items():
        console.say(f"not computed: {', '.join(names)}: {why}")
    for note in results.notes:
        console.say(f"note: {note}")


def _cell(value: Metric | None) -> str:
    if value is None or isinstance(value, NotComputed):
        return "–"
    if isinstance(value, Estimate):
        return f"{value.mean:.4g}" + ("" if value.stderr is None else f" ± {value.stderr:.2g}")
    return f"{value.estimate:.4g} [{value.low:.3g}, {value.high:.3g}]"
