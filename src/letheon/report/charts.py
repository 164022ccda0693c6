"""The charts, as inline SVG: the same bytes for the same numbers, coloured by the page's CSS variables.

matplotlib knows no CSS variables, so each is drawn as a marker colour, which is replaced in the finished SVG.
No text of the user's ever enters a chart.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from letheon.errors import MissingExtraError
from letheon.records import Estimate, Results, Verdict
from letheon.report.figures import find, mean
from letheon.stress.records import Curve

INK, FAINT, GRID = "#010203", "#010204", "#010205"
BEFORE, AFTER, CONTROL = "#010206", "#010207", "#010208"
FORGET, REVIEW, NORMAL = "#010209", "#01020a", "#01020b"
VARIABLES = {
    INK: "--ink",
    FAINT: "--faint",
    GRID: "--line",
    BEFORE: "--before",
    AFTER: "--after",
    CONTROL: "--control",
    FORGET: "--forget",
    REVIEW: "--review",
    NORMAL: "--normal",
}
MODEL_COLORS = {"before": BEFORE, "after": AFTER, "control": CONTROL}
MARKERS = {"before": "o", "after": "D", "control": "s"}
SIZES = {"before": 9, "after": 7, "control": 13}
WIDTH = 5
"""Inches: 360 CSS pixels, a phone's width."""
BAR_SETS = {
    "forget": "forget",
    "paraphrase": "para-\nphrase",
    "normal_trained": "normal,\ntrained",
    "normal_held_out": "normal,\nheld out",
}
STYLE = {
    "svg.fonttype": "none",
    "font.size": 11.5,
    "text.color": INK,
    "axes.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.prop_cycle": f"cycler(color=['{INK}'])",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "text.parse_math": False,
}


def bars(results: Results, metric: str, name: str) -> str | None:
    """Before, after and control on every set, with standard errors. None where nothing was measured."""
    models = [model for model in MODEL_COLORS if any(mean(results, model, s, metric) is not None for s in BAR_SETS)]
    if not models:
        return None
    with _figure(name, height=2.9) as (axes, svg):
        width = 0.8 / len(models)
        for number, model in enumerate(models):
            for place, data_set in enumerate(BAR_SETS):
                found = find(results, model, data_set, metric)
                if not isinstance(found, Estimate) or not math.isfinite(found.mean):
                    continue
                x = place + (number - (len(models) - 1) / 2) * width
                axes.bar(
                    x, found.mean, width * 0.88, color=MODEL_COLORS[model], yerr=found.stderr, ecolor=INK,
                    error_kw={"elinewidth": 1, "capsize": 2},
                )  # fmt: skip
        axes.set_xticks(range(len(BAR_SETS)), list(BAR_SETS.values()))
        axes.tick_params(axis="x", length=0)
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        axes.grid(axis="y")
        _legend(axes, [(model, MODEL_COLORS[model], "s") for model in models])
    return svg[0]


def trade(results: Results, name: str) -> str | None:
    """What was forgotten against what was kept. None where either is unknown."""
    points = {}
    for model in MODEL_COLORS:
        forget = find(results, model, "forget", "probability")
        kept = find(results, model, "normal_held_out", "probability")
        if isinstance(forget, Estimate) and isinstance(kept, Estimate):
            points[model] = (forget, kept)
    if not points:
        return None
    with _figure(name, height=3.5) as (axes, svg):
        if "before" in points and "after" in points:
            tail, head = ((points[m][0].mean, points[m][1].mean) for m in ("before", "after"))
            arrow = {"arrowstyle": "->", "color": FAINT, "shrinkA": 7, "shrinkB": 8, "linewidth": 1.2}
            axes.annotate("", xy=head, xytext=tail, arrowprops=arrow)
        # The control first, so that a model that lands on it is seen inside it.
        for model in [name for name in reversed(MODEL_COLORS) if name in points]:
            x, y = points[model]
            axes.errorbar(
                x.mean, y.mean, xerr=x.stderr, yerr=y.stderr, fmt=MARKERS[model], markersize=SIZES[model],
                color=MODEL_COLORS[model], ecolor=MODEL_COLORS[model], elinewidth=1.2, capsize=2, clip_on=False,
            )  # fmt: skip
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.grid()
        axes.set_xlabel("probability of the old answers to forget →")
        axes.set_ylabel("probability of normal, held out →")
        _legend(axes, [(model, MODEL_COLORS[model], MARKERS[model]) for model in points])
    return svg[0]


def losses(steps: Sequence[dict[str, Any]], stop: int | None, name: str) -> str | None:
    """The three terms of the loss against the step."""
    curves = {
        "negative": (FORGET, "-"),
        "positive": (AFTER, (0, (5, 2))),
        "normal": (NORMAL, (0, (1.5, 1.5))),
    }
    return _lines([(key, *look, _curve(steps, key)) for key, look in curves.items()], stop, None, name, 2.9)


def probe(
    probes: Sequence[dict[str, Any]], key: str, color: str, limit: float | None, stop: int | None, name: str
) -> str | None:
    """One probe value against the step, with the limit that the stop rule holds it to."""
    return _lines([(key, color, "-", _curve(probes, key))], stop, limit, name, 2.1)


def stress(curve: Curve, name: str) -> str | None:
    """What an attack brings out of each model, by step or by layer."""
    styles = {"before": (0, (1.5, 1.5)), "after": "-", "control": (0, (5, 2))}
    lines = []
    for model, style in styles.items():
        found = [(point.at, point.models.get(model)) for point in curve.points]  # type: ignore[call-overload]
        points = [(at, metric.mean) for at, metric in found if isinstance(metric, Estimate)]
        lines.append((model, MODEL_COLORS[model], style, points))
    return _lines(lines, None, None, name, 2.4, along=curve.along)


