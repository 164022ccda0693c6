"""Bring `verdicts.jsonl` up to date with `decisions.jsonl`.

The decisions are what is kept safe, one by one; the verdicts follow at the end of a review and at the start of every
command that works on them. So a review that is killed loses nothing, and no key press waits for a large file.
"""

from __future__ import annotations

from collections.abc import Iterator

from letheon.console import Console
from letheon.errors import InputError
from letheon.records import PersonDecision, Results, Verdict, write_jsonl
from letheon.review.decisions import Warn, fitting, own_categories, read_decisions, with_decisions
from letheon.run import Run
from letheon.screen import score_screening


def decisions_of(run: Run, warn: Warn) -> list[PersonDecision]:
    """A person's decisions that hold for the run's log."""
    if not run.decisions_file.is_file():
        return []
    return fitting(read_decisions(run.decisions_file, warn), run.log(), warn)


def settle(run: Run, warn: Warn) -> None:
    """Let the decisions win in `verdicts.jsonl`, and in what `results.json` says of the screening.

    Not in an erasure request, which leaves nothing to decide.
    """
    if run.recipe.data.subject is not None or not run.verdicts_file.is_file():
        return
    decisions = decisions_of(run, warn)
    if not decisions:
        return
    own = own_categories(decisions, run.log())

    def settled() -> Iterator[Verdict]:
        return with_decisions(run.stream_verdicts(), decisions, own)

    if all(before == after for before, after in zip(run.stream_verdicts(), settled(), strict=True)):
        return
    write_jsonl(run.verdicts_file, settled())
    results = Results.load(run.results_file)
    if results.screening is not None:
        found = score_screening(run.stream_verdicts(), run.log())
        results.screening = found.model_copy(update={"expected": results.screening.expected})
        results.save(run.results_file)


def settle_unless_busy(run: Run, console: Console) -> bool:
    """`settle` where no stage follows; False while another process works in the folder, and then it says so."""
    try:
        run.hold()
    except InputError:
        console.say(
            f"every decision is kept; {run.verdicts_file} is not brought up to date, as another letheon is at work "
            "there: the next command on the run does it"
        )
        return False
    try:
        settle(run, console.warn)
    finally:
        run.let_go()
    return True
