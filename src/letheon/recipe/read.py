"""From a YAML file and `--set` overrides to a recipe, or to every fault in it at once."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from letheon.errors import InputError
from letheon.methods import METHODS, at, merged, without
from letheon.recipe.schema import Recipe
from letheon.yaml_text import RecipeLoader, load_yaml


class FaultyRecipeError(InputError):
    """A recipe has faults in itself.

    Attributes:
        rest: The recipe without what is at fault, where there is one: files and models may have faults, too.
    """

    def __init__(self, faults: Sequence[str], rest: Recipe | None):
        super().__init__(faults)
        self.rest = rest


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `--set key.path=value` overrides, and check it whole.

    Paths in the file are relative to the file; paths in overrides to the current folder.

    Args:
        path: The YAML file.
        overrides: Each "objective.negative.rho=0.1"; the value is read as YAML.

    Raises:
        InputError: Every fault at once, each with its place and, for a misspelt field, a suggestion.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such recipe; 'letheon init DATA MODEL' writes a starter")
    try:
        raw = load_yaml(path.read_text(encoding="utf-8"), RecipeLoader)
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected 'key: value' lines, found {type(raw).__name__}")
    anchor_paths(raw, path.parent)
    for override in overrides:
        apply_override(raw, override)
    return check_recipe(raw, str(path))


def check_recipe(raw: dict[str, Any], where: str = "recipe") -> Recipe:
    """Validate a recipe given as nested dictionaries.

    Raises:
        FaultyRecipeError: Every fault at once.
    """
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        faults = error.errors()
        raise FaultyRecipeError([f"{where}: {_explain(one)}" for one in faults], _rest(raw, faults)) from None


def _rest(raw: dict[str, Any], faults: Sequence[Any]) -> Recipe | None:
    """What a raw recipe says beside its faults; None where that is none."""
    kept = copy.deepcopy(raw)
    for fault in faults:
        *parents, leaf = (str(part) for part in fault["loc"] or ("",))
        if isinstance(holder := at(kept, *parents), dict):
            holder.pop(leaf, None)
    try:
        return Recipe.model_validate(kept)
    except ValidationError:
        return None


def anchor_paths(raw: dict[str, Any], folder: Path) -> None:
    """Make the paths of a raw recipe relative to its own folder, in place; "~" is the user's.

    Raises:
        InputError: A path begins with "~" and a name that is no user's.
    """
    for holder, key in _paths(raw, folder):
        holder[key] = str(folder / _from_home(holder[key]))


def absolute_paths(raw: dict[str, Any]) -> None:
    """Make the paths of a raw recipe, relative to the current folder, absolute, in place."""
    for holder, key in _paths(raw, Path()):
        holder[key] = str(_from_home(holder[key]).resolve())


def _paths(raw: dict[str, Any], folder: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Sections, and their keys that name files and folders."""
    for section, keys in PATH_FIELDS.items():
        holder = at(raw, *(section.split(".") if section else ()))
        if not isinstance(holder, dict):
            continue
        for key in keys:
            value = holder.get(key)
            # A model may be a hub id: only what exists there is taken for a folder.
            if isinstance(value, str) and (key not in MODEL_FIELDS or (folder / _from_home(value)).exists()):
                yield holder, key


def _from_home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise InputError(f"{path}: there is no such user; write the path out") from None


PATH_FIELDS = {
    "": ("model", "base", "output"),
    "data": ("dialogues", "paraphrases", "general"),
    "screen": ("examples", "knowledge", "rules", "changed_facts", "ner"),
    "screen.classifier": ("model",),
    "screen.guard": ("model",),
    "screen.pair": ("model",),
    "screen.consistency": ("model",),
    "expected": ("safe_replies",),
    "evaluate": ("control", "non_members"),
}
MODEL_FIELDS = ("model", "base", "control", "ner")


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Apply one "a.b.c=value" to a raw recipe, in place.

    Raises:
        InputError: No "=", a path through something that is not a section, or one from the home of nobody.
    """
    key, found, value = override.partition("=")
    if not found or not key:
        raise InputError(f"--set {override!r}: expected key.path=value, e.g. objective.negative.rho=0.1")
    if key == "method":
        take_method(raw, value)
        return
    *parents, leaf = key.split(".")
    holder = raw
    for parent in parents:
        if holder.get(parent) is None:
            holder[parent] = {}
        holder = holder[parent]
        if not isinstance(holder, dict):
            raise InputError(f"--set {override!r}: {parent!r} is a value, not a section")
    try:
        holder[leaf] = load_yaml(value, RecipeLoader)
    except yaml.YAMLError:
        raise InputError(f"--set {override!r}: the value is not valid YAML; quote it") from None
    # A shell leaves the "~" of "model=~/mine" to us.
    anchor_paths(raw, Path())


def take_method(raw: dict[str, Any], name: str) -> None:
    """Put a method's settings in the place of a raw recipe's, in place.

    What an earlier method had set goes, and so does all of the objective.
    """
    kept = without(raw, METHODS.get(str(raw.get("method")), {}))
    raw.clear()
    raw.update(merged({**kept, "objective": {}, "method": name}, METHODS.get(name, {})))


def _explain(fault: Any) -> str:
    """One pydantic fault as a line: where, what is wrong, and the nearest known field."""
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, unknown = [str(part) for part in fault["loc"]]
        known = _fields_at(parents)
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"
        return f"unknown field {place!r}; {hint}"
    if fault["type"] == "missing":
        return f"{place!r} is missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{place}: {message}{shown}" if place else f"{message}{shown}"


def _fields_at(path: Sequence[str]) -> list[str]:
    """Names of the fields of the section at a path."""
    section: type[BaseModel] = Recipe
    for part in path:
        annotation: Any = section.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return [field.alias or name for name, field in section.model_fields.items()]
