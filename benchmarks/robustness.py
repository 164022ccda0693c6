"""What attacks bring back, by task, method and seed, as one CSV; docs/robustness.md shows it.

    python benchmarks/robustness.py --methods letheon robust npo simnpo rmu --seeds 0 1 2
    python benchmarks/robustness.py --task tofu --data data
    python benchmarks/robustness.py --task tofu --data data --methods npo --seeds 1 --csv npo-1.csv
    python benchmarks/robustness.py --merge npo-*.csv
    python benchmarks/robustness.py --table --task tofu
    python benchmarks/robustness.py --runs runs/npo-0 runs/npo-1

The first makes a run on the demo of each method and seed that has none yet (`robust` is Letheon's own with
`objective.robust`; a baseline has the settings of its first trial in `letheon bench`, and `npo+stop` is one under our
stop rule), and makes the attacks on each that have not been made; the second does so on TOFU's forget01, with the
victims and controls of `letheon bench leak`. What attacks find of the model before and of the control is kept for the
other methods of the seed; `--methods` without a name makes that alone. So processes may share cache and output
folder, if each has a CSV of its own. `--merge` puts those together: rows of a run that is there are replaced, others
stay. `--table` prints a task's rows as the table of the docs: mean ± sd over the seeds. `--runs` attacks run folders
of any data. On a CPU a run's attacks take longer than the run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from filelock import FileLock
from table import read_rows, write_rows

from letheon.bench import grid, leak
from letheon.bench.start import victim_and_control, write_data
from letheon.bench.task import general_texts
from letheon.console import Console, OnProgress
from letheon.demo.fine_tune import fine_tune
from letheon.demo.weights import demo_model
from letheon.material import split_of
from letheon.methods import merged
from letheon.models import Model, load_model
from letheon.pipeline import prepare, run_all, screen_stage
from letheon.recipe import Recipe, check_recipe, load_recipe
from letheon.records import Estimate, Interval, Results, write_text
from letheon.run import Run, read_manifest
from letheon.store import key_of
from letheon.stress.attack import EXTRACTION, Attack, Found, Given
from letheon.stress.make import ATTACKS, chosen_attacks
from letheon.stress.records import Name, NotRun, Row, read_stress
from letheon.stress.stage import given_of, stress_stage

TASKS = ("demo", "tofu", "other")
NAMES: tuple[Name, ...] = ("before", "after", "control")
SHOWN = ("rise", "beyond")
METHODS = ("letheon", "robust", "npo", "simnpo", "rmu")
TITLES = dict(zip(METHODS, ("default", "robust mode", "NPO", "SimNPO", "RMU"), strict=True))
TITLES["npo+stop"] = "NPO, our stop rule"
DEMO = {"simnpo": ["train.learning_rate=2e-3"]}
"""On the demo SimNPO forgets too little at the usual rate to have anything brought back: chosen on seed 3."""
WEIGHTS: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""A hash of each model's weights, which every attack leaves as they were."""
SCREENED = ("verdicts.jsonl", "results.json", "manifest.json")


@dataclass(frozen=True)
class Place:
    """Where the runs of a task and seed lie, and the data."""

    task: str
    seed: int
    output: Path
    data: Path

    @property
    def shared(self) -> Path:
        """The run folder that was screened for all methods."""
        return self.output / self.task / f"screened-{self.seed}"


def settings_of(task: str, method: str) -> list[str]:
    """What a method changes in the recipe of a task."""
    if method == "robust":
        return ["objective.robust=true"]
    name = method.removesuffix(grid.WITH_STOP)
    (trial,) = grid.trials(method, "lora", 1)
    own = [f"method={name}", *grid.flat(trial).split(), *(DEMO.get(method, ()) if task == "demo" else ())]
    return own if name == method else [*own, "train.stop_rule=true"]


def demo_recipe(seed: int, folder: Path, console: Console) -> Recipe:
    """As `letheon demo` has it."""
    with as_file(files("letheon") / "recipes" / "demo.yaml") as path:
        recipe = load_recipe(path, [f"output={json.dumps(str(folder))}", f"seed={seed}"])
    base, log = demo_model(), Run(recipe).dialogues
    before = fine_tune(console, "before", base, log, seed)
    control = fine_tune(console, "control", base, [one for one in log if one.label == "normal"], seed)
    evaluate = recipe.evaluate.model_copy(update={"control": str(control.folder)})
    return recipe.model_copy(update={"model": str(before.folder), "evaluate": evaluate})


def tofu_recipe(seed: int, folder: Path, data: Path, console: Console) -> Recipe:
    """Of `letheon bench leak`, but that the neighbours stand in the log, and are held out there."""
    task = leak.build(data, seed)
    own = {"data": {"held_out": 1 - leak.LOGGED, "general": "general.txt"}, "evaluate": {"batch_size": 32}}
    task = replace(
        task,
        log=task.victim,
        recipe=merged(dict(task.recipe), own),
        files={**task.files, "general.txt": "\n\n".join(general_texts())},
    )
    victim, control = victim_and_control(console, "leak", task, demo_model(), seed)
    folder.mkdir(parents=True, exist_ok=True)
    raw = write_data(task, folder, victim.folder, seed)
    return check_recipe(merged(raw, {"output": str(folder), "evaluate": {"control": str(control.folder)}}))


