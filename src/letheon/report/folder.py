"""What a run folder holds, read once. A file that is not there yet is an empty part, never an error."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from letheon.errors import InputError
from letheon.recipe import Recipe, load_recipe
from letheon.records import Audit, Results, Verdict, read_verdicts
from letheon.review.audit import read_audit
from letheon.run import read_manifest
from letheon.stress.records import StressResults, read_stress
from letheon.yaml_text import dump_recipe

WITHHELD = "(withheld: show_texts is off)"


@dataclass(frozen=True)
class RunFolder:
    """The parts of a run that a report shows.

    Attributes:
        results: `results.json`, or an empty one.
        recipe: `recipe.yaml`, where there is one.
        manifest: `manifest.json`, or {}.
        steps: The training lines of `training.jsonl`, in order of step.
        probes: Its probe lines, each {"step", "probability", "kl", "alpha", …}, as far as they are known.
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
        """The recipe as YAML, of local paths the last part; who asked to be erased only where texts may be shown."""
        if self.recipe is None:
            return None
        fields = self.recipe.model_dump(mode="json", by_alias=True)
        if self.recipe.data.subject is not None and not self.recipe.show_texts:
            fields["data"] |= {"subject": WITHHELD, "aliases": [WITHHELD] * bool(self.recipe.data.aliases)}
        return dump_recipe(_without_folders(fields))


def _without_folders(value: Any) -> Any:
    """Fields of a recipe, with the last part of each absolute path: the rest tells about its owner."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def read_run(run: Path) -> RunFolder:
    """Read a run folder.

    Raises:
        InputError: No such folder, or a file in it is damaged or of another version.
    """
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder; 'letheon run RECIPE' makes one")
    recipe, verdicts = run / "recipe.yaml", run / "verdicts.jsonl"
    lines = _read_lines(run / "training.jsonl")
    return RunFolder(
        results=Results.load(run / "results.json"),
        recipe=load_recipe(recipe) if recipe.exists() else None,
        manifest=read_manifest(run / "manifest.json"),
        steps=_by_step([line for line in lines if not isinstance(line.get("probe"), dict)]),
        probes=_by_step(
            [{"step": line.get("step"), **line["probe"]} for line in lines if isinstance(line.get("probe"), dict)]
        ),
        verdicts=read_verdicts(verdicts) if verdicts.exists() else [],
        samples=_read_lines(run / "samples.jsonl"),
        audit=read_audit(run / "audit.json"),
        stress=read_stress(run / "stress.json"),
    )


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON objects, one a line; a last line cut short by a killed run is left out."""
    if not path.exists():
        return []
    # Not splitlines(): it also splits at U+2028 and its like, which JSON allows inside strings.
    lines = path.read_bytes().split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            what = "UTF-8" if isinstance(error, UnicodeDecodeError) else "valid JSON"
            raise InputError(f"{path}, line {number}: not {what}") from None
        if not isinstance(value, dict):
            raise InputError(f"{path}, line {number}: expected an object, found {type(value).__name__}")
        found.append(value)
    return found


def _by_step(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Order by step; of a step that a resumed run did twice, the later line counts."""
    latest = {line["step"]: line for line in lines if isinstance(line.get("step"), int)}
    return [latest[step] for step in sorted(latest)]
