"""Requests to forget that come one after another, against the same all at once, on the demo, as one CSV.

    python benchmarks/sequential.py --seeds 0 1 2
    python benchmarks/sequential.py --table

What is to be forgotten is dealt into three requests. *alone*: each is unlearned from the model that the one before
left, merged, and its log holds that request and the normal dialogues. *together*: its log holds the earlier requests
too. *once*: all three in one run. After each run every request's old answers are measured, those not yet asked for
among them, and the normal dialogues that no run has seen. One core takes some 15 minutes a seed, beside fine-tuning.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from table import read_rows, write_rows

from letheon.bench.look import memorised
from letheon.chat import encode_turn
from letheon.console import Console
from letheon.demo.fine_tune import fine_tune
from letheon.demo.weights import demo_model
from letheon.evaluate.teacher_forced import score_sequences
from letheon.material import split_of
from letheon.models import load_model, load_tokenizer, save_model
from letheon.pipeline import prepare, screen_stage, unlearn_stage
from letheon.recipe import load_recipe
from letheon.records import Dialogue, Results, write_jsonl
from letheon.run import Run

REQUESTS = 3
METRICS = ("probability", "extraction_strength")
Sets = dict[str, Sequence[Dialogue]]


def dealt(log: Sequence[Dialogue], seed: int) -> list[list[Dialogue]]:
    """What is to be forgotten, in requests of like size."""
    undesired = [dialogue for dialogue in log if dialogue.label == "forget"]
    random.Random(f"{seed}-requests").shuffle(undesired)
    return [undesired[number::REQUESTS] for number in range(REQUESTS)]


def run_of(folder: Path, model: Path, log: Sequence[Dialogue], seed: int, sets: Sequence[str]) -> Run:
    """A run on a log of its own, which its labels screen."""
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(folder / "log.jsonl", log)
    own = {"model": model, "data.dialogues": folder / "log.jsonl", "output": folder / "run"}
    settings = [f"{name}={json.dumps(str(path))}" for name, path in own.items()]
    with as_file(files("letheon") / "recipes" / "demo.yaml") as path:
        return Run(load_recipe(path, [*settings, "screen.judges=[labels]", f"seed={seed}", *sets]))


def unlearned(run: Run, console: Console) -> tuple[Path, int]:
    """The run's model, merged, and its steps; made where it is not there yet."""
    merged = run.folder.parent / "merged"
    if not run.is_current("unlearn"):
        prepare(run)
        screen_stage(run, console)
        unlearn_stage(run, console)
    stop = Results.load(run.results_file).stop
    assert stop is not None
    # Clean already: the next one begins where this one did.
    source = run.folder / "model" if stop.step else Path(run.recipe.model)
    save_model(load_model(str(source)), load_tokenizer(str(source)), merged)
    return merged, stop.step


def measured(model: Path, sets: Sets) -> dict[str, dict[str, float]]:
    """Metrics of the answers of each set."""
    loaded, tokenizer = load_model(str(model)).eval(), load_tokenizer(str(model))
    found = {}
    for name, dialogues in sets.items():
        turns = [turn for dialogue in dialogues for turn in dialogue.turns()]
        found[name] = memorised(score_sequences(loaded, [encode_turn(tokenizer, t) for t in turns], batch_size=32))
    return found


def rows(seed: int, output: Path, sets: Sequence[str], console: Console) -> Iterator[dict[str, Any]]:
    """A line for each run, and for the model before and the control."""
    with as_file(files("letheon") / "recipes" / "demo.yaml") as path:
        log = list(Run(load_recipe(path, [f"output={json.dumps(str(output))}"])).dialogues)
    normal = [dialogue for dialogue in log if dialogue.label == "normal"]
    base, requests = demo_model(), dealt(log, seed)
    before = fine_tune(console, "before", base, log, seed)
    control = fine_tune(console, "control", base, normal, seed)
    first = run_of(output / f"alone-{seed}-1", before.folder, [*normal, *requests[0]], seed, sets)
    prepare(first)
    screen_stage(first, console)
    asked: Sets = {f"request_{n}": request for n, request in enumerate(requests, 1)}
    asked["held_out"] = split_of(first).normal_held_out

    def line(how: str, number: int, model: Path, steps: int | None = None) -> dict[str, Any]:
        found = {"seed": seed, "how": how, "after_request": number, "steps": steps}
        for name, metrics in measured(model, asked).items():
            found |= {f"{name}_{metric}": round(metrics[metric], 4) for metric in METRICS}
        return found

    yield line("before", 0, before.folder)
    yield line("control", 0, control.folder)
    for how in ("alone", "together"):
        model = before.folder
        for number, request in enumerate(requests, 1):
            earlier = [d for one in requests[: number - 1] for d in one] if how == "together" else []
            # The first request has nothing before it.
            folder = output / f"{'alone' if number == 1 else how}-{seed}-{number}"
            run = run_of(folder, model, [*normal, *earlier, *request], seed, sets)
            model, steps = unlearned(run, console)
            yield line(how, number, model, steps)
    run = run_of(output / f"once-{seed}", before.folder, log, seed, sets)
    model, steps = unlearned(run, console)
    yield line("once", REQUESTS, model, steps)


def table(path: Path) -> None:
    """Print the rows as Markdown: mean ± sd over the seeds."""
    lines = read_rows(path)
    names = [name for name in lines[0] if name.endswith(METRICS[0])]
    print(f"| | after request | steps | {' | '.join(name.removesuffix('_' + METRICS[0]) for name in names)} |")
    print(f"|---|{'---|' * (len(names) + 2)}")
    for how, number in dict.fromkeys((line["how"], line["after_request"]) for line in lines):
        own = [line for line in lines if (line["how"], line["after_request"]) == (how, number)]
        cells = [spread([float(line[name]) for line in own if line[name]]) for name in ("steps", *names)]
        print(f"| {how} | {number} | {' | '.join(cells)} |")


def spread(found: Sequence[float]) -> str:
    """Mean ± sd, or a dash."""
    if not found:
        return "–"
    digits = 0 if max(found) > 1 else 3
    deviation = f" ± {statistics.stdev(found):.{digits}f}" if len(found) > 1 else ""
    return f"{statistics.mean(found):.{digits}f}{deviation}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/sequential"), help="where runs are made")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="as of `letheon run`, for every run")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "sequential.csv")
    parser.add_argument("--table", action="store_true", help="print the rows as a table, and stop")
    given = parser.parse_args()
    if given.table:
        table(given.csv)
        return
    console = Console()
    for seed in given.seeds:
        others = [line for line in read_rows(given.csv) if line["seed"] != str(seed)]
        own = rows(seed, given.output.resolve(), given.set, console)
        write_rows(given.csv, sorted([*others, *own], key=lambda line: int(line["seed"])))


if __name__ == "__main__":
    main()
