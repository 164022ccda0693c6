"""What a comparison has found, for people and for scripts: a CSV of every row, a Markdown table, two pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from letheon.bench import pictures
from letheon.bench.compare import ABSTENTIONS, KEPT
from letheon.bench.rows import REFERENCES, Row, chosen, spread
from letheon.bench.task import Task
from letheon.records import write_text

FIELDS = (
    *("task", "tuning", "method", "seed", "trial", "chosen", "settings", "seconds", "tokens", "steps"),
    *("level_seconds", "level_step", "within_guards", "stop", "failed"),
)
USUAL = ("forgetting", "utility", "kept_share", "general_share", "abstentions", "repetition")


def write_tables(folder: Path, task_name: str, tuning: str, rows: Sequence[Row], task: Task) -> list[Path]:
    """Write all that is read off the rows.

    Args:
        folder: Where to.
        task_name: Name of the task.
        tuning: "lora" or "full".
        rows: Its rows.
        task: The task, for its goals.

    Returns:
        The files.
    """
    stem, picked = f"{task_name}-{tuning}", chosen(rows)
    table, text = folder / f"{stem}.csv", folder / f"{stem}.md"
    write_text(table, as_csv(rows, picked))
    metrics = [*(goal.metric for goal in task.goals), *task.shown, *USUAL]
    write_text(text, as_markdown(f"{task_name}, {tuning}", rows, picked, metrics))
    drawn = [folder / f"{stem}-utility.png", folder / f"{stem}-seconds.png"]
    pictures.utility(picked, drawn[0])
    pictures.seconds(picked, drawn[1])
    return [table, text, *drawn]


def as_csv(rows: Sequence[Row], picked: Sequence[Row]) -> str:
    """Every row; metrics of the report under their names, those of validation with "validation_" before them."""
    lines = []
    for row in rows:
        own = row.model_dump(exclude={"key", "models", "validation", "report"})
        own["chosen"] = int(row in picked)
        own |= row.report | {f"validation_{name}": value for name, value in row.validation.items()}
        lines.append(own)
    names = list(dict.fromkeys([*FIELDS, *(name for line in lines for name in line)]))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def as_markdown(title: str, rows: Sequence[Row], picked: Sequence[Row], metrics: Sequence[str]) -> str:
    """The chosen trials, mean ± sd over seeds; then settings and ends of each; then what was not computed."""
    seeds = sorted({row.seed for row in rows})
    names = [
        *REFERENCES,
        *sorted({row.method for row in picked} - set(REFERENCES), key=lambda n: (_order(n, picked), n)),
    ]
    head = ["method", *metrics, "seconds", "to the level, s", "tokens", "reached"]
    lines = [
        f"# {title}",
        "",
        f"Mean ± standard deviation over {len(seeds)} seed{'s' * (len(seeds) != 1)} ({', '.join(map(str, seeds))}). "
        "Of each method and seed the trial with the best score on the validation half; the numbers are from the "
        "other half. "
        f"*Reached*: seeds on which the control's level was met with at least {KEPT:.0%} of utility and of the kept "
        f"answers' probability, and at most {ABSTENTIONS:.0%} more abstentions than the control's.",
        "",
        _line(head),
        _line(["---"] + ["---:"] * (len(head) - 1)),
    ]
    for name in names:
        own = [row for row in picked if row.method == name]
        if not own:
            continue
        cells = [_cell([row.report.get(metric) for row in own], digits=3) for metric in metrics]
        levels = [row.level_seconds for row in own]
        to_level = (
            "" if name in REFERENCES else _cell(levels, digits=1, missing=f"never ({_none(levels)}/{len(own)})")
        )
        reached = "" if name in REFERENCES else f"{sum(row.report.get('reached') == 1 for row in own)}/{len(own)}"
        seconds, tokens = _cell([row.seconds for row in own], 1), _cell([row.tokens for row in own], 0)
        lines.append(_line([name, *cells, seconds, to_level, tokens if name not in REFERENCES else "", reached]))
    lines += ["", "## Settings chosen, and why training ended", "", _line(["method", "seed", "settings", "end"])]
    lines.append(_line(["---", "---:", "---", "---"]))
    for row in sorted(picked, key=lambda row: (names.index(row.method), row.seed)):
        if row.method not in REFERENCES:
            end = row.failed or row.stop + ("" if row.within_guards is not False else " (not within the guards)")
            lines.append(_line([row.method, str(row.seed), f"`{row.settings}`", end]))
    failed = [row for row in rows if row.failed or None in row.report.values()]
    if failed:
        lines += ["", "## What was not computed", ""]
        lines += [
            f"- {row.method}, seed {row.seed}, trial {row.trial + 1} (`{row.settings}`): {_why(row)}"
            for row in failed
        ]
    return "\n".join(lines) + "\n"


def _order(name: str, picked: Sequence[Row]) -> float:
    """Best first, by what settings are chosen by, on the report's half."""
    scores = [row.report.get("score") for row in picked if row.method == name]
    return -sum(score or 0.0 for score in scores) / len(scores)


def _why(row: Row) -> str:
    if row.failed:
        return row.failed
    broken = [name for name, value in row.report.items() if value is None]
    return f"not a number: {', '.join(broken)} (the model is broken)"


def _cell(values: Sequence[float | None], digits: int, missing: str = "–") -> str:
    found = spread(values)
    if found is None:
        return missing
    mean, deviation = found
    return f"{mean:.{digits}f}" + (f" ± {deviation:.{digits}f}" if deviation is not None else "")


def _none(values: Sequence[float | None]) -> int:
    return sum(value is None for value in values)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
