"""Which module may import which: what keeps the parts apart and the command line quick."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import letheon

ROOT = Path(letheon.__file__).parent
HEAVY = ("torch", "transformers", "peft", "datasets", "accelerate", "sentence_transformers", "sklearn", "matplotlib")
# Loaded where they are used: they would take as long as all the rest of `letheon.screen`.
HEAVY += ("scipy.stats", "scipy.optimize")


def imported(file: Path) -> Iterator[str]:
    """Names of all modules that a file imports, within functions too; relative ones made absolute."""
    package = ["letheon", *file.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            # `from letheon import train` is an import of letheon.train.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@pytest.mark.parametrize("file", sorted((ROOT / "objective").rglob("*.py")), ids=lambda file: file.name)
def test_the_objective_knows_torch_and_nothing_else_of_ours(file: Path) -> None:
    ours = [module for module in imported(file) if within(module, "letheon")]
    assert all(within(module, "letheon.objective") for module in ours)
    theirs = {module.split(".")[0] for module in imported(file)} - {"letheon", *sys.stdlib_module_names}
    assert theirs <= {"torch"}


@pytest.mark.parametrize("package", ["report", "review"])
def test_views_do_not_train(package: str) -> None:
    for file in (ROOT / package).rglob("*.py"):
        assert not [module for module in imported(file) if within(module, "letheon.train")], file


def test_the_stop_rule_knows_numbers_and_no_models() -> None:
    modules = {module.split(".")[0] for module in imported(ROOT / "train" / "stop.py")}
    assert modules <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    "code",
    [
        "import letheon",
        "import letheon.records, letheon.recipe, letheon.errors, letheon.console, letheon.dialogues",
        "import letheon.report",
        "import letheon.screen",
        "import letheon.review.exchange, letheon.review.serve",
        "import sys, letheon.cli; sys.argv = ['letheon', '--help']; letheon.cli.main()",
    ],
)
def test_imports_nothing_heavy(code: str) -> None:
    script = (
        f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit as end:\n    assert not end.code, end\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\nassert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", letheon.__all__)
def test_the_packages_names_are_there(name: str) -> None:
    assert getattr(letheon, name) is not None
    assert name in dir(letheon)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = import_module("letheon").unknown
