from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from turns import make_turn

from letheon.recipe import Classifier
from letheon.screen.classifier import ClassifierJudge
from letheon.screen.labels import LabelsJudge
from letheon.screen.pretrained import alike
from letheon.screen.progress import heard_by, part, tell
from letheon.screen.screen import screen_turns


def test_what_is_told_is_heard_by_the_nearest() -> None:
    outer: list[float] = []
    inner: list[float] = []
    tell(1, 2)
    with heard_by(outer.append):
        tell(1, 4)
        with heard_by(inner.append):
            tell(1, 2)
        tell(4, 4)
    tell(1, 2)
    assert (outer, inner) == ([0.25, 1.0], [0.5])


def test_parts_of_parts() -> None:
    heard: list[float] = []
    with heard_by(heard.append):
        with part(0, 2):
            tell(1, 2)
        with part(1, 2):
            for number in range(2):
                with part(number, 2):
                    tell(1, 2)
    assert heard == [0.25, 0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    with part(0, 2):
        tell(1, 2)


def test_an_error_ends_it() -> None:
    heard: list[float] = []
    with pytest.raises(ValueError, match="no"), heard_by(heard.append), part(0, 2):
        raise ValueError("no")
    tell(1, 1)
    assert heard == []


def test_batches_of_like_length_tell_how_many_are_done() -> None:
    heard: list[float] = []
    with heard_by(heard.append):
        assert [len(numbers) for numbers in alike([3, 1, 2, 5, 4], 2)] == [2, 2, 1]
    assert heard == [0.4, 0.8, 1.0]


def test_judges_move_it_on(make_bert: Callable[..., Path]) -> None:
    labels = {"fine": "normal", "bad": "harmful"}
    settings = Classifier(model=str(make_bert(list(labels), " z")), labels=labels, batch_size=2)
    heard: list[float] = []
    with heard_by(heard.append):
        screen_turns([make_turn("q", f"a{n}") for n in range(4)], [LabelsJudge(), ClassifierJudge(settings)])
    assert heard == [0.5, 0.75, 1.0, 1.0]
