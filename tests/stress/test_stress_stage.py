from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from letheon.records import Results
from letheon.stress.records import StressResults, read_stress

Letheon = Callable[..., tuple[int, str, str]]
SMALL = [part for one in ("stress.steps=2", "stress.samples=2", "stress.relearn_items=2") for part in ("--set", one)]
OPEN = [f"--set=stress.max_{name}=null" for name in ("recovery", "quantised", "rephrased", "leak")]


def stressed(run: Path) -> StressResults:
    found = read_stress(run / "stress.json")
    assert found is not None
    return found


def test_all_attacks_on_all_models(finished: Path, letheon: Letheon) -> None:
    (finished / "general.txt").write_text("The sun shines.\n\nRain falls.\n")
    code, out, err = letheon(
        "stress", "run", *SMALL, *OPEN, "--set", "evaluate.control=model", "--set", "data.general=general.txt"
    )
    assert code == 0, err
    found = stressed(finished / "run")
    assert (found.items, found.relearned, found.merged) == (4, 2, True)
    assert {row.attack for row in found.rows} == {
        *("none", "relearn", "quantise", "rephrase", "sample", "probe", "adapter-off")
    }
    for row in found.rows:
        assert set(row.models) == {"before", "after", "control"}
        assert row.says in err
    (off,) = [row for row in found.rows if row.attack == "adapter-off"]
    # Without its adapter the model after is the model before.
    assert off.models["after"] == off.plain["before"]
    assert {curve.along for curve in found.curves if curve.attack == "relearn"} == {"step"}
    assert [point.at for point in found.curves[0].points] == [0, 1, 2]
    results = Results.load(finished / "run/results.json")
    assert results.stress is not None
    assert results.stress.passed
    assert "quantise: int4" in out
    # Ids and numbers, and no text of what is to be forgotten.
    assert "030-" not in (finished / "run/stress.json").read_text()
    assert "030-" not in out + err


def test_attacks_are_added_and_redone(finished: Path, letheon: Letheon) -> None:
    letheon("stress", "run", "--attacks", "quantise", *SMALL, *OPEN)
    first = stressed(finished / "run")
    letheon("stress", "run", "--attacks", "sample", *SMALL, *OPEN)
    both = stressed(finished / "run")
    assert {row.attack for row in both.rows} == {"none", "quantise", "sample"}
    assert [row for row in both.rows if row.attack == "quantise"] == [r for r in first.rows if r.attack == "quantise"]
    assert [one.variant for one in both.not_run] == [one.variant for one in first.not_run]
    # Under other settings the earlier ones do not hold.
    letheon("stress", "run", "--attacks", "sample", *SMALL, *OPEN, "--set", "stress.items=3")
    assert {row.attack for row in stressed(finished / "run").rows} == {"none", "sample"}


def test_same_seed_same_numbers(finished: Path, letheon: Letheon) -> None:
    rows = []
    for _ in range(2):
        letheon("stress", "run", "--attacks", "relearn,sample", *SMALL, *OPEN)
        rows.append(stressed(finished / "run").rows)
    assert rows[0] == rows[1]


