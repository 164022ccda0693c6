"""The tasks by name. To add one: a file with `build(data, seed) -> Task`, and a line here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from letheon.bench import hallucination, harm, leak, outdated
from letheon.bench.task import Task
from letheon.errors import InputError

TASKS: dict[str, Callable[[Path, int], Task]] = {
    "leak": leak.build,
    "leak-05": partial(leak.build, split="forget05"),
    "harm": harm.build,
    "hallucination": hallucination.build,
    "outdated": outdated.build,
}


def build(name: str, data: Path, seed: int) -> Task:
    """The task of a name, for one seed.

    Raises:
        InputError: There is none, or its files are missing or faulty.
    """
    if name not in TASKS:
        raise InputError(f"unknown task {name!r}; known: {', '.join(TASKS)}")
    return TASKS[name](data, seed)
