"""What the demo must show, for several seeds and both kinds of tuning, as one CSV.

    python benchmarks/demo.py --runs runs/bench --seeds 0 1 2 --tuning lora full
    python benchmarks/demo.py --seeds 10 11 --set tuning.layers=top-8 --csv benchmarks/results/layers.csv

Runs `letheon demo` for each that has no results yet (it resumes where it was cut off), then writes a row a run. Some
15 minutes a run on two cores; the fine-tuned models of a seed are shared by both kinds of tuning.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from table import read_rows, write_rows

from letheon.records import Estimate, Results

SETS = ("forget", "paraphrase", "normal_trained", "normal_held_out", "general")
METRICS = ("probability", "extraction_strength", "exact_memorization", "undesired_rate", "loss", "repetition")


def row(seed: int, tuning: str, results: Results, settings: str = "") -> dict[str, object]:
    """A run's numbers, flat."""
    found: dict[str, object] = {"seed": seed, "tuning": tuning, **({"settings": settings} if settings else {})}
    if results.verdict and results.stop and results.screening:
        found |= {"forgotten": results.verdict.forgotten, "stop_step": results.stop.step}
        found |= {"precision": results.screening.precision, "recall": results.screening.recall}
    found |= {f"seconds_{stage}": seconds for stage, seconds in results.seconds.items()}
    found |= {f"peak_mb_{stage}": peak for stage, peak in results.peak_memory_mb.items()}
    for model, sets in results.metrics.items():
        for name in SETS:
            for metric in METRICS:
                value = sets.get(name, {}).get(metric)
                if isinstance(value, Estimate):
                    found[f"{model}_{name}_{metric}"] = round(value.mean, 4)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs/bench"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tuning", nargs="+", default=["lora", "full"])
    parser.add_argument("--set", nargs="*", default=[], help="as of `letheon demo`, for every run")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "demo.csv")
    given = parser.parse_args()
    settings = " ".join(given.set)
    sets = [part for one in given.set for part in ("--set", one)]
    # Other settings' rows stay.
    kept = read_rows(given.csv) if settings else []
    rows: list[Mapping[str, object]] = [row for row in kept if row["settings"] != settings]
    for seed in given.seeds:
        for tuning in given.tuning:
            folder = given.runs / "-".join([tuning, str(seed), *given.set])
            if not (folder / "report.html").is_file():
                command = [sys.executable, "-m", "letheon.cli", "demo", "--output", str(folder)]
                command += ["--seed", str(seed), "--tuning", tuning]
                # A failed gate (exit code 1) is a result as well.
                done = subprocess.run([*command, *sets], check=False)
                if done.returncode not in (0, 1):
                    sys.exit(done.returncode)
            rows.append(row(seed, tuning, Results.load(folder / "results.json"), settings))
    write_rows(given.csv, rows)
    print(f"{given.csv}: {len(rows)} rows")


if __name__ == "__main__":
    main()
