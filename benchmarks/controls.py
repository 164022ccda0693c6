"""How near a model that was retrained comes to the goals of forgetting: one control held against another, as one CSV.

    python benchmarks/controls.py --data data --seeds 0 1 2 --others 2
    python benchmarks/controls.py --table

`letheon bench leak` asks an unlearned model to be as near to the control as its goals say. Other controls are
fine-tuned here on the same dialogues in another order: none of them has seen what is to be forgotten, and what keeps
them from a goal is chance. A goal that they miss is finer than the measuring is.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from table import read_rows, write_rows

from letheon.bench import leak
from letheon.bench.compare import compared
from letheon.bench.look import look
from letheon.bench.rows import numbers
from letheon.bench.start import victim_and_control
from letheon.bench.task import REPORT, VALIDATION, Metrics, Task
from letheon.console import Console
from letheon.demo.fine_tune import FineTuned, fine_tune
from letheon.demo.weights import demo_model
from letheon.models import load_model, load_tokenizer

PARTS = (VALIDATION, REPORT)
ORDER = 1000
"""What is added to a control's seed to have another order."""


def metrics(task: Task, made: FineTuned) -> dict[str, Metrics]:
    """A model's, by part."""
    folder = str(made.folder)
    seen = look(load_model(folder).eval(), load_tokenizer(folder), task.parts, answer_tokens=task.answer_tokens)
    return {part: task.metrics(task.parts[part], seen[part]) for part in PARTS}


def rows(data: Path, seed: int, others: int, console: Console) -> list[dict[str, Any]]:
    """A line for each half and each other control of a seed."""
    task, base = leak.build(data, seed), demo_model()
    before, control = (metrics(task, one) for one in victim_and_control(console, "leak", task, base, seed))
    found = []
    for other in range(1, others + 1):
        again = fine_tune(console, "bench-leak-control", base, task.control, seed + ORDER * other, task.schooling)
        own = metrics(task, again)
        for part in PARTS:
            worth = compared(task, own[part], before[part], control[part])
            # By itself the control's PrivLeak is 0.
            level = {f"control_{goal.metric}": control[part].get(goal.metric, 0.0) for goal in leak.GOALS}
            where = {"seed": seed, "other": other, "part": part}
            where |= {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"}
            found.append(where | numbers(worth | level))
    return found


def table(path: Path) -> None:
    """Print how far the others are from the control, over seeds and halves: what a goal asks, mean, largest, met."""
    lines = read_rows(path)
    print("| goal | asked | mean | largest | met |\n|---|---|---|---|---|")
    for goal in leak.GOALS:
        apart = [abs(float(line[goal.metric]) - float(line[f"control_{goal.metric}"])) for line in lines]
        met = sum(one <= goal.within for one in apart)
        cells = [goal.within, statistics.mean(apart), max(apart)]
        print(f"| {goal.metric} | {' | '.join(f'{cell:.3g}' for cell in cells)} | {met} of {len(lines)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with TOFU's files in tofu/")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--others", type=int, default=2, help="other controls of each seed")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "controls.csv")
    parser.add_argument("--table", action="store_true", help="print the rows as a table, and stop")
    given = parser.parse_args()
    if given.table:
        table(given.csv)
        return
    kept = [row for row in read_rows(given.csv) if int(row["seed"]) not in given.seeds]
    found = [row for seed in given.seeds for row in rows(given.data, seed, given.others, Console())]
    write_rows(given.csv, [*kept, *found])


if __name__ == "__main__":
    main()
