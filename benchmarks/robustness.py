"""What attacks bring back, by method and seed, as one CSV; docs/robustness.md shows it.

    python benchmarks/robustness.py --methods letheon robust npo simnpo rmu --seeds 0 1 2
    python benchmarks/robustness.py --runs runs/tofu-letheon-0 runs/tofu-npo-0
    python benchmarks/robustness.py --table

The first makes a demo run of each method and seed that has no results yet (`robust` is Letheon's own with
`objective.robust`), and attacks each that has not been attacked; the control's figures stand in every row. The second
attacks run folders of any data. Rows of the same run are replaced, others stay. The last prints the CSV as the table
of the docs: mean ± sd over the seeds. On a CPU a run's attacks take longer than the run.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from table import read_rows, write_rows

from letheon.console import Console, OnProgress
from letheon.models import Model
from letheon.records import Estimate, Interval, Results
from letheon.report.figures import ratio
from letheon.run import Run
from letheon.store import key_of
from letheon.stress.attack import Attack, Found, Given
from letheon.stress.make import ATTACKS
from letheon.stress.records import Name, NotRun, Row, read_stress
from letheon.stress.stage import stress_stage

NAMES: tuple[Name, ...] = ("before", "after", "control")
SHOWN = ("rise", "beyond")
OWN = {"robust": ["objective.robust=true"], "simnpo": ["method=simnpo", "train.learning_rate=2e-3"]}
"""Settings of what is no method by itself; and of SimNPO, which at the usual rate forgets too little to have anything
brought back: that one was chosen on seed 3."""


def command(*arguments: str) -> None:
    """Run letheon; a failed gate (exit code 1) is a result as well."""
    done = subprocess.run([sys.executable, "-m", "letheon.cli", *arguments], check=False)
    if done.returncode not in (0, 1):
        sys.exit(done.returncode)


def demo(method: str, seed: int, runs: Path, sets: Sequence[str]) -> Path:
    """The run folder of a method on the demo, made where it is not there."""
    folder = runs / "-".join([method, str(seed), *sets])
    if not (folder / "report.html").is_file():
        own = OWN.get(method, [f"method={method}"])
        given = [part for one in (*own, *sets) for part in ("--set", one)]
        command("demo", "--output", str(folder), "--seed", str(seed), *given)
    return folder


def remembering(name: str, attack: Attack, known: dict[tuple[str, ...], list[Found | NotRun]]) -> Attack:
    """An attack that is made once on a model that several runs share: the one before, and the control of a seed."""

    def make(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
        items = [turn.dialogue.id for turns in (given.scored, given.relearned) for turn in turns]
        key = name, key_of(model), given.settings.model_dump_json(), str(given.seed), *items
        if key not in known:
            known[key] = list(attack(model, given, update))
        yield from known[key]

    return make


def rows(folder: Path, method: str, seed: int) -> Iterator[dict[str, Any]]:
    """A line for each row of a folder's attacks, and for the points of its curves."""
    found, results = read_stress(folder / "stress.json"), Results.load(folder / "results.json")
    if found is None:
        sys.exit(f"{folder}: no stress.json")
    kept = ratio(results, "normal_held_out", "probability")
    forgotten = results.verdict.forgotten if results.verdict else None
    run = {"run": folder.name, "method": method, "seed": seed, "forgotten": forgotten, "normal_kept": rounded(kept)}
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


def table(path: Path) -> None:
    """Print the CSV as Markdown: attacks down, methods across; the score after, mean ± sd over the seeds."""
    lines = read_rows(path)
    methods = list(dict.fromkeys(line["method"] for line in lines))
    print(f"| attack | metric | {' | '.join(methods)} |")
    print(f"|---|---|{'--:|' * len(methods)}")
    for attack, variant, metric in dict.fromkeys((li["attack"], li["variant"], li["metric"]) for li in lines):
        cells = []
        for method in methods:
            form = (method, attack, variant, metric)
            own = [li for li in lines if (li["method"], li["attack"], li["variant"], li["metric"]) == form]
            values = [float(li["after"]) for li in own]
            spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.3f}{spread}" if values else "–")
        print(f"| {attack}: {variant} | {metric} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["letheon", "robust", "npo", "simnpo", "rmu"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, nargs="*", default=[], help="run folders to attack, instead of the demo")
    parser.add_argument("--output", type=Path, default=Path("runs/robustness"), help="where demo runs are made")
    parser.add_argument("--set", nargs="*", default=[], help="as of `letheon demo`, for every run made")
    parser.add_argument("--attacks", nargs="*", default=[], help="as of `letheon stress`; all where none is named")
    parser.add_argument("--stress", nargs="*", default=[], help="as of `letheon stress --set`")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "robustness.csv")
    parser.add_argument("--table", action="store_true", help="print the CSV as a table, and stop")
    given = parser.parse_args()
    if given.table:
        table(given.csv)
        return
    jobs: list[tuple[Path, str, int]] = []
    for folder in given.runs:
        name, _, seed = folder.name.rpartition("-")
        jobs.append((folder, name, int(seed)) if seed.isdigit() else (folder, folder.name, 0))
    if not given.runs:
        pairs = [(method, seed) for seed in given.seeds for method in given.methods]
        jobs = [(demo(method, seed, given.output, given.set), method, seed) for method, seed in pairs]
    known: dict[tuple[str, ...], list[Found | NotRun]] = {}
    ATTACKS.update({name: remembering(name, attack, known) for name, attack in ATTACKS.items()})
    for folder, method, seed in jobs:
        if not (folder / "stress.json").is_file():
            stress_stage(Run.open(folder, given.stress), Console(), given.attacks)
        kept = [row for row in read_rows(given.csv) if row["run"] != folder.name]
        write_rows(given.csv, [*kept, *rows(folder, method, seed)])
    print(f"{given.csv}: {len(read_rows(given.csv))} rows")


if __name__ == "__main__":
    main()
