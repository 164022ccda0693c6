"""The whole comparison on a tiny model and made-up data: rows, resumption, tables, mistakes."""

from __future__ import annotations

import csv
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from letheon.bench import outdated
from letheon.bench.rows import load, save
from letheon.bench.task import Task
from letheon.bench.tasks import TASKS
from letheon.demo.fine_tune import Schooling
from letheon.methods import METHODS

PNG = b"\x89PNG"


@pytest.fixture
def compare(
    letheon: Callable[..., Any], quick: None, bench_data: Path, tiny_model_dir: Path, tmp_path: Path
) -> Callable[..., Any]:
    """Run `letheon bench` on the tiny model."""

    def call(task: str, *more: object) -> tuple[int, str, str]:
        where = ("--data", bench_data, "--model", tiny_model_dir, "--output", tmp_path / "out")
        return letheon("bench", task, *where, "--seeds", "0", *more)

    return call


def read(folder: Path, stem: str) -> list[dict[str, str]]:
    with (folder / f"{stem}.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(
    "task", [task if task == "outdated" else pytest.param(task, marks=pytest.mark.slow) for task in TASKS]
)
def test_every_task_gives_its_numbers(compare: Callable[..., Any], tmp_path: Path, task: str) -> None:
    code, _, err = compare(task, "--methods", "npo", "--trials", 1)
    assert code == 0, err
    before, control, npo = read(tmp_path / "out", f"{task}-lora")
    assert [before["method"], control["method"], npo["method"]] == ["before", "control", "npo"]
    assert not npo["failed"]
    assert float(npo["seconds"]) > 0
    assert int(npo["tokens"]) > 0
    assert int(npo["steps"]) > 0
    assert npo["settings"] == "train.learning_rate=0.0005"
    # Every metric is there, for both halves.
    unknown = {name for name, value in npo.items() if not value}
    assert unknown <= {"failed", "level_seconds", "level_step"}
    assert float(before["utility"]) == 1
    assert float(control["forgetting"]) == 1
    assert float(control["probability"]) < float(before["probability"])


@pytest.mark.slow
def test_an_ablation_overrides_what_every_method_is_set_to(compare: Callable[..., Any], tmp_path: Path) -> None:
    given = ("outdated", "--methods", "letheon", "--trials", 1, "--set", "train.max_steps=1")
    assert compare(*given, "--set", "train.stop_rule=false")[0] == 0
    row = read(tmp_path / "out", "outdated-lora")[-1]
    assert (row["steps"], row["settings"]) == ("1", "train.max_steps=1 train.stop_rule=false")
    code, _, err = compare(*given, "--set", "objective.colour=1")
    assert code == 2
    assert "objective.colour" in err


@pytest.mark.slow
def test_rows_of_another_comparison_stay_out_of_the_table(compare: Callable[..., Any], tmp_path: Path) -> None:
    given = ("outdated", "--trials", 1, "--tuning", "full")
    assert compare(*given, "--methods", "ga,npo", "--budget", 600)[0] == 0
    code, _, err = compare(*given, "--methods", "ga", "--budget", 0)
    assert code == 0, err
    assert "1 rows in" in err
    assert "are left out of the table" in err
    assert [row["method"] for row in read(tmp_path / "out", "outdated-full")] == ["before", "control", "ga"]
    # Nor do rows of another victim, as of another machine, stand beside these.
    file = tmp_path / "out" / "rows" / "outdated-full-ga-0-0.json"
    row = load(file)
    save(tmp_path / "out", row.model_copy(update={"models": "another"}))
    assert load(file).models == "another"
    code, _, err = compare(*given, "--methods", "npo", "--budget", 0)
    assert "1 rows in" in err
    assert [row["method"] for row in read(tmp_path / "out", "outdated-full")] == ["before", "control", "npo"]


def test_a_comparison_goes_on_where_it_was_cut_off(compare: Callable[..., Any], tmp_path: Path) -> None:
    folder = tmp_path / "out"
    assert compare("outdated", "--methods", "letheon,ga", "--trials", 2, "--tuning", "full")[0] == 0
    rows = read(folder, "outdated-full")
    assert [(row["method"], row["trial"]) for row in rows[2:]] == [(m, t) for m in ("ga", "letheon") for t in "01"]
    assert [sum(int(row["chosen"]) for row in rows if row["method"] == name) for name in ("ga", "letheon")] == [1, 1]
    files = {path.name: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()}
    (folder / "rows" / "outdated-full-ga-0-1.json").unlink()
    code, _, err = compare("outdated", "--methods", "letheon,ga", "--trials", 2, "--tuning", "full")
    assert code == 0
    assert "ga, trial 2 (1 of 1 to go)" in err
    kept = {path.name: path.stat().st_mtime_ns for path in (folder / "rows").iterdir()}
    for name in ("outdated-full-letheon-0-0.json", "outdated-full-ga-0-0.json"):
        assert kept[name] == files[name]
    # With every row there nothing is computed; and what is written says the same.
    before = (folder / "outdated-full.csv").read_bytes()
    code, _, err = compare("outdated", "--methods", "letheon,ga", "--trials", 2, "--tuning", "full")
    assert "every row is there" in err
    assert (folder / "outdated-full.csv").read_bytes() == before
    for name in ("utility", "seconds"):
        assert (folder / f"outdated-full-{name}.png").read_bytes().startswith(PNG)
    # No text of what is to be forgotten is left.
    left = [path for path in folder.rglob("*") if path.is_file() and b"Bujumbura" in path.read_bytes()]
    assert left == []


