"""What a seed's rows are made of, without a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from letheon.bench import outdated
from letheon.bench.bench import Plan, _Ready, _Seed
from letheon.bench.task import REPORT, VALIDATION, Metrics, Task
from letheon.bench.trial import Outcome, train
from letheon.console import Console
from letheon.records import Turn

PLAN = Plan("outdated", ["ga"], [0], 1, 60, Path("data"), "lora", Path("out"))


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Task:
    some = outdated.read_facts()[:4]
    monkeypatch.setattr("letheon.bench.outdated.read_facts", lambda: some)
    return outdated.build(Path(), 0)


def seed(task: Task, **changes: Any) -> _Seed:
    return _Seed(replace(PLAN, **changes), task, 0, Console(quiet=True))


def metrics(**changes: float) -> Metrics:
    same = {"said_old": 0.0, "kept": 0.8, "kept_right": 0.8, "general_loss": 2.0, "abstentions": 0.0}
    return same | {"extraction_strength": 0.1, "exact_memorization": 0.2} | changes


def ready() -> _Ready:
    before, control = metrics(said_old=1.0), metrics(kept=0.2)
    found: Any = SimpleNamespace(tokenizer=None)
    found.before, found.control = ({part: own for part in (VALIDATION, REPORT)} for own in (before, control))
    return cast(_Ready, found)


def test_a_row_has_each_half_beside_the_victims(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = Outcome(None, 3, "enough", 1.0, 9, None, None, within_guards=True)  # type: ignore[arg-type]
    own = {VALIDATION: metrics(kept=0.4), REPORT: metrics(said_old=0.51)}
    monkeypatch.setattr("letheon.bench.bench.free", lambda outcome: None)
    one = seed(task)
    monkeypatch.setattr(one, "_train", lambda *_: outcome)
    monkeypatch.setattr(one, "_metrics", lambda *_: own)
    row = one._row(ready(), "ga", 0, {}, "ga")
    assert (row.validation["kept_share"], row.validation["forgetting"]) == (0.5, 1)
    assert (row.report["kept_share"], row.report["forgetting"]) == (1, 0.5)
    assert (row.seconds, row.tokens, row.steps, row.failed) == (1.0, 9, 3, None)


@pytest.mark.parametrize(("strength", "exact", "there"), [(0.12, 0.25, True), (0.13, 0.2, False), (0.1, 0.26, False)])
def test_the_level_is_the_controls_on_the_first_half(
    task: Task, monkeypatch: pytest.MonkeyPatch, strength: float, exact: float, there: bool
) -> None:
    looked: list[Turn] = []

    def score(model: Any, turns: Sequence[Turn], batch_size: int) -> None:
        looked.extend(turns)

    monkeypatch.setattr("letheon.bench.bench.encode_turn", lambda tokenizer, turn: turn)
    monkeypatch.setattr("letheon.bench.bench.score_sequences", score)
    found = {"extraction_strength": strength, "exact_memorization": exact}
    monkeypatch.setattr("letheon.bench.bench.memorised", lambda scores: found)
    given = ready()
    given.before[VALIDATION].update(extraction_strength=0.9, exact_memorization=0.9)
    assert seed(task)._reached(given)(None) == there  # type: ignore[arg-type]
    assert looked == list(task.parts[VALIDATION].given["old"])


def test_all_that_a_row_depends_on_is_in_its_key(task: Task) -> None:
    paraphrases = [one.model_copy(update={"split": "test"}) for one in task.paraphrases]
    part = task.parts[REPORT]
    fewer: list[dict[str, Any]] = [
        {"given": {**part.given, "old": ()}},
        {"asked": {**part.asked, "old": ()}},
        {"texts": ["One more."]},
    ]
    others = [
        seed(task, budget=30),
        seed(task, overrides=["stop.every=3"]),
        seed(replace(task, paraphrases=paraphrases)),
        seed(replace(task, log=task.log[1:])),
        seed(replace(task, victim=task.victim[1:])),
        seed(replace(task, recipe={})),
        seed(replace(task, files={"replies.yaml": ""})),
        seed(replace(task, answer_tokens=7)),
        seed(replace(task, schooling=replace(task.schooling, epochs=1))),
        *(seed(replace(task, parts=task.parts | {REPORT: replace(part, **less)})) for less in fewer),
    ]
    keys = [one.key("ga", {}) for one in (seed(task), *others)]
    keys += [seed(task).key("ga", {"train": {"learning_rate": 1.0}}), seed(task).key("npo", {})]
    assert len(set(keys)) == len(keys)
    assert seed(task, output=Path("elsewhere"), trials=2, methods=["ga", "npo"]).key("ga", {}) == keys[0]


def test_a_trial_leaves_the_victim_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights may come to the level when the steps are over."""

    def unlearn(run: Any, model: torch.nn.Linear, *_: Any, **__: Any) -> tuple[Any, Any]:
        model.weight.data.zero_()
        return model, SimpleNamespace(step=7, reason="enough", within_guards=True)

    for name in ("_targets", "rehearsed_of", "base_of", "training_data"):
        monkeypatch.setattr(f"letheon.bench.trial.{name}", lambda *_: None)
    monkeypatch.setattr("letheon.bench.trial.train_from_recipe", unlearn)
    victim, run = torch.nn.Linear(2, 2), SimpleNamespace(recipe=SimpleNamespace(tuning=None))
    before = victim.weight.clone()

    def reached(model: torch.nn.Linear) -> bool:
        return not model.weight.any()

    given: Any = (run, victim, None, None)
    outcome = train(*given, reached=cast(Any, reached), budget=None, update=lambda done, total: None)
    assert torch.equal(victim.weight, before)
    assert not cast(Any, outcome.model).weight.any()
    assert (outcome.level_step, outcome.level_seconds) == (7, outcome.seconds)
    assert outcome.seconds > 0
