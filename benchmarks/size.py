"""A long log through the screening: seconds, memory, and whether one that is killed twice ends like an unbroken one.

    python benchmarks/size.py --dialogues 100000

The log is the demo's, again and again, each time with noise: of ten repetitions four differ in case and punctuation,
three are exact, and three have a number more in question and answer, so that they are judged anew. Written as
Parquet, and screened by `letheon screen` with the embedding judge, in processes of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from table import write_rows

from letheon.demo.weights import demo_model
from letheon.dialogues import read_dialogues

DEMO = Path(__file__).parents[1] / "src" / "letheon" / "demo" / "data"


def noisy(text: str, draw: random.Random, number: int) -> str:
    """A text with noise of the kind that a number says."""
    kind = number % 10
    if kind < 4:
        return (text.upper() if kind % 2 else text.lower()) + draw.choice([" ", "!", " ...", "\n"])
    return text if kind < 7 else f"{text} ({number})"


def write_log(path: Path, size: int) -> None:
    """So many dialogues."""
    draw, log, rows = random.Random(0), read_dialogues(DEMO / "log.jsonl"), []
    for number in range(size):
        # Repetitions of one dialogue lie apart, with every kind of noise.
        dialogue = log[number % len(log)]
        kind = number // len(log) + number
        messages = [
            {"role": m.role, "content": m.content if m.role == "system" else noisy(m.content, draw, kind)}
            for m in dialogue.messages
        ]
        rows.append({"id": f"d{number}", "messages": messages})
    path.parent.mkdir(parents=True, exist_ok=True)
    arrow, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
    parquet.write_table(arrow.Table.from_pylist(rows), path)


def screen(log: Path, output: Path, kill_after: float | None = None) -> dict[str, Any]:
    """Screen in a process that may be killed; seconds, peak memory and how it ended."""
    recipe = output.with_suffix(".yaml")
    recipe.write_text(
        f"model: {demo_model()}\noutput: {output}\ndata: {{dialogues: {log}}}\n"
        f"screen: {{judges: [embedding], examples: {DEMO / 'screen_examples.jsonl'}}}\n"
    )
    start, peak = time.perf_counter(), 0
    process = psutil.Popen([sys.executable, "-m", "letheon.cli", "screen", str(recipe)], stderr=subprocess.PIPE)
    partial = output / "verdicts.jsonl.partial"
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        if kill_after is not None and partial.is_file() and partial.stat().st_size > kill_after:
            process.kill()
        time.sleep(0.2)
    print(process.stderr.read().decode(), flush=True)
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak / 1e6), "rc": process.wait()}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "verdicts.jsonl").read_bytes()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--folder", type=Path, default=Path("runs/size"))
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "size.csv")
    given = parser.parse_args()
    rows = []
    for size in given.dialogues:
        folder = (given.folder / str(size)).resolve()
        log = folder / "log.parquet"
        write_log(log, size)
        unbroken = screen(log, folder / "unbroken")
        whole = (folder / "unbroken" / "verdicts.jsonl").stat().st_size
        broken = [screen(log, folder / "broken", share * whole) for share in (0.3, 0.7)]
        broken.append(screen(log, folder / "broken"))
        rows.append(
            {
                "dialogues": size,
                "seconds": unbroken["seconds"],
                "peak_mb": unbroken["peak_mb"],
                "killed_by_signal": [run["rc"] for run in broken[:2]],
                "seconds_in_pieces": round(sum(run["seconds"] for run in broken), 1),
                "same_verdicts": digest(folder / "unbroken") == digest(folder / "broken"),
            }
        )
        print(rows[-1], flush=True)
    write_rows(given.csv, rows)


if __name__ == "__main__":
    main()