@pytest.mark.slow
def test_what_judge_and_label_do_not_agree_on_is_set_aside(
    compare: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = TASKS["harm"]

    def mislabelled(data: Path, seed: int) -> Task:
        task = build(data, seed)
        bad = next(one for one in task.log if one.label == "forget")
        log = [one.model_copy(update={"label": "normal"}) if one is bad else one for one in task.log]
        return replace(task, log=log)

    arguments = ("harm", "--methods", "ga", "--trials", 1)
    assert "set aside" not in compare(*arguments)[2]
    monkeypatch.setitem(TASKS, "harm", mislabelled)
    assert "set aside, for judge and label do not agree: 1 of" in compare(*arguments)[2]
    # Which is no reason to begin again.
    monkeypatch.setattr("letheon.bench.bench.victim_and_control", lambda *_: pytest.fail("begun again"))
    assert "seed 0: every row is there" in compare(*arguments)[2]


@pytest.mark.slow
def test_the_demo_model(letheon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    build, some = TASKS["outdated"], outdated.read_facts()[:8]
    monkeypatch.setattr("letheon.bench.outdated.read_facts", lambda: some)
    schooling = Schooling(epochs=6, learning_rate=2e-4)
    monkeypatch.setitem(TASKS, "outdated", lambda data, seed: replace(build(data, seed), schooling=schooling))
    where = ("--output", tmp_path, "--seeds", "0", "--trials", 1, "--budget", 60)
    assert letheon("bench", "outdated", "--methods", "npo", *where)[0] == 0
    before, control, npo = read(tmp_path, "outdated-lora")
    assert float(before["said_old"]) > float(control["said_old"])
    assert float(npo["probability"]) < float(before["probability"])


@pytest.mark.slow
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_every_method_gives_a_row(compare: Callable[..., Any], tmp_path: Path, tuning: str) -> None:
    assert compare("harm", "--trials", 1, "--tuning", tuning)[0] == 0
    rows = {row["method"]: row for row in read(tmp_path / "out", f"harm-{tuning}")}
    assert set(rows) == {"before", "control", *METHODS}
    failed = {name: row["failed"] for name, row in rows.items() if row["failed"]}
    # With full tuning its 512 components are more than a model of this width has, and no adapter starts by FILA.
    assert set(failed) == ({"repselect"} if tuning == "lora" else {"repselect", "loku"}), failed
    assert ("an adapter could not hold it" if tuning == "lora" else "take fewer") in failed["repselect"]
    if tuning == "full":
        assert "is how an adapter starts" in failed["loku"]


def test_a_row_that_fails_says_why(compare: Callable[..., Any], tmp_path: Path) -> None:
    code, _, err = compare("outdated", "--methods", "repselect", "--trials", 1)
    assert code == 0, err
    row = read(tmp_path / "out", "outdated-lora")[-1]
    assert row["method"] == "repselect"
    assert "an adapter could not hold it" in row["failed"]
    assert "an adapter could not hold it" in (tmp_path / "out" / "outdated-lora.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_budget_ends_a_training(compare: Callable[..., Any], tmp_path: Path) -> None:
    assert compare("outdated", "--methods", "npo", "--trials", 1, "--budget", 0)[0] == 0
    row = read(tmp_path / "out", "outdated-lora")[-1]
    assert row["steps"] == "1"
    assert row["stop"].startswith("the budget of 0 s was spent")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("leaks",), "unknown task 'leaks'"),
        (("leak", "--methods", "npo,npoo"), "unknown method 'npoo'"),
        (("leak", "--methods", ","), "--methods ',': names none; name some, or leave it out for all"),
        (("leak", "--model", "./nowhere"), "nowhere: no such model folder"),
        (("leak", "--methods", "letheon+stop"), "unknown method 'letheon+stop'"),
        (("leak", "--seeds", "zero"), "--seeds 'zero'"),
        (("leak", "--seeds=-1"), "--seeds '-1': expected whole numbers from 0"),
        (("leak", "--seeds", "0,4294967296"), "--seeds '0,4294967296': expected whole numbers from 0"),
        (("leak", "--trials", "7"), "--trials 7"),
        (("leak", "--data", "nowhere"), "nowhere/tofu/full.jsonl: no such file"),
        (("harm", "--data", "nowhere"), "nowhere/beavertails/30k_test.jsonl: no such file"),
    ],
)
def test_a_mistake_is_said_in_a_line(letheon: Callable[..., Any], arguments: tuple[str, ...], said: str) -> None:
    code, _, err = letheon("bench", *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_all_mistakes_are_said_together(letheon: Callable[..., Any]) -> None:
    given = "leak --methods npoo --trials 7 --data nowhere --model ./nowhere --set stop.evry=1"
    code, _, err = letheon("bench", *given.split())
    assert code == 2
    for said in ("unknown method 'npoo'", "--trials 7", "full.jsonl: no such file", "no such model folder", "evry"):
        assert said in err


def test_a_kill_leaves_no_text_and_says_how_to_go_on(
    letheon: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = []

    def killed(plan: Any, console: Any) -> list[Path]:
        with TemporaryDirectory(dir=tmp_path) as folder:
            scratch.append(Path(folder))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)
        return []

    monkeypatch.setattr("letheon.bench.bench.bench", killed)
    before = signal.getsignal(signal.SIGTERM)
    try:
        code, _, err = letheon("bench", "leak")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert code == 130
    assert "interrupted; 'letheon run … --resume' goes on" in err
    assert "and a bench from its last row" in err
    assert not scratch[0].exists()
