"""Every shipped recipe is valid, and every command explains itself without loading torch."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from letheon.cli import app
from letheon.recipe import load_recipe

RECIPES = sorted(Path(str(files("letheon") / "recipes")).glob("*.yaml"))
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]

HELP_OF_ALL = """
import sys
from typer.testing import CliRunner
from letheon.cli import app
for command in [[], *([name] for name in sys.argv[1:])]:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, (command, result.output)
heavy = sorted({"torch", "transformers", "peft", "datasets", "matplotlib"} & set(sys.modules))
assert not heavy, f"--help imports {heavy}"
"""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_shipped_recipe_is_valid(path: Path) -> None:
    recipe = load_recipe(path)
    named = (recipe.data.dialogues, recipe.data.paraphrases, recipe.data.general, recipe.screen.examples)
    assert [file for file in named if file is not None and not file.is_file()] == []


def test_there_is_a_recipe() -> None:
    assert RECIPES


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_a_command_does(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert result.output.strip().startswith("Usage:")


def test_help_of_no_command_imports_torch() -> None:
    # In a process of its own: the other tests here have loaded torch long ago.
    done = subprocess.run([sys.executable, "-c", HELP_OF_ALL, *COMMANDS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
