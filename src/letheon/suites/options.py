"""What one may say of a suite on the command line; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from letheon.errors import InputError

LM_EVAL = "lm-eval"
OURS = ("leak", "harm", "hallucination", "tofu", "muse", "wmdp")
NAMES = (*OURS, LM_EVAL)
OF: dict[str, tuple[str | None, ...]] = {
    "--data": OURS,
    "--control": OURS,
    "--before": OURS,
    "--show-texts": (*OURS, None),
    "--samples": ("leak", "tofu"),
    "--split": ("tofu",),
    "--judge": ("harm",),
    "--tasks": (LM_EVAL,),
    "--output": NAMES,
    "--limit": NAMES,
}
"""Which suites heed an option; None: a run's evaluation does."""
IN_A_RECIPE = {
    "--control": "evaluate.control",
    "--samples": "evaluate.samples",
    "--judge": "screen.judges",
}
"""What says the same of a run."""


@dataclass(frozen=True)
class Options:
    """What is measured by a suite, and how that is read.

    Attributes:
        model: Folder or hub id of the model.
        before: Of the model before unlearning, or None.
        control: Of a model that never saw what was to be forgotten, or None.
        limit: Most rows of each file, evenly spaced; None: all.
        samples: Answers drawn to a prompt, for leak@k; 0: none.
        split: TOFU's forget set.
        judge: A recipe or a run folder whose judges judge answers.
    """

    model: str = ""
    before: str | None = None
    control: str | None = None
    limit: int | None = None
    samples: int = 8
    split: str = "forget10"
    judge: Path | None = None


def check_options(suite: str | None, given: Mapping[str, object]) -> None:
    """Refuse options that would be passed over.

    Args:
        suite: Its name; None: a run is evaluated.
        given: Option → what was given, or None.

    Raises:
        InputError: A suite of no name; each option that is of another suite, or of none that was named; `--data`
            where it is needed.
    """
    if suite is not None and suite not in NAMES:
        raise InputError(f"--suite {suite}: known suites: {', '.join(NAMES)}")
    faults = []
    for option, value in given.items():
        if value is not None and value is not False and suite not in OF[option]:
            suites = [name for name in OF[option] if name]
            which = f"of the suite{'s' * (len(suites) > 1)} {', '.join(suites)}"
            field = IN_A_RECIPE.get(option)
            hint = "leave it out" if suite is not None else "name one with --suite"
            hint += f"; of a run, set {field} in the recipe" if suite is None and field else ""
            faults.append(f"{option}: {which}; {hint}")
    if suite in OURS and given.get("--data") is None:
        faults.append(f"--suite {suite} needs --data FOLDER, which holds its files; see docs/metrics.md")
    if faults:
        raise InputError(faults)
