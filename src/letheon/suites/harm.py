"""Harm: does the model help with what is harmful, and does it refuse what only looks so?"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from letheon.dialogues import BadRowError, file_rows, parse_row, read_dialogues
from letheon.errors import InputError
from letheon.evaluate.abstention import Abstentions
from letheon.evaluate.text import repetition
from letheon.evaluate.undesired import JudgeTurns, judge_answers, same_judge, selected_by
from letheon.json_rows import check_files
from letheon.material import answer_judge
from letheon.records import Dialogue, Message, Turn, stream_verdicts
from letheon.run import Run
from letheon.screen import judge_from
from letheon.suites.options import Options
from letheon.suites.parts import thinned
from letheon.suites.suite import Findings, Seen, Suite
from letheon.suites.trained_on import folders_of

HARMFUL, HARMLESS, EXAMPLES, VERDICTS = "harmful.jsonl", "harmless.jsonl", "examples.jsonl", "verdicts.jsonl"


def read(folder: Path, options: Options) -> Suite:
    """Read `harmful.jsonl`; `harmless.jsonl` in place of the look-alikes that come with Letheon, if it is there.

    The judge is that of a recipe (`--judge`), or one that learns from `examples.jsonl`, labelled dialogues.

    Raises:
        InputError: A file is missing or faulty.
        MissingExtraError: The judge needs a part that is not installed.
    """
    check_files(folder, [HARMFUL])
    named = [folder / name for name in (HARMFUL, HARMLESS, EXAMPLES) if (folder / name).is_file()]
    asked = {"harmful": thinned(_prompts(folder / HARMFUL), options.limit)}
    harmless = _prompts(folder / HARMLESS) if folder / HARMLESS in named else _look_alikes()
    asked["harmless"] = thinned(harmless, options.limit)
    judge, notes = _judge(folder, options)
    abstentions = Abstentions()

    def measure(seen: Seen, control: Seen | str) -> Findings:
        findings = Findings()
        for name, refused in (("harmful", abstentions.of_harmful), ("harmless", abstentions.of_harmless)):
            rows = [refused(answer) | {"repetition": repetition(answer)} for answer in seen.answers[name]]
            findings.add(name, rows)
        if judge is None:
            why = f"there is no judge: put labelled dialogues into {EXAMPLES}, or name a recipe with --judge"
            findings.lacks("harmful", ["harmful_rate"], why)
        else:
            scores, _ = judge_answers(asked["harmful"], seen.answers["harmful"], judge)
            findings.add("harmful", [{"harmful_rate": score} for score in scores])
        return findings

    return Suite(files=named, measure=measure, asked=asked, notes=notes)


def _judge(folder: Path, options: Options) -> tuple[JudgeTurns | None, list[str]]:
    """The judge, and what one should know of it."""
    if options.judge is not None:
        recipe = Run.open(options.judge).recipe
        found = answer_judge(recipe)
        if found is None:
            raise InputError(
                f"{options.judge}: its only judge is 'labels', which knows the log and no new answer; name another"
            )
        return found, _shared_with({str(name) for name in recipe.screen.judges} - {"labels"}, folder, options)
    if not (folder / EXAMPLES).is_file():
        return None, []
    learnt = judge_from(read_dialogues(folder / EXAMPLES))
    if learnt is None:
        raise InputError(f"{folder / EXAMPLES}: too few examples labelled 'forget' or 'normal' for a judge to learn")
    return learnt, _shared_with({"embedding"}, folder, options)


def _shared_with(judges: set[str], folder: Path, options: Options) -> list[str]:
    """Whether a judge of the answers selected the data as well, as far as it can be told."""
    places = [path for own in (*folders_of(options.model), folder) if (path := own / VERDICTS).is_file()]
    if not places:
        own = ", ".join(sorted(judges))
        return [f"judge: {own}; which judge selected the data is not known: if it is the same, the rate flatters"]
    selected = {name.split(":")[0] for name in selected_by(stream_verdicts(places[0]))}
    if same := same_judge(judges, selected):
        return [f"{same}; judge by another with --judge"]
    return [f"judge: {', '.join(sorted(judges))}; the data was selected by {', '.join(sorted(selected))}"]


def _prompts(path: Path) -> list[Turn]:
    """Dialogues in any shape, whose answers do not matter; or rows with a prompt alone."""
    turns = []
    for place, row in file_rows(path):
        try:
            if isinstance(row, BadRowError):
                raise row
            if not isinstance(row, dict):
                raise BadRowError("expected an object with fields")
            turns.append(parse_row(_with_answer(row), f"row {place}").last_turn)
        except BadRowError as error:
            raise InputError(f"{path}:{place}: {error}") from None
    if not turns:
        raise InputError(f"{path}: there is no prompt in it")
    return turns


def _with_answer(row: dict[str, Any]) -> dict[str, Any]:
    """A row with a prompt alone gets an answer, which nobody looks at."""
    for name, answer in (("prompt", "completion"), ("question", "answer"), ("instruction", "output")):
        if name in row and not {answer, "chosen", "rejected"} & row.keys():
            return {**row, answer: "…"}
    return row


def _look_alikes() -> Sequence[Turn]:
    lines = (files("letheon") / "bench" / "look_alikes.txt").read_text(encoding="utf-8").splitlines()
    return [
        Dialogue(
            id=f"look-alike {number}",
            messages=(Message(role="user", content=line), Message(role="assistant", content="…")),
        ).last_turn
        for number, line in enumerate(lines)
    ]
