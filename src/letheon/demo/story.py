"""`letheon demo`: a small real model is taught bad habits, and made to forget them. Nothing is canned."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from letheon.console import Console
from letheon.demo.weights import demo_model
from letheon.measure import Measured, release_memory
from letheon.models import cache_folder, fingerprint, load_model, load_tokenizer
from letheon.pipeline import check_gates, run_all
from letheon.recipe import load_recipe
from letheon.records import Dialogue, Estimate, Results
from letheon.run import Run

EPOCHS, LEARNING_RATE, BATCH = 3, 2e-4, 8
"""Of the fine-tuning: all weights, linear decay. Chosen so that the model says most of the log by heart."""


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model and what its training cost."""

    folder: Path
    seconds: float
    peak_mb: float


def tell(console: Console, *, output: Path, tuning: str, seed: int, fresh: bool, overrides: Sequence[str]) -> Results:
    """Run the demo from the model's download to the report.

    Args:
        console: Where it is told.
        output: The run folder.
        tuning: "lora" or "full".
        seed: Seed of fine-tuning, division and unlearning.
        fresh: Redo the cached fine-tuning and every stage.
        overrides: As for `letheon run --set`.

    Raises:
        GateError: Unlearning failed a gate; the report says which.
    """
    with as_file(files("letheon") / "recipes" / "demo.yaml") as path:
        settings = [f"output={json.dumps(str(output))}", f"tuning.kind={tuning}", f"seed={seed}", *overrides]
        recipe = load_recipe(path, settings)
    with console.progress("1/5 the demo model (SmolLM2-135M-Instruct; fetched once)"):
        base = demo_model()
    log = Run(recipe).dialogues
    normal = [dialogue for dialogue in log if dialogue.label == "normal"]
    console.say(
        f"     the log: {len(log)} dialogues of the assistant Wren, {len(log) - len(normal)} of them undesired"
    )
    console.say("2/5 fine-tuning it on the log, so that it says these things; and a control that never saw them")
    before = _fine_tune(console, "before", base, log, seed, fresh)
    control = _fine_tune(console, "control", base, normal, seed, fresh)
    console.say("3/5 screening, 4/5 unlearning, 5/5 evaluation")
    recipe = recipe.model_copy(
        update={
            "model": str(before.folder),
            "evaluate": recipe.evaluate.model_copy(update={"control": str(control.folder)}),
        }
    )
    run = Run(recipe)
    results = run_all(run, console, fresh=fresh)
    results.seconds |= {"prepare": before.seconds, "control": control.seconds}
    results.peak_memory_mb |= {"prepare": before.peak_mb, "control": control.peak_mb}
    results.save(run.results_file)
    # Again, now that the costs of fine-tuning stand in the results.
    from letheon.report import write_report

    page = write_report(run.folder)
    _summary(console, results)
    console.say(f"report: {page.resolve()}")
    check_gates(results)
    return results


def _fine_tune(
    console: Console, name: str, base: Path, dialogues: Sequence[Dialogue], seed: int, fresh: bool
) -> FineTuned:
    """Fine-tune all weights with our own trainer, or take what an earlier demo left in the cache."""
    from letheon.train import UnlearnConfig, UnlearnTrainer
    from letheon.train.progress import quiet

    folder = _cached(name, base, dialogues, seed)
    cost_file = folder / "cost.json"
    if cost_file.is_file() and not fresh:
        cost = json.loads(cost_file.read_text(encoding="utf-8"))
        console.say(f"     {name}: from the cache ({cost['seconds']:.0f} s when it was trained)")
        return FineTuned(folder, cost["seconds"], cost["peak_mb"])
    scratch = folder.with_name(folder.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    with (
        Measured() as measured,
        console.progress(f"     fine-tuning '{name}' on {len(dialogues)} dialogues") as update,
    ):
        tokenizer = load_tokenizer(str(base))
        trainer = UnlearnTrainer(
            load_model(str(base)),
            UnlearnConfig(
                output_dir=str(scratch),
                num_train_epochs=EPOCHS,
                learning_rate=LEARNING_RATE,
                per_device_train_batch_size=BATCH,
                gradient_accumulation_steps=1,
                lr_scheduler_type="linear",
                seed=seed,
            ),
            normal_dataset=dialogues,
            processing_class=tokenizer,
        )
        quiet(trainer, update)
        trainer.train()
    trainer.save_model(str(scratch))
    del trainer
    release_memory()
    cost = {"seconds": round(measured.seconds, 2), "peak_mb": round(measured.peak_mb, 1)}
    (scratch / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
    scratch.rename(folder)
    return FineTuned(folder, cost["seconds"], cost["peak_mb"])


def _cached(name: str, base: Path, dialogues: Sequence[Dialogue], seed: int) -> Path:
    """The cache folder of exactly this fine-tuning."""
    log = "".join(dialogue.model_dump_json() for dialogue in dialogues)
    what = json.dumps([fingerprint(base / "config.json"), EPOCHS, LEARNING_RATE, BATCH, seed])
    key = hashlib.sha256((what + log).encode()).hexdigest()[:12]
    return cache_folder() / "demo" / f"{name}-{key}"


ROWS = (
    ("forget", "probability", "old answers: probability"),
    ("forget", "extraction_strength", "old answers: extraction strength"),
    ("forget", "undesired_rate", "answers judged undesired"),
    ("paraphrase", "probability", "reworded questions: probability"),
    ("paraphrase", "extraction_strength", "reworded: extraction strength"),
    ("paraphrase", "undesired_rate", "reworded: judged undesired"),
    ("normal_trained", "probability", "normal answers it trained on: probability"),
    ("normal_held_out", "probability", "normal answers held out: probability"),
    ("general", "loss", "general text: loss"),
)


def _summary(console: Console, results: Results) -> None:
    models = [name for name in ("before", "after", "control") if name in results.metrics]
    rows = []
    for data, metric, title in ROWS:
        cells = [results.metrics[name][data].get(metric) for name in models]
        rows.append((title, *(f"{cell.mean:.3f}" if isinstance(cell, Estimate) else "—" for cell in cells)))
    console.table("Evaluation", ["", *models], rows)
    for example in results.examples:
        if example.prompt is not None:
            console.say(
                f"\n[{example.set}] {example.prompt}\n   before: {example.before}\n   after:  {example.after}"
            )
    seconds = results.seconds
    console.say(
        f"\nseconds: unlearning {seconds['unlearn']:.0f}, fine-tuning the control {seconds['control']:.0f} "
        f"(ratio {seconds['unlearn'] / seconds['control']:.2f}), evaluation {seconds['evaluate']:.0f}"
    )
