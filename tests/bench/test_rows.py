from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest

from letheon.bench.rows import Row, chosen, load, load_all, numbers, save, spread
from letheon.bench.table import as_csv, as_markdown
from letheon.errors import InputError


def row(method: str = "npo", seed: int = 0, trial: int = 0, score: float | None = 0.5, **fields: Any) -> Row:
    report = {"rate": 0.1 * (seed + 1), "utility": 0.9, "forgetting": 0.5, "score": score, "reached": 1.0}
    given = {"seconds": 10.0 + seed, "tokens": 100, "steps": 4, "stop": "enough", "report": report} | fields
    validation = {"score": score}
    return Row(
        task="leak", tuning="lora", method=method, seed=seed, trial=trial, key="k", validation=validation, **given
    )


def test_rows_come_back_and_do_not_mix(tmp_path: Path) -> None:
    rows = [row("control"), row("npo"), row("npo", trial=1), row("npo+stop", seed=2)]
    for one in rows:
        save(tmp_path, one)
    save(tmp_path, rows[0].model_copy(update={"tuning": "full"}))
    save(tmp_path, rows[0].model_copy(update={"task": "leak-05"}))
    assert sorted(load_all(tmp_path, "leak", "lora"), key=repr) == sorted(rows, key=repr)
    assert [one.task for one in load_all(tmp_path, "leak-05", "lora")] == ["leak-05"]


def test_a_damaged_row_is_named(tmp_path: Path) -> None:
    path = tmp_path / "row.json"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"row\.json: damaged: .*delete it"):
        load(path)


def test_each_seed_chooses_its_own_best_trial_and_no_report_has_a_say() -> None:
    rows = [
        row(trial=0, score=0.4, report={"score": 0.9}),
        row(trial=1, score=0.6, report={"score": 0.1}),
        row(seed=1, trial=0, score=0.7),
        row(seed=1, trial=1, score=None),
        row("ga", trial=0, score=None, failed="out of memory"),
        row("ga", trial=1, score=0.0),
    ]
    assert [(r.method, r.seed, r.trial) for r in chosen(rows)] == [("npo", 0, 1), ("npo", 1, 0), ("ga", 0, 1)]
    # Where all have failed the first stands for them.
    assert [r.trial for r in chosen([row(trial=n, score=None, failed="no") for n in (1, 0)])] == [0]


def test_spread_over_seeds() -> None:
    assert spread([0.5]) == (0.5, None)
    mean, deviation = spread([0.1, 0.2, 0.3]) or (0, 0)
    assert mean == pytest.approx(0.2)
    assert deviation == pytest.approx(0.1)
    # A mean over the seeds that happened to work would flatter.
    assert spread([0.5, None]) is None
    assert spread([]) is None


def test_what_is_no_number_is_none() -> None:
    assert numbers({"a": 0.123456, "b": math.nan, "c": math.inf}) == {"a": 0.12346, "b": None, "c": None}


def test_csv_has_every_row_and_both_halves() -> None:
    rows = [row("control"), row("npo", trial=0), row("npo", trial=1, score=0.6)]
    lines = list(csv.DictReader(io.StringIO(as_csv(rows, chosen(rows)))))
    assert [line["chosen"] for line in lines] == ["1", "0", "1"]
    assert [line["validation_score"] for line in lines] == ["0.5", "0.5", "0.6"]
    assert lines[0]["rate"] == "0.1"
    assert lines[0]["failed"] == ""


def test_markdown_gives_means_settings_ends_and_what_failed() -> None:
    rows = [
        *(row("control", seed) for seed in (0, 1)),
        *(row("npo", seed, settings="train.learning_rate=0.0005", level_seconds=3.0) for seed in (0, 1)),
        row("ga", 0, settings="as it is", score=None, failed="RuntimeError: out of memory"),
        row("letheon", 0, score=0.9, within_guards=False),
    ]
    text = as_markdown("leak, lora", rows, chosen(rows), ["rate", "utility"])
    lines = {line.split("|")[1].strip(): line for line in text.split("##")[0].splitlines() if line.startswith("|")}
    assert list(lines) == ["method", "---", "control", "letheon", "npo", "ga"]
    assert "| 0.150 ± 0.071 | 0.900 ± 0.000 | 10.5 ± 0.7 | 3.0 ± 0.0 | 100 ± 0 | 2/2 |" in lines["npo"]
    assert "never (1/1)" in lines["letheon"]
    assert "| npo | 1 | `train.learning_rate=0.0005` | enough |" in text
    assert "enough (not within the guards)" in text
    assert "- ga, seed 0, trial 1 (`as it is`): RuntimeError: out of memory" in text


def test_the_best_method_comes_first() -> None:
    rows = [
        row(method, seed, report={"score": score + seed / 10, "utility": 1 - score})
        for method, score in (("ga", 0.2), ("npo", 0.6), ("wga", 0.4))
        for seed in (0, 1)
    ]
    text = as_markdown("leak, lora", rows, rows, ["utility"]).split("##")[0]
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:] == [
        "npo",
        "wga",
        "ga",
    ]


def test_methods_of_one_score_come_in_the_order_of_their_names() -> None:
    names = ["ga", "idk-ap", "ihl", "npo", "rmu", "simnpo", "undial", "wga"]
    rows = [row(name, score=None, failed="out of memory") for name in reversed(names)]
    text = as_markdown("leak, lora", rows, rows, ["utility"]).split("##")[0]
    assert [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")][2:] == names