def scores(verdicts: Sequence[Verdict], thresholds: Sequence[float], name: str) -> str | None:
    """How many turns got which score, by decision, with the thresholds."""
    if not verdicts:
        return None
    colors = {"normal": NORMAL, "review": REVIEW, "forget": FORGET}
    decisions = [d for d in colors if any(v.decision == d for v in verdicts)]
    with _figure(name, height=2.7) as (axes, svg):
        values = [[v.score for v in verdicts if v.decision == decision] for decision in decisions]
        edges = [number / 20 for number in range(21)]
        axes.hist(values, bins=edges, stacked=True, color=[colors[d] for d in decisions], rwidth=0.9)
        for threshold in sorted(set(thresholds)):
            axes.axvline(threshold, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        axes.set_xlim(0, 1)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("score: higher is more surely undesired")
        axes.set_ylabel("turns")
        axes.grid(axis="y")
        _legend(axes, [(decision, colors[decision], "s") for decision in decisions])
    return svg[0]


def _curve(lines: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """The finite values of a key with their steps."""
    return [(int(line["step"]), float(line[key])) for line in lines if _is_finite(line.get(key))]


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _lines(
    curves: Sequence[tuple[str, str, Any, list[tuple[int, float]]]],
    stop: int | None,
    limit: float | None,
    name: str,
    height: float,
    along: str = "step",
) -> str | None:
    """Curves against the step, or what else they go along; each is (label, colour, line style, points)."""
    curves = [curve for curve in curves if curve[-1]]
    if not curves:
        return None
    with _figure(name, height) as (axes, svg):
        for _, color, style, points in curves:
            marker = "o" if len(points) <= 25 else None
            axes.plot(*zip(*points, strict=True), color=color, linestyle=style, marker=marker, markersize=3.5)
        values = [y for curve in curves for _, y in curve[-1]]
        top = max([*values, limit if limit is not None else 0.0])
        low = min([*values, limit if limit is not None else values[0]])
        # Ratios live near one: from zero they would be a flat line.
        floor = 0.0 if low < 0.5 * top else low - 0.15 * (top - low or 1)
        axes.set_ylim(min(floor, low), top + 0.2 * ((top - floor) or 1))
        if limit is not None:
            axes.axhline(limit, color=INK, linewidth=1.1, linestyle=(0, (4, 3)))
        last = max(x for curve in curves for x, _ in curve[-1])
        axes.set_xlim(0, max(last, stop or 0, 1) * 1.02)
        if stop is not None:
            axes.axvline(stop, color=FAINT, linewidth=1.1)
            side = "right" if stop > last / 2 else "left"
            axes.annotate(
                f"stop: {stop}", (stop, 1), xycoords=("data", "axes fraction"), ha=side, va="top",
                xytext=(-4 if side == "right" else 4, 0), textcoords="offset points", color=FAINT,
            )  # fmt: skip
        axes.set_xlabel(along)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        if len(curves) > 1:
            _legend(axes, [(label, color, style) for label, color, style, _ in curves])
    return svg[0]


def _legend(axes: Any, entries: Sequence[tuple[str, str, Any]]) -> None:
    """A row of names above the chart; an entry's look is a marker, or a line style."""
    from matplotlib.lines import Line2D

    handles = []
    for label, color, look in entries:
        if look in MARKERS.values():
            handles.append(Line2D([], [], linestyle="", marker=look, markersize=7, color=color, label=label))
        else:
            handles.append(Line2D([], [], linestyle=look, color=color, label=label))
    axes.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(entries), borderaxespad=0.7,
        handletextpad=0.5, columnspacing=1.4, borderpad=0,
    )  # fmt: skip


@contextmanager
def _figure(name: str, height: float) -> Iterator[tuple[Any, list[str]]]:
    """Give axes to draw on; when the block ends, the list holds the SVG."""
    try:
        import matplotlib
        import matplotlib.style
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("the report", "report") from None

    svg: list[str] = []
    # From matplotlib's defaults, whatever the user's matplotlibrc says.
    with matplotlib.style.context(["default", {**STYLE, "svg.hashsalt": name}], after_reset=True):
        figure = Figure(figsize=(WIDTH, height), facecolor="none")
        axes = figure.add_subplot()
        yield axes, svg
        _make_room(axes)
        file = io.StringIO()
        FigureCanvasSVG(figure).print_svg(file, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg.append(_inline(file.getvalue(), name))


def _make_room(axes: Any) -> None:
    """Leave as much room around the axes as their words need, by how many letters and lines they have.

    matplotlib's own layouts measure every word, which takes longer than all the drawing, by a font that is not the
    page's.
    """
    width, height = axes.figure.get_size_inches()
    lines = 1 + max(text.count("\n") for text in _ticks(axes.xaxis)) + bool(axes.get_xlabel())
    bottom, top, right = 0.1 + 0.19 * lines, 0.31 if axes.get_legend() else 0.09, 0.14
    # Which ticks an axis has depends on how long it is.
    for _ in range(2):
        left = 0.12 + 0.1 * max(map(len, _ticks(axes.yaxis))) + (0.2 if axes.get_ylabel() else 0)
        box = (left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height)
        axes.set_position(box)


def _ticks(axis: Any) -> list[str]:
    """The words at the ticks of an axis."""
    return [str(text) for text in axis.get_major_formatter().format_ticks(axis.get_majorticklocs())]


def _inline(svg: str, name: str) -> str:
    """Make a standalone SVG a part of the page: no prolog, ids of its own, the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<svg [^>]*viewBox="([^"]+)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf"\1{name}-", svg).replace("xlink:href", "href")
    svg = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", svg)
    for color, variable in VARIABLES.items():
        svg = svg.replace(color, f"var({variable})")
    return svg
