"""The table of attacks on the terminal."""

from __future__ import annotations

from letheon.console import Console
from letheon.records import Estimate, Interval
from letheon.report.figures import interval, number
from letheon.stress.records import Name, StressResults

MODELS: tuple[Name, ...] = ("before", "after", "control")


def show(results: StressResults, console: Console) -> None:
    """Print the table of all attacks, a sentence on each, what was not run, and the gates."""
    models: list[Name] = [name for name in MODELS if any(name in row.models for row in results.rows)]
    rows = [
        (
            row.variant if row.attack == "none" else f"{row.attack}: {row.variant}",
            row.metric.replace("_", " "),
            *(
                number(metric.mean) if isinstance(metric := row.models.get(name), Estimate) else "–"
                for name in models
            ),
            interval(row.rise),
            f"{row.beyond.estimate:.0%}" if isinstance(row.beyond, Interval) else "–",
        )
        for row in results.rows
    ]
    title = f"{results.items} old answers under attack"
    console.table(title, ["attack", "metric", *models, "rise", "share back"], rows)
    for row in results.rows:
        console.say(row.says)
    for one in results.not_run:
        console.say(f"not run: {one.attack}{f', {one.variant}' if one.variant else ''}: {one.why}")
    for gate in results.gates:
        value = "not computed" if gate.value is None else f"{gate.value:.3f}"
        console.say(f"gate {gate.gate}: {'kept' if gate.passed else 'BREACHED'}: {value}, at most {gate.limit:g}")
