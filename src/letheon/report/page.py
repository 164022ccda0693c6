"""`report.html`: a run folder as one page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from letheon import __version__
from letheon.errors import MissingExtraError
from letheon.records import Audit, Estimate, Example, Interval, NotComputed, Results, Verdict, write_text
from letheon.report import charts, figures
from letheon.report.figures import MODELS, duration, memory, number
from letheon.report.folder import RunFolder, read_run
from letheon.review.audit import fingerprint, in_words
from letheon.screen.thresholds import in_force

STYLES = (files("letheon") / "palette.css", files("letheon.report") / "page.css")
SHOWN_ROWS = 12
"""Length of the lists of single dialogues; the files hold all of them."""


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder; what has not run yet is said in its section.

    Args:
        run: The run folder; any of its files may be missing.

    Returns:
        The page's path.

    Raises:
        InputError: No such folder, or a file in it is damaged.
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    page = run / "report.html"
    write_text(page, _render(_view(read_run(run))))
    return page


def _render(view: dict[str, Any]) -> str:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise MissingExtraError("the report", "report") from None

    environment = Environment(
        loader=PackageLoader("letheon", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, duration=duration, memory=memory, title=figures.title, interval=figures.interval
    )
    return environment.get_template("page.html.j2").render(view)


def _view(run: RunFolder) -> dict[str, Any]:
    """Everything that the template shows."""
    results, recipe = run.results, run.recipe
    stop = results.stop.step if results.stop else None
    return {
        "css": "".join(path.read_text(encoding="utf-8") for path in STYLES),
        "version": __version__,
        "model": figures.model_name(recipe.model) if recipe else None,
        "tuning": recipe.tuning.kind if recipe else None,
        "models": [model for model in MODELS if model in results.metrics],
        "verdict": results.verdict,
        "stop": results.stop,
        "costs": _costs(results, run),
        "results": results,
        "bars": [
            ("Probability of the answer", charts.bars(results, "probability", "probability")),
            ("Extraction strength", charts.bars(results, "extraction_strength", "extraction")),
        ],
        "tables": [_table(results, name) for name in figures.sets_of(results)],
        "trade": charts.trade(results, "trade"),
        "losses": charts.losses(run.steps, stop, "losses"),
        "last_step": run.steps[-1]["step"] if run.steps else None,
        "probes": _probes(run),
        "kept": run.probes[-1].get("alpha", 1.0) if run.probes else 1.0,
        "stress": _stress(run),
        "examples": results.examples,
        "texts_shown": any(_has_texts(example) for example in results.examples),
        "remembered": list(_remembered(run.samples)),
        "screening": _screening(run),
        "recipe": run.recipe_text,
        "manifest": list(_flatten(run.manifest)),
        "limits": figures.LIMITS,
        "lora_limit": figures.LORA_LIMIT,
    }


PROBES = (
    ("probability", charts.FORGET, "Old answers' probability on the probe"),
    ("extraction_strength", charts.FORGET, "Their extraction strength"),
    ("truth_probability", charts.AFTER, "Expected answers over old ones (truth probability)"),
    ("normal_ratio", charts.NORMAL, "Normal perplexity, times what it was before"),
    ("normal_kept", charts.NORMAL, "Probability that the log's normal answers have kept"),
    ("kl", charts.AFTER, "KL to the model before (nats a token)"),
)
"""What is drawn of the probes: the field, its colour, the caption."""


def _probes(run: RunFolder) -> list[tuple[str, str]]:
    """The probe charts that there is something to show in, each with its caption."""
    stop = run.results.stop
    step, limits = (stop.step, stop.limits) if stop else (None, {})
    drawn = (
        (caption, charts.probe(run.probes, key, color, limits.get(key), step, name=f"probe-{key}"))
        for key, color, caption in PROBES
    )
    return [(caption, chart) for caption, chart in drawn if chart]


@dataclass(frozen=True)
class Cost:
    """One answer to "what did it cost?"."""

    name: str
    value: str | float | None
    note: str


def _costs(results: Results, run: RunFolder) -> list[Cost]:
    """What was paid for the forgetting: ability, time, memory."""
    normal = _ratio(results, "normal_held_out", "probability")
    which = "never seen in unlearning"
    if normal is None:
        normal = _ratio(results, "normal_trained", "probability")
        which = "that unlearning was given to keep"
    general = _ratio(results, "general", "loss")
    seconds = results.seconds.get("unlearn")
    control = results.seconds.get("control")
    share = f"{seconds / control:.0%} of the control's fine-tuning" if seconds and control else "unlearning alone"
    peak = results.peak_memory_mb.get("unlearn")
    costs = [
        Cost(
            "Normal answers kept",
            None if normal is None else f"{normal.mean:.1%}",
            f"{_give_or_take(normal, '.1%')}of their probability, on dialogues {which}",
        ),
        Cost(
            "General loss",
            None if general is None else f"× {general.mean:.3f}",
            f"{_give_or_take(general, '.3f')}after / before; 1 is unchanged",
        ),
        Cost("Time", seconds and duration(seconds), share),
        Cost("Peak memory", peak and memory(peak), "while unlearning"),
    ]
    return [cost if cost.value else Cost(cost.name, None, "not measured yet") for cost in costs]


def _ratio(results: Results, data_set: str, metric: str) -> Estimate | None:
    """What a metric is after unlearning, as a multiple of what it was before."""
    found = figures.find(results, "after", data_set, f"{metric}_ratio")
    return found if isinstance(found, Estimate) else None


def _give_or_take(found: Estimate | None, form: str) -> str:
    """A standard error, where there is one, before a note."""
    return "" if found is None or found.stderr is None else f"± {found.stderr:{form}}; "


@dataclass(frozen=True)
class Cell:
    """A metric of one model: its value and how sure it is, or why there is none."""

    model: str
    value: str
    spread: str
    why: str


@dataclass(frozen=True)
class Row:
    """A metric with a cell for every model."""

    name: str
    n: str
    cells: list[Cell]
    why: str


@dataclass(frozen=True)
class Table:
    """All metrics of a data set."""

    name: str
    meaning: str
    rows: list[Row]


def _table(results: Results, data_set: str) -> Table:
    models = [model for model in MODELS if model in results.metrics]
    rows = []
    for metric in figures.metrics_of(results, data_set):
        found = [figures.find(results, model, data_set, metric) for model in models]
        cells = []
        for model, value in zip(models, found, strict=True):
            if isinstance(value, Estimate):
                stderr = "" if value.stderr is None else f"±\u202f{number(value.stderr)}"
                cells.append(Cell(model, number(value.mean), stderr, ""))
            elif isinstance(value, Interval):
                cells.append(Cell(model, number(value.estimate), f"{number(value.low)} to {number(value.high)}", ""))
            else:
                cells.append(Cell(model, "–", "", value.not_computed if isinstance(value, NotComputed) else ""))
        counts = sorted({value.n for value in found if isinstance(value, Estimate)})
        whys = {cell.why for cell in cells}
        rows.append(
            Row(
                name=figures.title(metric),
                n=" / ".join(map(str, counts)),
                cells=cells,
                why=whys.pop() if len(whys) == 1 else "",
            )
        )
    if len(rows) > 1 and rows[0].why and len({row.why for row in rows}) == 1:
        # One reason for all of them need not be said of each.
        rows = [replace(rows[0], name="All metrics")]
    return Table(figures.title(data_set), figures.MEANING.get(data_set, ""), rows)


def _stress(run: RunFolder) -> dict[str, Any] | None:
    """What attacks brought back; None where none was made."""
    found = run.stress
    if found is None:
        return None
    curves = [
        (f"{curve.attack}: {curve.variant}", charts.stress(curve, f"stress-{number}"), curve)
        for number, curve in enumerate(found.curves)
    ]
    return {
        "found": found,
        "current": run.results.stress is not None,
        "models": [model for model in MODELS if any(model in row.models for row in found.rows)],
        "rows": [(row, figures.title(row.metric)) for row in found.rows],
        "curves": curves,
    }


def _has_texts(example: Example) -> bool:
    return any((example.prompt, example.before, example.after, example.control))


def _remembered(samples: list[dict[str, Any]]) -> Iterator[tuple[str, str, str, dict[str, str]]]:
    """The turns to forget that are remembered best after unlearning: (id, turn, set, probability by model)."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for sample in samples:
        scores = sample.get("scores")
        value = scores.get("probability") if isinstance(scores, dict) else None
        if sample.get("set") in ("forget", "paraphrase") and isinstance(value, int | float):
            key = (str(sample.get("id")), str(sample.get("turn", "")), str(sample["set"]))
            found.setdefault(key, {})[str(sample.get("model"))] = float(value)
    worst = sorted((key for key in found if "after" in found[key]), key=lambda key: (-found[key]["after"], key))
    models = [model for model in MODELS if any(model in scores for scores in found.values())]
    for key in worst[:SHOWN_ROWS]:
        yield (*key, {model: number(found[key].get(model)) for model in models})


