"""Every example runs, with its tiny model."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
EXAMPLES = sorted(FOLDER.glob("[0-9]_*.py"))
SAYS = {
    "1_screen.py": "precision=",
    "2_expect.py": "cluster 0",
    "3_unlearn.py": "stopped at step 4",
    "4_evaluate.py": "extraction_strength",
    "5_report.py": "report.html",
}


def test_there_are_five() -> None:
    assert [path.name for path in EXAMPLES] == sorted(SAYS)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # In this process, which has torch loaded: five times that import would be most of this module's time.
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(path), "--tiny"])
    runpy.run_path(str(path), run_name="__main__")
    assert SAYS[path.name] in capsys.readouterr().out


def test_example_as_people_run_it(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES[0]), "--tiny"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "precision=" in done.stdout


def test_example_says_what_it_needs(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES[-1])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "give model, run, or --tiny" in done.stderr