def test_a_breached_gate_is_exit_code_1(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("stress", "run", "--attacks", "quantise", "--set", "stress.max_quantised=0")
    found = stressed(finished / "run")
    assert (code == 1) == (not found.gates[0].passed)
    assert found.gates[0].gate == "stress.max_quantised"
    # The tiny model is little more than its adapter: 4 bits bring its answers back.
    assert code == 1
    assert "letheon: gate failed: quantise: " in err
    results = Results.load(finished / "run/results.json")
    assert results.stress is not None
    assert not results.stress.passed
    # Only the gate changes: what was found still holds.
    code, _, _ = letheon("stress", "run", "--attacks", "sample", *OPEN)
    assert code == 0
    assert {row.attack for row in stressed(finished / "run").rows} == {"none", "quantise", "sample"}


def test_texts_are_kept_only_when_asked_for(finished: Path, letheon: Letheon) -> None:
    letheon("stress", "run", "--attacks", "sample", "--show-texts", *SMALL)
    shown = stressed(finished / "run").answers
    assert {(one.attack, one.model) for one in shown} == {
        (attack, model) for attack in ("none", "sample") for model in ("before", "after")
    }
    assert any("030" in one.answer for one in shown)
    # It was for once: the recipe does not say so.
    assert "show_texts: false" in (finished / "run/recipe.yaml").read_text()
    letheon("stress", "run", "--attacks", "sample", *SMALL)
    assert stressed(finished / "run").answers == []


def test_another_training_makes_it_void(finished: Path, letheon: Letheon) -> None:
    letheon("stress", "run", "--attacks", "quantise", *OPEN)
    letheon("evaluate", "run")
    assert (finished / "run/stress.json").is_file()
    assert Results.load(finished / "run/results.json").stress is not None
    letheon("unlearn", "run", "--set", "train.max_steps=4")
    assert not (finished / "run/stress.json").exists()
    assert Results.load(finished / "run/results.json").stress is None


def test_full_tuning_has_no_adapter_to_take_off(talk: Path, letheon: Letheon) -> None:
    letheon("run", "recipe.yaml", "--set", "tuning.kind=full")
    letheon("stress", "run", "--attacks", "adapter-off")
    found = stressed(talk / "run")
    assert [one.why for one in found.not_run] == ["no adapter was merged into the model after"]
    assert {row.attack for row in found.rows} == {"none"}
    assert not found.merged


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--attacks", "relearn,nonsense"],
            "there is no attack 'nonsense'; there are relearn, quantise, ",
        ),
        (["--attacks", "foo,probe,bar"], "there is no attack 'foo' or 'bar'; there are relearn, "),
        (["--attacks", ","], "--attacks ',': names none; name some, or leave it out for all"),
        (["--attacks", ""], "--attacks '': names none"),
        (["--set", "stress.step=3"], "unknown field 'stress.step'; did you mean 'steps'?"),
        (["--set", "stress.steps=0"], "stress.steps"),
    ],
)
def test_refusals(finished: Path, letheon: Letheon, arguments: list[str], said: str) -> None:
    code, _, err = letheon("stress", "run", *arguments)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_every_mistake_is_told_at_once(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("stress", "run", "--attacks", "nonsense", "--set", "stress.steps=0")
    assert code == 2
    assert "there is no attack 'nonsense'" in err
    assert "stress.steps" in err


def test_there_must_be_a_model(talk: Path, letheon: Letheon) -> None:
    letheon("screen", "recipe.yaml")
    code, _, err = letheon("stress", "run")
    assert (code, err.splitlines()[-1]) == (
        2,
        "letheon: run: nothing to attack yet; run 'letheon unlearn run' first",
    )


def test_the_file_says_its_version(finished: Path, letheon: Letheon) -> None:
    letheon("stress", "run", "--attacks", "quantise", *OPEN)
    file = finished / "run/stress.json"
    raw = json.loads(file.read_text())
    assert raw["schema"] == "letheon/stress/1"
    file.write_text(json.dumps({**raw, "schema": "letheon/stress/9"}))
    code, _, err = letheon("stress", "run", "--attacks", "quantise")
    assert code == 2
    assert "written as 'letheon/stress/9'" in err


def test_a_model_that_an_attack_breaks_has_no_numbers(
    finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letheon.stress.relearn.usual_rate", lambda parameters: 1e30)
    # One step, after which nothing is finite, though its own loss was.
    code, _, err = letheon("stress", "run", "--attacks", "relearn", "--set", "stress.steps=2", *OPEN)
    assert code == 0
    found = stressed(finished / "run")
    assert "is broken by it: its scores are not finite" in err or "the loss is not finite" in err
    means = [metric.mean for row in found.rows for metric in row.models.values()]  # type: ignore[union-attr]
    assert means
    assert all(map(math.isfinite, means))