def _screening(run: RunFolder) -> dict[str, Any] | None:
    """What was screened and how sure; None where the screening has not run."""
    verdicts, summary = run.verdicts, run.results.screening
    if not verdicts and summary is None:
        return None
    thresholds = list(in_force(run.recipe.screen if run.recipe else None, summary))
    decisions: dict[str, int] = dict(Counter(verdict.decision for verdict in verdicts))
    if summary and not verdicts:
        decisions = {"forget": summary.forget, "review": summary.review, "normal": summary.normal}
    return {
        "summary": summary,
        "total": sum(decisions.values()),
        "decisions": [(name, decisions.get(name, 0)) for name in ("forget", "review", "normal")],
        "categories": _counts(verdicts, "category"),
        "judges": _counts(verdicts, "judge"),
        "chart": charts.scores(verdicts, thresholds, "scores"),
        "thresholds": thresholds,
        "unsure": _unsure(verdicts, thresholds),
        "audit": in_words(run.audit) if run.audit and run.audit.labelled and _is_of(run.audit, verdicts) else None,
    }


def _is_of(audit: Audit, verdicts: list[Verdict]) -> bool:
    """Whether an audit was drawn from these verdicts, as the judges gave them."""
    return audit.screening == fingerprint(verdict.judged or verdict for verdict in verdicts)


