"""YAML that people write: whatever is wrong with it is one kind of error, with its line."""

from __future__ import annotations

from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """A safe loader for which a date that does not exist is a fault of the text, as any other."""

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


def load_yaml(text: str, loader: type[Loader] = Loader) -> Any:
    """Read YAML.

    Raises:
        yaml.YAMLError: It is not valid.
    """
    try:
        return yaml.load(text, Loader=loader)  # noqa: S506 - it is a safe loader
    except RecursionError:
        raise yaml.YAMLError("nested too deep") from None
