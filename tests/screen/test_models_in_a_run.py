"""Judges that ask another model, in a run of the command line."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from letheon.console import Console
from letheon.pipeline import screen_stage
from letheon.recipe import load_recipe
from letheon.records import read_verdicts
from letheon.run import Run
from letheon.screen import pretrained, stream

Letheon = Callable[..., tuple[int, str, str]]


@pytest.fixture
def with_classifier(talk: Path, make_bert: Callable[..., Path]) -> Path:
    """A recipe whose judge is a classifier that looks for the letter z, beside it in a folder."""
    shutil.copytree(make_bert(("fine", "bad"), " z"), talk / "judge")
    text = (talk / "recipe.yaml").read_text()
    section = "screen:\n  judges: [classifier]\n  classifier: {model: judge, labels: {fine: normal, bad: harmful}}\n"
    (talk / "recipe.yaml").write_text(text + section)
    return talk


def test_screening_by_a_classifier(with_classifier: Path, letheon: Letheon) -> None:
    code, _, err = letheon("screen", "recipe.yaml")
    assert code == 0, err
    answers = {
        row["id"]: row["messages"][-1]["content"] for row in map(json.loads, (with_classifier / "log.jsonl").open())
    }
    verdicts = read_verdicts(with_classifier / "run/verdicts.jsonl")
    assert {verdict.decision for verdict in verdicts} <= {"forget", "normal"}
    assert len({verdict.judge for verdict in verdicts}) == 1
    for verdict in verdicts:
        assert (verdict.decision == "forget") == ("z" in answers[verdict.id])
        assert verdict.judge.startswith("classifier:judge@")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every network that a judge has loaded."""
    networks, load = [], pretrained._load

    def count(model: str, task: pretrained.Task) -> Any:
        networks.append(load(model, task))
        return networks[-1]

    monkeypatch.setattr(pretrained, "_load", count)
    return networks


def test_weights_are_loaded_once_a_screening(
    with_classifier: Path, letheon: Letheon, loads: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BATCH", 4)
    assert letheon("screen", "recipe.yaml")[0] == 0
    verdicts = (with_classifier / "run/verdicts.jsonl").read_bytes()
    (network,) = loads
    # And let go.
    assert {weight.device.type for weight in network.parameters()} == {"meta"}
    monkeypatch.setattr("letheon.screen.kept.kept_open", nullcontext)
    assert letheon("screen", "recipe.yaml")[0] == 0
    assert len(loads) == 1 + 3
    assert (with_classifier / "run/verdicts.jsonl").read_bytes() == verdicts


def test_progress_moves_within_a_batch(with_classifier: Path) -> None:
    said = StringIO()
    settings = ["screen.judges=[labels, classifier]", "screen.classifier.batch_size=3"]
    screen_stage(Run.open(with_classifier / "recipe.yaml", settings), Console(err=said, every=0))
    # One of two judges, then three turns of twelve at a time by the other.
    assert re.findall(r"screening: (\d+)/12", said.getvalue()) == ["6", "7", "9", "10"]


def test_weights_are_loaded_once_an_evaluation(with_classifier: Path, letheon: Letheon, loads: list[Any]) -> None:
    assert letheon("run", "recipe.yaml", "--set", "screen.judges=[labels, classifier]")[0] == 0
    del loads[:]
    # It judges answers of two models.
    assert letheon("evaluate", "run")[0] == 0
    assert len(loads) == 1


def test_the_run_knows_its_judge(with_classifier: Path, letheon: Letheon) -> None:
    assert letheon("screen", "recipe.yaml")[0] == 0
    saved = load_recipe(with_classifier / "run/recipe.yaml").screen.classifier
    assert saved is not None
    assert saved.model == str(with_classifier / "judge")
    assert Run.open(with_classifier / "run").is_current("screen")
    # Another judge by the same name is another screening.
    (with_classifier / "judge/vocab.txt").write_text("changed")
    assert not Run.open(with_classifier / "run").is_current("screen")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (("screen.judges=[guard]",), "screen: judge 'guard' needs its model: fill in screen.guard"),
        (
            ("screen.judges=[guard]", "screen.guard={model: model, preset: qwen3guard}"),
            "screen.guard.model: model is the model under treatment, which cannot judge itself; name another",
        ),
        (
            ("screen.judges=[pair]", "screen.pair={model: ./nowhere}"),
            "./nowhere: no such model folder",
        ),
        (
            ("screen.judges=[guard]", "screen.guard={model: judge, preset: bert}"),
            "screen.guard.preset: Input should be 'qwen3guard', 'llama-guard-3'",
        ),
        (("screen.classifier.text=only {this}",), "screen.classifier.text: a template needs {answer}"),
        (("screen.classifier.lables={}",), "unknown field 'screen.classifier.lables'; did you mean 'labels'?"),
    ],
)
def test_faults_are_found_before_anything_runs(
    with_classifier: Path, letheon: Letheon, settings: tuple[str, ...], fault: str
) -> None:
    code, _, err = letheon("screen", "recipe.yaml", *(part for one in settings for part in ("--set", one)))
    assert code == 2
    assert fault in err
    assert "Traceback" not in err
    assert not (with_classifier / "run").exists()
