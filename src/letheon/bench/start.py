"""What a task's runs start from: the victim and the control, and a recipe with its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from letheon.bench.task import Task
from letheon.console import Console
from letheon.demo.fine_tune import FineTuned, fine_tune
from letheon.methods import merged
from letheon.recipe import anchor_paths
from letheon.records import write_jsonl, write_text


def victim_and_control(console: Console, name: str, task: Task, base: Path, seed: int) -> tuple[FineTuned, FineTuned]:
    """Fine-tune both, or take them from the cache.

    Args:
        console: Where progress is shown.
        name: The task's.
        task: The task.
        base: Folder of the model that they are made of.
        seed: Of the order.
    """
    victim = fine_tune(console, f"bench-{name}", base, task.victim, seed, task.schooling)
    return victim, fine_tune(console, f"bench-{name}-control", base, task.control, seed, task.schooling)


def write_data(task: Task, folder: Path, model: Path, seed: int) -> dict[str, Any]:
    """Write what unlearning is given into a folder: what is to be forgotten stands there.

    Args:
        task: The task.
        folder: It is there already; the run is to be in `run` below it.
        model: Of the victim.
        seed: Of the run.

    Returns:
        The recipe that all methods start from, with the places of its files.
    """
    write_jsonl(folder / "log.jsonl", task.log)
    for name, text in task.files.items():
        write_text(folder / name, text)
    data: dict[str, Any] = {"dialogues": "log.jsonl"}
    if task.paraphrases:
        rows = [
            {**p.dialogue.model_dump(mode="json", exclude_none=True), "of": p.of, "split": p.split}
            for p in task.paraphrases
        ]
        write_text(folder / "paraphrases.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        data["paraphrases"] = "paraphrases.jsonl"
    raw = merged(dict(task.recipe), {"model": str(model), "output": "run", "seed": seed, "data": data})
    anchor_paths(raw, folder)
    return raw
