from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock
from screened_run import made

from letheon.console import Console
from letheon.records import Interval, Outlook, Results, Screening
from letheon.review.decisions import append_decisions
from letheon.review.serve import open_session
from letheon.review.settle import settle, settle_unless_busy
from letheon.run import Run

Screened = Callable[..., Path]
OUTLOOK = Outlook(
    form="MiniLM",
    examples={"privacy": 30, "normal": 30},
    auroc=None,
    precision=None,
    recall=None,
    forget_above=Interval(estimate=0.55, low=0.5, high=0.6),
    normal_below=0.45,
)


@pytest.fixture
def run(screened: Screened) -> Run:
    """A screened run whose thresholds were chosen by its examples."""
    opened = Run.open(screened())
    Results(
        screening=Screening(precision=None, recall=None, n=6, forget=1, review=3, normal=2, expected=OUTLOOK)
    ).save(opened.results_file)
    return opened


def test_a_changed_decision_leaves_what_the_screening_promises(run: Run) -> None:
    append_decisions(run.decisions_file, [made("d1", "forget")])
    settle(run, pytest.fail)
    found = Results.load(run.results_file).screening
    assert found is not None
    assert (found.forget, found.review, found.normal) == (2, 2, 2)
    assert found.expected == OUTLOOK


def test_an_erasure_request_goes_its_own_way(run: Run) -> None:
    append_decisions(run.decisions_file, [made("d1", "forget")])
    before = run.verdicts_file.read_bytes()
    erasure = Run(run.recipe.model_copy(update={"data": run.recipe.data.model_copy(update={"subject": "Ann"})}))
    settle(erasure, pytest.fail)
    assert run.verdicts_file.read_bytes() == before


def test_a_review_goes_by_the_thresholds_that_were_chosen(run: Run) -> None:
    session = open_session(run, Console())
    assert (session.normal_below, session.forget_above) == (0.45, 0.55)


def test_a_review_goes_by_the_recipes_thresholds_where_none_were_chosen(screened: Screened) -> None:
    session = open_session(Run.open(screened()), Console())
    assert (session.normal_below, session.forget_above) == (0.3, 0.7)


def test_beside_another_letheon_the_verdicts_wait(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    append_decisions(run.decisions_file, [made("d1", "forget")])
    before = run.verdicts_file.read_bytes()
    with FileLock(run.folder / ".lock"):
        assert not settle_unless_busy(run, Console())
        assert run.verdicts_file.read_bytes() == before
    assert "as another letheon is at work there" in capsys.readouterr().err
    assert settle_unless_busy(run, Console())
    assert run.verdicts_file.read_bytes() != before
    # The folder is free again.
    with FileLock(run.folder / ".lock", timeout=0):
        pass
