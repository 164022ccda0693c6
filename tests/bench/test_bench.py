"""The whole comparison on a tiny model and made-up data: rows, resumption, tables, mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def compare(
    letheon: Callable[..., Any], quick: None, bench_data: Path, tiny_model_dir: Path, tmp_path: Path
) -> Callable[..., Any]:
    """Run `letheon bench` on the tiny model."""

    def call(task: str, *more: object) -> tuple[int, str, str]:
        where = ("--data", bench_data, "--model", tiny_model_dir, "--output", tmp_path / "out")
        return letheon("bench", task, *where, "--seeds", "0", *more)

    return call


def test_leak(compare: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = compare("leak", "--methods", "letheon,npo", "--trials", 2)
    assert code == 0, err
    with (tmp_path / "out" / "leak-lora.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))


