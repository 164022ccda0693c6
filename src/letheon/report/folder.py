"""What a run folder holds, read once. A file that is not there yet is an empty part, never an error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from letheon.errors import InputError
from letheon.recipe import Recipe, check_recipe
from letheon.records import Audit, Results, Verdict, read_verdicts
from letheon.review.audit import read_audit
from letheon.stress.records import StressResults, read_stress

WITHHELD = "(withheld: show_texts is off)"


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run that a report shows.

    Attributes:
        results: `results.json`, or an empty one.
        recipe: `recipe.yaml`, where there is one.
        manifest: `manifest.json`, or {}.
        steps: The training lines of `training.jsonl`, in order of step.
        probes: Its probe lines, each {"step", "share", "normal_ratio", "kl", "alpha"}, as far as they are known.
        verdicts: `verdicts.jsonl`, or [].
        samples: `samples.jsonl`, or []: ids and scores.
        audit: `audit.json`, where a person has begun one.
        stress: `stress.json`, where the model has been attacked.
    """

    results: Results
    recipe: Recipe | None
    manifest: dict[str, Any]
    steps: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    verdicts: list[Verdict]
    samples: list[dict[str, Any]]
    audit: Audit | None
    stress: StressResults | None

    @property
    def recipe_text(self) -> str | None:
        """The recipe as YAML; who asked to be erased only where texts may be shown."""
        if self.recipe is None:
            return None
        if self.recipe.data.subject is None or self.recipe.show_texts:
            return self.recipe.dump()
        hidden = {"subject": WITHHELD, "aliases": [WITHHELD] * bool(self.recipe.data.aliases)}
        data = self.recipe.data.model_copy(update=hidden)
        return self.recipe.model_copy(update={"data": data}).dump()


def read_run(run: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        InputError: No such folder, or a file in it is damaged.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder; 'letheon run RECIPE' makes one")
    lines = _read_lines(run / "training.jsonl")
    return RunFolder(
        results=_read_results(run / "results.json"),
        recipe=_read_recipe(run / "recipe.yaml"),
        manifest=_read_manifest(run / "manifest.json"),
        steps=_by_step([line for line in lines if not isinstance(line.get("probe"), dict)]),
        probes=_by_step(
            [{"step": line.get("step"), **line["probe"]} for line in lines if isinstance(line.get("probe"), dict)]
        ),
        verdicts=_read_verdicts(run / "verdicts.jsonl"),
        samples=_read_lines(run / "samples.jsonl"),
        audit=read_audit(run / "audit.json"),
        stress=read_stress(run / "stress.json"),
    )


def _read_results(path: Path) -> Results:
    try:
        return Results.load(path)
    except ValidationError as error:
        raise InputError(f"{path}: damaged: {_first_line(error)}; run 'letheon evaluate' again") from None


def _read_recipe(path: Path) -> Recipe | None:
    if not path.exists():
        return None
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    return check_recipe(raw if isinstance(raw, dict) else {}, str(path))


def _read_manifest(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON: {error}") from None
    return manifest if isinstance(manifest, dict) else {}


def _read_verdicts(path: Path) -> list[Verdict]:
    if not path.exists():
        return []
    try:
        return read_verdicts(path)
    except ValidationError as error:
        raise InputError(f"{path}: damaged: {_first_line(error)}; run 'letheon screen' again") from None


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON objects, one a line; a last line cut short by a killed run is left out."""
    if not path.exists():
        return []
    # Not splitlines(): it also splits at U+2028 and its like, which JSON allows inside strings.
    lines = path.read_text(encoding="utf-8").split("\n")
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines):
                break
            raise InputError(f"{path}, line {number}: not valid JSON") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: expected an object, found {type(value).__name__}")
        found.append(value)
    return found


def _by_step(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order by step; of a step that a resumed run did twice, the later line counts."""
    latest = {line["step"]: line for line in lines if isinstance(line.get("step"), int)}
    return [latest[step] for step in sorted(latest)]


def _first_line(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}"
