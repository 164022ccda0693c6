"""What a suite's models are known to have learnt: the logs of the runs that they lie in."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from letheon.evaluate.non_members import Pair, learnable, pairs_of
from letheon.run import Run
from letheon.suites.options import Options


def folders_of(model: str) -> list[Path]:
    """The folders that a model's folder lies in, by its name and behind links; none of a hub id."""
    folder = Path(model)
    if not folder.is_dir():
        return []
    # "." and ".." have no parent of their own.
    return list(dict.fromkeys((Path(os.path.abspath(folder)).parent, folder.resolve().parent)))


def logs_of(options: Options) -> dict[str, Iterator[Pair]]:
    """By file, what the runs of the measured models have learnt from, where it is still there.

    A control's counts as well: it never saw what was to be forgotten, and all the rest it did.

    Raises:
        InputError: The recipe of such a run is faulty.
    """
    models = [name for name in (options.model, options.before, options.control) if name is not None]
    found: dict[str, Iterator[Pair]] = {}
    for folder in dict.fromkeys(folder for model in models for folder in folders_of(model)):
        if (folder / "recipe.yaml").is_file():
            run = Run.open(folder)
            log, reworded = run.recipe.data.dialogues, run.recipe.data.paraphrases
            if log.is_file():
                found[str(log)] = learnable(run.log())
            if reworded is not None and reworded.is_file():
                found[str(reworded)] = pairs_of(row.dialogue.last_turn for row in run.paraphrases())
    return found