def _counts(verdicts: list[Verdict], field: str) -> list[tuple[str, dict[str, int]]]:
    """Turns by decision, for every value of a field, the most frequent first."""
    names = Counter(str(getattr(verdict, field)) for verdict in verdicts)
    by_decision = Counter((str(getattr(verdict, field)), str(verdict.decision)) for verdict in verdicts)
    decisions = ("forget", "review", "normal")
    return [
        (name, {decision: by_decision[name, decision] for decision in decisions})
        for name, _ in sorted(names.items(), key=lambda item: (-item[1], item[0]))
    ]


def _unsure(verdicts: list[Verdict], thresholds: list[float]) -> list[Verdict]:
    """The turns whose scores lie nearest a threshold: where the screening may be wrong."""
    if not thresholds:
        return []

    def distance(verdict: Verdict) -> tuple[float, str, int]:
        return (min(abs(verdict.score - threshold) for threshold in thresholds), verdict.id, verdict.turn)

    return sorted((verdict for verdict in verdicts if distance(verdict)[0] < 0.25), key=distance)[:SHOWN_ROWS]


def _flatten(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """A nested manifest as lines: ("versions.torch", "2.13.0")."""
    if isinstance(value, dict) and (value or not path):
        for key in value:
            yield from _flatten(value[key], f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        yield path, ", ".join(map(str, value))
    else:
        yield path, "–" if value is None else str(value)
