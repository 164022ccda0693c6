"""The wheel holds every module and data file, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytest.importorskip("build")
pytest.importorskip("hatchling")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a freshly built wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("letheon-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_every_file_of_the_package_is_inside(names: set[str]) -> None:
    source = ROOT / "src"
    there = [f for f in (source / "letheon").rglob("*") if f.is_file() and "__pycache__" not in f.parts]
    expected = {file.relative_to(source).as_posix() for file in there}
    assert expected - names == set()
    assert {Path(name).suffix for name in expected} >= {".py", ".jsonl", ".txt", ".yaml", ".j2", ".css", ".typed"}


def test_nothing_else_is_inside(names: set[str]) -> None:
    others = {name for name in names if not name.startswith("letheon/") and ".dist-info/" not in name}
    assert others == set()
    assert not [name for name in names if "test" in Path(name).name or "__pycache__" in name]


def test_licence_and_command_are_declared(names: set[str]) -> None:
    assert any(name.endswith("/licenses/LICENSE") for name in names)
    assert any(name.endswith("/entry_points.txt") for name in names)
