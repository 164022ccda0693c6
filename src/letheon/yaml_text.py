"""YAML that people write: whatever is wrong with it is one kind of error, with its line."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """A safe loader for which a key that stands twice, or a date that does not exist, is a fault as any other."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Make a mapping of a node.

        Raises:
            yaml.YAMLError: A key stands in it twice: only the last of them would count.
        """
        # What a "<<" brings in may be overridden: it comes into the node after this.
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        counts = Counter((key.tag, key.value) for key in keys)
        if twice := [key for key in keys if counts[key.tag, key.value] > 1]:
            raise yaml.YAMLError(f"line {twice[-1].start_mark.line + 1}: {twice[-1].value!r} stands there again")
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make a value of a node.

        Raises:
            yaml.YAMLError: There is no such value.
        """
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            line, kind = node.start_mark.line + 1, node.tag.rpartition(":")[2]
            raise yaml.YAMLError(f"line {line}: no such {kind} ({error}); quote it where it is a text") from None


class RecipeLoader(Loader):
    """With the numbers of YAML 1.2: 5e-4 is one, where version 1.1 sees a text."""


class _RecipeDumper(yaml.SafeDumper):
    """Puts marks around a text that the loader would take for a number."""


for one in (RecipeLoader, _RecipeDumper):
    one.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
    )


def dump_recipe(raw: dict[str, Any]) -> str:
    """A recipe as text that reads back as it was."""
    return yaml.dump(raw, Dumper=_RecipeDumper, sort_keys=False, allow_unicode=True, width=100)


def load_yaml(text: str, loader: type[Loader] = Loader) -> Any:
    """Read YAML.

    Raises:
        yaml.YAMLError: It is not valid.
    """
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - it is a safe loader
    except yaml.MarkedYAMLError as error:
        # Without the line itself: it may be of what is to be forgotten.
        mark = error.problem_mark or error.context_mark
        where = "" if mark is None else f"line {mark.line + 1}: "
        raise yaml.YAMLError(f"{where}{error.problem or error.context}") from None
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
