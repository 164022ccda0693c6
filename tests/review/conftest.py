from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from screened_run import SAYINGS, talk, verdict, write_run


@pytest.fixture
def screened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a screened run in the current folder: `screened(scores)`, one dialogue d0, d1, … a score."""
    monkeypatch.chdir(tmp_path)

    def make(scores: Sequence[float] = (0.9, 0.5, 0.1, 0.4, 0.6, 0.0)) -> Path:
        log = [talk(f"d{n}", f"Question {n}?", f"{SAYINGS[n % 4]} Call 030-{n}.") for n in range(len(scores))]
        write_run(tmp_path, log, [verdict(f"d{n}", score) for n, score in enumerate(scores)])
        return tmp_path / "recipe.yaml"

    return make
