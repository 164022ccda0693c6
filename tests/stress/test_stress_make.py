from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from given import given_for

from letheon.errors import InputError
from letheon.models import load_model
from letheon.records import Interval
from letheon.stress.attack import Given
from letheon.stress.make import ATTACKS, attack_models, chosen_attacks, together

SMALL = {"steps": 2, "samples": 2}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_models_from_python_without_a_run(
    talk: Any, talk_turns: Any, tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    before, after = load_model("model"), tiny_model(max_position_embeddings=256)
    kept = weights(before), weights(after)
    loaded: list[str] = []

    def load(name: str, model: Any) -> Any:
        loaded.append(name)
        return model

    given = given_for(tiny_tokenizer, talk_turns, settings=SMALL, context=128)
    models: Any = {"before": lambda: load("before", before), "after": lambda: load("after", after)}
    found = attack_models(models, given)
    assert loaded == ["before", "after"]
    assert {row.attack for row in found.rows} == {"none", *ATTACKS} - {"adapter-off"}
    assert all(set(row.models) == {"before", "after"} for row in found.rows)
    assert ("adapter-off", "no adapter was merged into the model after") in {(n.attack, n.why) for n in found.not_run}
    (plain,) = [row for row in found.rows if row.attack == "none" and row.metric == "extraction_strength"]
    # One says it by heart, and the other has never seen it.
    assert plain.models["before"].mean > 0.9  # type: ignore[union-attr]
    assert plain.models["after"].mean < 0.3  # type: ignore[union-attr]
    assert {gate.gate for gate in found.gates} == {
        f"stress.max_{name}" for name in ("recovery", "quantised", "rephrased", "leak")
    }
    # No text unless asked for, and every model as it was.
    assert found.answers == []
    for model, known in zip((before, after), kept, strict=True):
        assert all(torch.equal(value, known[name]) for name, value in model.state_dict().items())
    shown = attack_models(models, given, ["sample"], show_texts=True)
    assert {(one.attack, one.model) for one in shown.answers} == {
        (attack, model) for attack in ("none", "sample") for model in ("before", "after")
    }


def test_little_has_to_be_given(tiny_model: Callable[..., Any], tiny_tokenizer: Any, talk_turns: Any) -> None:
    given = Given(tiny_tokenizer, talk_turns, max_new_tokens=4)
    model = tiny_model()
    found = attack_models({"before": lambda: model, "after": lambda: model}, given, ["relearn", "quantise"])
    whys = {one.variant: one.why for one in found.not_run if one.attack == "relearn"}
    assert set(whys) == {"forget items", "normal dialogues", "unrelated text"}
    # The same model before and after: nothing was forgotten, nothing can rise by being rounded to itself.
    (half,) = [row for row in found.rows if row.variant == "bf16"]
    assert "too little was forgotten" in half.beyond.not_computed  # type: ignore[union-attr]
    assert isinstance(half.rise, Interval)
    (recovery,) = (gate for gate in found.gates if gate.gate == "stress.max_recovery")
    assert (recovery.why, recovery.passed) == (whys["forget items"], False)
    # A probe has no text to fit its maps on.
    found = attack_models({"before": lambda: model, "after": lambda: model}, given, ["probe"])
    assert [one.why for one in found.not_run] == [
        "there are neither normal dialogues nor general text to fit the maps on"
    ]


def test_results_of_several_calls_together(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    given = given_for(tiny_tokenizer, settings=SMALL)
    models: Any = {"before": tiny_model, "after": lambda: tiny_model(seed=1)}
    first, second = (attack_models(models, given, [name]) for name in ("sample", "quantise"))
    both = together(second, first, given)
    at_once = attack_models(models, given, ["sample", "quantise"])
    assert both.rows == at_once.rows
    assert both.gates == at_once.gates
    assert both.seconds.keys() == at_once.seconds.keys()
    # What was made again takes the place of what there was.
    assert together(first, both, given).rows == both.rows


def test_draws_from_a_broken_model_take_no_other_attack_with_them(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    def broken() -> Any:
        model = tiny_model()
        with torch.no_grad():
            model.lm_head.weight.fill_(math.nan)
        return model

    models: Any = {"before": tiny_model, "after": lambda: tiny_model(seed=1), "control": broken}
    found = attack_models(models, given_for(tiny_tokenizer, settings=SMALL), ["relearn", "sample"])
    assert {row.attack for row in found.rows} == {"none", "relearn", "sample"}
    assert all("control" not in row.models for row in found.rows if row.attack == "sample")
    (why,) = [one.why for one in found.not_run if one.attack == "sample"]
    assert why.startswith("control: the model is broken")
    found = attack_models({"before": tiny_model, "after": broken}, given_for(tiny_tokenizer), ["sample"])
    assert [(gate.gate, gate.passed) for gate in found.gates] == [("stress.max_leak", False)]


def test_what_cannot_be_done() -> None:
    given: Any = None
    with pytest.raises(InputError, match="there is no attack 'nonsense'; there are relearn, quantise"):
        attack_models({"before": object, "after": object}, given, ["nonsense"])
    with pytest.raises(InputError, match="no model 'after' to attack"):
        attack_models({"before": object}, given)
    assert chosen_attacks([]) == list(ATTACKS)
    assert chosen_attacks(["sample", "relearn"]) == ["relearn", "sample"]
