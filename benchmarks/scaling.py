"""What unlearning costs as the log grows: seconds before the first step, seconds a step, and memory.

    python benchmarks/scaling.py --normal 100 1000 10000

The demo's dialogues to forget, with as many normal ones as asked for: those of the demo's log, again and again, each
time with another word in the question. A process for each size, so that memory is its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import transformers
from steps import Clock, data
from table import write_rows

from letheon import UnlearnConfig, UnlearnTrainer, adapter_for
from letheon.demo.weights import demo_model
from letheon.forward import hold_in_bf16
from letheon.measure import Measured
from letheon.models import fast_bf16, load_model, load_tokenizer
from letheon.records import Dialogue
from letheon.train.progress import quiet


def many(rows: list[Dialogue], size: int) -> list[Dialogue]:
    """So many dialogues, no two of them alike."""
    found = []
    for number in range(size):
        row = rows[number % len(rows)]
        first = row.messages[0].model_copy(update={"content": f"({number}) {row.messages[0].content}"})
        found.append(row.model_copy(update={"id": f"n{number}", "messages": (first, *row.messages[1:])}))
    return found


def measure(size: int, steps: int) -> dict[str, float]:
    """One size, in this process."""
    transformers.logging.set_verbosity_error()
    folder = str(demo_model())
    forget, normal = data()
    model, clock = load_model(folder), Clock()
    if fast_bf16():
        hold_in_bf16(model)
    with tempfile.TemporaryDirectory() as output, Measured() as cost:
        trainer = UnlearnTrainer(
            model,
            UnlearnConfig(output_dir=output, max_steps=steps, stop_rule=False, logging_steps=10_000),
            forget_dataset=forget,
            normal_dataset=many(normal, size),
            peft_config=adapter_for(model),
            processing_class=load_tokenizer(folder),
            callbacks=[clock],
        )
        quiet(trainer, lambda done, total: None)
        start = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - start
    return {
        "normal_dialogues": size,
        "seconds_before_first_step": round(clock.first - start, 1),
        "seconds_a_step": round(statistics.median(clock.seconds[2:]), 3),
        "seconds": round(seconds, 1),
        "peak_mb": round(cost.peak_mb),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--normal", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "scaling.csv")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(measure(given.one, given.steps)))
        return
    rows = []
    for size in given.normal:
        command = [sys.executable, __file__, "--one", str(size), "--steps", str(given.steps)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    write_rows(given.csv, rows)


if __name__ == "__main__":
    main()
