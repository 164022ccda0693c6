"""The whole comparison on a tiny model and made-up data: rows, resumption, tables, mistakes."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letheon.bench.rows import load_all
from letheon.bench.tasks import TASKS


@pytest.fixture
def compare(
    letheon: Callable[..., Any], quick: None, bench_data: Path, tiny_model_dir: Path, tmp_path: Path
) -> Callable[..., Any]:
    """Run `letheon bench` on the tiny model."""

    def call(task: str, *more: object) -> tuple[int, str, str]:
        where = ("--data", bench_data, "--model", tiny_model_dir, "--output", tmp_path / "out")
        return letheon("bench", task, *where, "--seeds", "0", *more)

    return call


@pytest.mark.parametrize("task", TASKS)
def test_every_task_gives_its_numbers(compare: Callable[..., Any], tmp_path: Path, task: str) -> None:
    code, _, err = compare(task, "--methods", "npo", "--trials", 1)
    assert code == 0, err
    with (tmp_path / "out" / f"{task}-lora.csv").open(encoding="utf-8") as stream:
        before, control, npo = csv.DictReader(stream)
    assert [before["method"], control["method"], npo["method"]] == ["before", "control", "npo"]
    print({k: (before[k], control[k], npo[k]) for k in before})
    assert 0
