"""`letheon init`: a commented starter recipe for a dialogue file and a model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from letheon.dialogues import read_dialogues
from letheon.errors import InputError, check_all
from letheon.methods import METHODS, check_method
from letheon.models import check_model
from letheon.recipe import Recipe
from letheon.records import Dialogue, write_text


def write_starter(data: Path, model: str, output: Path, *, method: str = "letheon", force: bool) -> list[str]:
    """Write a recipe whose every field is commented with its help text, fitted to the data.

    Args:
        data: The dialogue file; it is read and checked.
        model: Model folder or hub id.
        output: The recipe file.
        method: Whose settings it has.
        force: Overwrite it.

    Returns:
        What to tell the user.

    Raises:
        InputError: The recipe exists; or, named together, all that is wrong with the method, the model and the data.
    """
    if output.exists() and not force:
        raise InputError(f"{output}: exists; pass --force to overwrite it, or --output for another name")
    dialogues = list[Dialogue]()
    check_all(
        [
            lambda: check_method(method),
            lambda: check_model(model),
            lambda: dialogues.extend(read_dialogues(data)),
        ]
    )
    labels = [dialogue.label for dialogue in dialogues]
    labelled = "forget" in labels and None not in labels
    folder = output.resolve().parent
    values = {
        **METHODS[method],
        "method": method,
        "model": os.path.relpath(model, folder) if Path(model).exists() else model,
        "output": f"runs/{output.stem}",
        "data": {"dialogues": os.path.relpath(data.resolve(), folder)},
        # Without labels the privacy judge is the only one that needs nothing else from the user.
        "screen": {"judges": ["labels"] if labelled else ["privacy"]},
    }
    text = "\n".join(
        ["# A Letheon recipe: letheon run " + output.name, "schema: letheon/recipe/1", *_lines(Recipe, values)]
    )
    write_text(output, text + "\n")
    told = [f"{output}: written for {len(dialogues)} dialogues ({labels.count('forget')} labelled 'forget')"]
    if not labelled:
        told.append(
            "not every dialogue has a label: the judge 'privacy' looks for personal data; for other content label "
            "some dialogues, and set screen.judges to [embedding, privacy] and screen.examples to their file"
        )
    return [*told, f"next: letheon validate {output} && letheon run {output}"]


def _lines(section: type[BaseModel], values: dict[str, Any], indent: str = "") -> Iterator[str]:
    """YAML lines of a section: help as comments, defaults spelt out, unset optional fields commented out."""
    for name, field in section.model_fields.items():
        if name == "schema_":
            continue
        yield ""
        inner = _section(field)
        default = field.get_default(call_default_factory=True)
        if inner is not None and default is None and name not in values:
            yield f"{indent}# {name}:  # {inner.__doc__}"
            yield from (
                f"{indent}# {line[len(indent) :]}" if line else "" for line in _lines(inner, {}, indent + "  ")
            )
            continue
        if inner is not None:
            yield f"{indent}{name}:" + (f"  # {inner.__doc__}" if inner.__doc__ else "")
            yield from _lines(inner, values.get(name, {}), indent + "  ")
            continue
        if field.description:
            yield f"{indent}# {' '.join(field.description.split())}"
        if field.is_required() and name not in values:
            yield f"{indent}{name}:"
            continue
        value = values.get(name, default)
        unset = value is None and name not in values
        yield f"{indent}# {name}:" if unset else f"{indent}{name}: {_yaml(value)}"


def _section(field: FieldInfo) -> type[BaseModel] | None:
    candidates = [field.annotation, *get_args(field.annotation)]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def _yaml(value: Any) -> str:
    """A value on one line; JSON is YAML."""
    plain = value is None or isinstance(value, dict | list | int | float | str)
    return json.dumps(value if plain else str(value), ensure_ascii=False)
