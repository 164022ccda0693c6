"""The pictures: what stands in them can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from letheon.bench import pictures
from letheon.bench.rows import Row


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were saved."""
    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **options: figures.append(self))
    return figures


def row(method: str, seed: int, **report: Any) -> Row:
    fields: dict[str, Any] = {"task": "leak", "tuning": "lora", "trial": 0, "key": "", "seconds": 9.0}
    return Row(**fields, method=method, seed=seed, report=report)


def test_names_of_near_points_stand_apart(drawn: list[Figure], tmp_path: Path) -> None:
    names = ["before", "control", "letheon", *(f"a-long-name-{n}" for n in range(12))]
    rows = [
        row(name, seed, forgetting=0.01 * (n // 3) + 0.002 * seed, utility=0.97 + 0.002 * (n % 3))
        for n, name in enumerate(names)
        for seed in (0, 1)
    ]
    pictures.utility(rows, tmp_path / "picture.png")
    (axes,) = drawn[0].axes
    assert [text.get_text() for text in axes.texts] == names
    renderer = FigureCanvasAgg(drawn[0]).get_renderer()
    boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]
    assert all(axes.bbox.count_contains(box.corners()) == 4 for box in boxes)
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])
    # From a name that stands away a line leads to its point.
    away = [abs(text.get_position()[0]) > pictures.NEAR for text in axes.texts]
    assert set(away) == {True, False}
    for text, far in zip(axes.texts, away, strict=True):
        assert text.arrow_patch.get_visible() == far


def test_a_method_without_numbers_has_no_point(drawn: list[Figure], tmp_path: Path) -> None:
    pictures.seconds([row("npo", 0, forgetting=0.5), row("rmu", 0)], tmp_path / "picture.png")
    assert [text.get_text() for text in drawn[0].axes[0].texts] == ["npo"]
