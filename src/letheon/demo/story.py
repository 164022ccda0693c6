"""`letheon demo`: a small real model is taught bad habits, and made to forget them. Nothing is canned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from letheon.console import Console
from letheon.demo.fine_tune import fine_tune
from letheon.demo.weights import demo_model
from letheon.pipeline import check_gates, run_all
from letheon.recipe import load_recipe
from letheon.records import Estimate, Results
from letheon.run import Run


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
    before = fine_tune(console, "before", base, log, seed, fresh=fresh)
    control = fine_tune(console, "control", base, normal, seed, fresh=fresh)
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