def screened(place: Place, console: Console) -> Run:
    """The run that the methods of a seed begin with; of several processes one makes it, and the others wait."""
    place.shared.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{place.shared}.lock"):
        if place.task == "demo":
            recipe = demo_recipe(place.seed, place.shared, console)
        else:
            recipe = tofu_recipe(place.seed, place.shared, place.data, console)
        run = Run(recipe)
        if not run.is_current("screen"):
            prepare(run)
            screen_stage(run, console)
    return run


def made(shared: Run, place: Place, method: str, sets: Sequence[str], console: Console) -> Path:
    """The run folder of a method, run where it has not been."""
    folder = place.output / place.task / "-".join([method, str(place.seed), *sets])
    own = [f"output={json.dumps(str(folder))}", *settings_of(place.task, method), *sets]
    run = Run.open(shared.folder, own)
    if not run.is_current("screen"):
        folder.mkdir(parents=True, exist_ok=True)
        for name in SCREENED:
            shutil.copyfile(shared.folder / name, folder / name)
    run_all(run, console)
    return folder


def remembering(name: str, attack: Attack, folder: Path) -> Attack:
    """An attack that is made once on a model that several runs share: the one before, and the control of a seed."""

    def make(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
        if model not in WEIGHTS:
            WEIGHTS[model] = key_of(model)
        items = [turn.dialogue.id for turns in (given.scored, given.relearned) for turn in turns]
        what = repr((WEIGHTS[model], given.settings, given.seed, given.max_new_tokens, items))
        file = folder / f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:16]}.json"
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            if not file.is_file():
                found = [asdict(o) if isinstance(o, Found) else o.model_dump() for o in attack(model, given, update)]
                write_text(file, json.dumps([{**one, "answers": []} if "how" in one else one for one in found]))
        for one in json.loads(file.read_text(encoding="utf-8")):
            yield Found(**one) if "how" in one else NotRun(**one)

    return make


def attack_shared(shared: Run, stress: Sequence[str], attacks: Sequence[str], console: Console) -> None:
    """Attack the model before and the control, whose scores are then remembered."""
    run = Run.open(shared.folder, stress)
    given = given_of(run, split_of(run))
    for source in (run.recipe.model, run.recipe.evaluate.control):
        model = load_model(str(source)).eval()
        for name in chosen_attacks(attacks):
            with console.progress(f"{name}: {Path(str(source)).name}") as update:
                list(ATTACKS[name](model, given, update))


def attack_run(folder: Path, stress: Sequence[str], attacks: Sequence[str], console: Console) -> None:
    """Make those of the attacks that have not been made on a run."""
    known = read_stress(folder / "stress.json")
    made = {row.attack for row in known.rows} | {one.attack for one in known.not_run} if known else set()
    if lacking := [name for name in chosen_attacks(attacks) if name not in made]:
        stress_stage(Run.open(folder, stress), console, lacking)


def rows(folder: Path, task: str, method: str, seed: int) -> Iterator[dict[str, Any]]:
    """A line for each row of a folder's attacks, and for the points of its curves."""
    found, results = read_stress(folder / "stress.json"), Results.load(folder / "results.json")
    if found is None:
        sys.exit(f"{folder}: no stress.json")
    kept = results.metrics["after"]["normal_held_out"]["probability_ratio"]
    forgotten = results.verdict.forgotten if results.verdict else None
    run = {"task": task, "run": folder.name, "method": method, "seed": seed}
    run |= {"device": read_manifest(folder / "manifest.json")["hardware"]["gpu"] or "cpu"}
    run |= {"forgotten": forgotten, "normal_kept": rounded(kept.mean) if isinstance(kept, Estimate) else None}
    areas = {(curve.attack, curve.variant, curve.metric): curve for curve in found.curves}
    for row in found.rows:
        line = {**run, "attack": row.attack, "variant": row.variant, "metric": row.metric, "at": row.at}
        for name in NAMES:
            metric = row.models.get(name)
            line[name] = rounded(metric.mean) if isinstance(metric, Estimate) else None
        line |= numbers(row)
        curve = areas.get((row.attack, row.variant, row.metric))
        if curve is not None:
            line |= {f"area_{name}": rounded(area) for name, area in curve.area.items()}
            line |= {f"half_{name}": rounded(step) for name, step in curve.half.items()}
        yield line


def numbers(row: Row) -> dict[str, float | None]:
    """Rise and share with their intervals."""
    found: dict[str, float | None] = {}
    for field in SHOWN:
        value = getattr(row, field)
        for part in ("estimate", "low", "high"):
            name = field if part == "estimate" else f"{field}_{part}"
            found[name] = rounded(getattr(value, part)) if isinstance(value, Interval) else None
    return found


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def put(path: Path, new: Sequence[dict[str, Any]]) -> None:
    """Write rows into a CSV, in the place of those of the same runs."""
    runs = {(row["task"], row["run"]) for row in new}
    kept = [row for row in read_rows(path) if (row["task"], row["run"]) not in runs]
    methods = [*TITLES]

    def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
        method = row["method"]
        order = methods.index(method) if method in methods else len(methods)
        return TASKS.index(row["task"]), int(row["seed"]), order, method, row["run"]

    write_rows(path, sorted([*kept, *new], key=place))


