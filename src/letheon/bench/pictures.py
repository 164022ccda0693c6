"""The two pictures of a comparison: forgetting against utility, and against seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from letheon.bench.compare import KEPT
from letheon.bench.grid import OURS
from letheon.bench.rows import BEFORE, CONTROL, Row, spread

INK, OUR, CONTROL_INK = "#5f6a71", "#1f6f78", "#a8476a"
NEAR, FAR = 5, 18
PLACES = [(side * NEAR, up) for up in (4, -11) for side in (1, -1)]
PLACES += [(side * FAR, up) for step in range(12) for up in (18 + 13 * step, -25 - 13 * step) for side in (1, -1)]
"""Where a point's name may stand, in typographical points from it; from far away a line leads to it."""


def utility(picked: Sequence[Row], path: Path) -> None:
    """Draw how far towards the control each method has come, against what it kept of the victim's utility."""
    with _axes(path) as axes:
        axes.axhline(KEPT, color=INK, linewidth=0.8, linestyle="--")
        _points(axes, picked, lambda row: row.report.get("forgetting"), lambda row: row.report.get("utility"))
        axes.set_xlabel("forgetting (1: the control's level)")
        axes.set_ylabel("utility (1: the victim's)")
        axes.margins(y=0.1)
        axes.set_xlim(-0.05, 1.05)


def seconds(picked: Sequence[Row], path: Path) -> None:
    """Draw how far each has come, against the seconds that it took."""
    with _axes(path) as axes:
        # The victim's fine-tuning forgets nothing.
        own = [row for row in picked if row.method != BEFORE]
        _points(axes, own, lambda row: row.seconds, lambda row: row.report.get("forgetting"))
        axes.set_xscale("log")
        for which in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
            which("{x:g}")
        axes.set_xlabel("seconds (of the control: fine-tuning it)")
        axes.set_ylabel("forgetting (1: the control's level)")
        axes.set_ylim(-0.05, 1.05)


def _points(
    axes: Any, picked: Sequence[Row], x: Callable[[Row], float | None], y: Callable[[Row], float | None]
) -> None:
    """A point a method, with the standard deviations over seeds; none where a number is missing."""
    for name in dict.fromkeys(row.method for row in picked):
        own = [row for row in picked if row.method == name and x(row) is not None and y(row) is not None]
        across, up = spread([x(row) for row in own]), spread([y(row) for row in own])
        if across is None or up is None:
            continue
        colour = {OURS: OUR, CONTROL: CONTROL_INK}.get(name, INK)
        marker = {OURS: "D", CONTROL: "s", BEFORE: "s"}.get(name, "o")
        axes.errorbar(
            across[0], up[0], xerr=across[1], yerr=up[1], fmt=marker, color=colour, markersize=6, elinewidth=0.8
        )
        line = {"arrowstyle": "-", "color": INK, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            *(name, (across[0], up[0])),
            xytext=PLACES[0],
            textcoords="offset points",
            fontsize=8,
            color=colour,
            arrowprops=line,
            in_layout=False,
        )


def _part(axes: Any) -> None:
    """Move names apart: each takes the first place where it lies on no point and no other name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()
    renderer, within = FigureCanvasAgg(axes.figure).get_renderer(), axes.bbox
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in axes.transData.transform([n.xy for n in axes.texts])]
    for name in sorted(axes.texts, key=lambda name: -name.xy[1]):
        name.arrow_patch.set_visible(False)
        for place in PLACES:
            name.set_position(place)
            name.set_horizontalalignment("left" if place[0] > 0 else "right")
            own = Text.get_window_extent(name, renderer)
            inside = within.contains(own.x0, own.y0) and within.contains(own.x1, own.y1)
            if inside and not any(map(own.overlaps, taken)):
                break
        name.arrow_patch.set_visible(abs(place[0]) > NEAR)
        taken.append(own)


class _axes:
    """Plain axes whose picture is written at the end of the block."""

    def __init__(self, path: Path):
        from matplotlib.figure import Figure

        self.path, self.figure = path, Figure(figsize=(7.2, 5.2), layout="constrained")

    def __enter__(self) -> Any:
        axes = self.figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#dfe2e1", linewidth=0.6)
        axes.set_axisbelow(True)
        return axes

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            _part(self.figure.axes[0])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.figure.savefig(self.path, dpi=120)