def table(path: Path, task: str) -> None:
    """Print a task's rows as Markdown: attacks down, methods across; the score after, mean ± sd over the seeds."""
    lines = [line for line in read_rows(path) if line["task"] == task]
    methods = list(dict.fromkeys(line["method"] for line in lines))

    def line(title: str, cells: Iterable[str]) -> None:
        print(f"| {' | '.join([title, *cells])} |")

    def values(field: str, method: str, *form: str) -> list[float]:
        """Of each seed."""
        own = [li for li in lines if li["method"] == method]
        own = [li for li in own if (li["attack"], li["variant"], li["metric"])[: len(form)] == form]
        # A run says in each of its rows what it has kept.
        return list({li["seed"]: float(li[field]) for li in own if li[field]}.values())

    line("", ["before", *(TITLES.get(method, method) for method in methods), "control"])
    print(f"|---|{'---|' * (len(methods) + 2)}")
    kept = ["", *(percent(values("normal_kept", method)) for method in methods), ""]
    line("held-out normal answers kept", kept)
    forms = list(dict.fromkeys((li["attack"], li["variant"], li["metric"]) for li in lines))
    for form in forms:
        title = "no attack" if form[0] == "none" else f"{form[0]}: {form[1]}"
        title += "" if form[2] == EXTRACTION else f", {form[2].replace('_', ' ')}"
        after = [number(values("after", method, *form)) for method in methods]
        # A row is of the step at which most came back, the other models' scores too: those beside the first method's.
        before, control = (number(values(name, methods[0], *form)) for name in ("before", "control"))
        line(title, [before, *after, control])
    for form in [form for form in forms if form[0] == "relearn"]:
        shares = [percent(values("beyond", method, *form)) for method in methods]
        line(f"share back, {form[0]}: {form[1]}", ["", *shares, ""])
    coarse = [form for form in forms if form[0] == "quantise" and form[1] not in ("bf16", "int8")]
    rises = [[v for form in coarse for v in values("rise", method, *form)] for method in methods]
    line("largest rise by 4 bits", ["", *(short(max(own)) if own else "–" for own in rises), ""])


def number(found: Sequence[float]) -> str:
    """Mean ± sd, or a dash."""
    if not found:
        return "–"
    spread = f" ± {short(statistics.stdev(found))}" if len(found) > 1 else ""
    return f"{short(statistics.mean(found))}{spread}"


def percent(found: Sequence[float]) -> str:
    """The same, of shares."""
    if not found:
        return "–"
    spread = f" ± {statistics.stdev(found):.1%}" if len(found) > 1 else "%"
    return f"{statistics.mean(found):.1%}"[:-1].replace("-", "−") + spread


def short(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1).replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, default="demo")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with TOFU's files in tofu/")
    parser.add_argument("--methods", nargs="*", default=METHODS, help="none: what a seed's methods share")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="run folders to attack, instead of a task's")
    parser.add_argument("--output", type=Path, default=Path("runs/robustness"), help="where runs are made")
    parser.add_argument("--set", nargs="*", default=[], help="as of `letheon run`, for every run made")
    parser.add_argument("--attacks", nargs="*", default=[], help="as of `letheon stress`; all where none is named")
    parser.add_argument("--stress", nargs="*", default=[], help="as of `letheon stress --set`")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "robustness.csv")
    parser.add_argument("--merge", type=Path, nargs="*", default=[], help="put the rows of these into the CSV")
    parser.add_argument("--table", action="store_true", help="print the task's rows as a table, and stop")
    given = parser.parse_args()
    if given.table:
        table(given.csv, given.task)
        return
    if given.merge:
        for path in given.merge:
            put(given.csv, read_rows(path))
        print(f"{given.csv}: {len(read_rows(given.csv))} rows")
        return
    console = Console()
    ATTACKS.update({name: remembering(name, attack, given.output / "attacks") for name, attack in ATTACKS.items()})
    for folder in given.runs:
        name, _, last = folder.name.rpartition("-")
        method, seed = (name, int(last)) if last.isdigit() else (folder.name, 0)
        attack_run(folder, given.stress, given.attacks, console)
        put(given.csv, list(rows(folder, "other", method, seed)))
    for seed in [] if given.runs else given.seeds:
        place = Place(given.task, seed, given.output, given.data)
        shared = screened(place, console)
        if not given.methods:
            attack_shared(shared, given.stress, given.attacks, console)
        for method in given.methods:
            folder = made(shared, place, method, given.set, console)
            attack_run(folder, given.stress, given.attacks, console)
            put(given.csv, list(rows(folder, given.task, " ".join([method, *given.set]), seed)))


if __name__ == "__main__":
    main()
