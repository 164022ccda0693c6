"""Published methods by name: each is a valid recipe, says what its authors say, and gives way to the user."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from letheon.errors import InputError, MissingExtraError
from letheon.methods import METHODS, merged, without
from letheon.recipe import OWN_SETTINGS, NegativeName, Recipe, apply_override, check_recipe, load_recipe
from letheon.train.recipe_run import DISTANCES, objective_of, training_settings

# A judge that can judge new answers, for the method that samples.
LEAST: dict[str, Any] = {
    "model": "org/name",
    "base": "org/base",
    "data": {"dialogues": "log.jsonl"},
    "screen": {"judges": ["embedding"]},
}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_recipe_with_an_objective_and_settings(name: str) -> None:
    recipe = check_recipe({**LEAST, "method": name})
    assert objective_of(recipe.objective)
    settings = training_settings(recipe, "out")
    if not name.startswith("letheon"):
        # RepSelect ends by a budget of its own, and no adapter could hold it.
        assert settings.stop_rule == (name == "repselect")
        assert recipe.tuning.kind == ("full" if name == "repselect" else "lora")
        assert settings.gradient_accumulation_steps * settings.per_device_train_batch_size >= 2
        assert (settings.balance, settings.directions) == (False, 0)
        assert settings.adapter_init == ("fila" if name == "loku" else "random")
        assert settings.damping is None
        assert not recipe.objective.normal.rehearsal
    # What is resolved is what it came from, the other kind of tuning included.
    assert Recipe.model_validate(recipe.model_dump(mode="json", by_alias=True)) == recipe
    full = {**LEAST, "method": name, "tuning": {"kind": "full"}}
    if name == "loku":
        with pytest.raises(InputError, match="method ihl, which is the same without it"):
            check_recipe(full)
    else:
        assert check_recipe(full).tuning.kind == "full"


def test_methods_differ() -> None:
    resolved = [check_recipe({**LEAST, "method": name}).model_dump(exclude={"method"}) for name in METHODS]
    assert all(one != other for n, one in enumerate(resolved) for other in resolved[:n])


def test_letheon_is_the_default() -> None:
    assert check_recipe({**LEAST, "method": "letheon"}) == check_recipe(LEAST)


@pytest.mark.parametrize("name", sorted(set(get_args(NegativeName)) - {"none"}))
def test_a_distance_has_the_settings_that_the_recipe_names(name: NegativeName) -> None:
    import dataclasses

    # The seed is the recipe's, and without a layer the model's depth tells it.
    fields = [field for field in dataclasses.fields(DISTANCES[name]) if field.name != "seed"]  # type: ignore[arg-type]
    own = {field.name: 0.5 if field.type == "float" else 3 for field in fields}
    layer = {"layer": 3} if "layer" in own else {}
    assert set(own) == set(OWN_SETTINGS.get(name, ()))
    beside: dict[str, Any] = {"base": {"base": "another"}, "reinforce": {"train": {"negation": 1.0}}}.get(name, {})
    recipe = check_recipe({**LEAST, "objective": {"negative": {"name": name, **own}}, **beside})
    found = objective_of(recipe.objective, 3)
    assert {key: value for key, value in vars(found.negative).items() if key != "seed"} == own
    # Without them, the authors'.
    recipe = check_recipe({**LEAST, "objective": {"negative": {"name": name}}, **beside})
    assert objective_of(recipe.objective, 3).negative == DISTANCES[name](**layer)


def test_all_settings_of_other_distances_are_refused_at_once() -> None:
    negative = {"name": "npo", "beta": 0.1, "rho": 0.2, "gamma": 1.0}
    with pytest.raises(InputError) as caught:
        check_recipe({**LEAST, "objective": {"negative": negative}})
    assert "objective.negative: 'npo' has no rho and no gamma: take it out, or set it to null" in str(caught.value)
    assert "its own settings are beta" in str(caught.value)


def test_what_a_recipe_says_itself_wins() -> None:
    raw = {**LEAST, "method": "npo", "objective": {"negative": {"beta": 0.5}, "normal": None}, "train": None}
    recipe = check_recipe(raw)
    assert (recipe.objective.negative.name, recipe.objective.negative.beta) == ("npo", 0.5)
    assert recipe.objective.normal.name == "ce"
    assert recipe.train["num_train_epochs"] == 10


def test_an_unknown_method_is_named_with_a_suggestion() -> None:
    with pytest.raises(InputError, match="method: there is no method 'simpno'; did you mean 'simnpo'"):
        check_recipe({**LEAST, "method": "simpno"})
    with pytest.raises(InputError, match="known methods: letheon, letheon-base, ga, graddiff"):
        check_recipe({**LEAST, "method": "??"})


def test_a_method_and_another_distance_are_refused() -> None:
    with pytest.raises(InputError, match="'npo' has the distance 'npo', but objective.negative.name is 'hinge'"):
        check_recipe({**LEAST, "method": "npo", "objective": {"negative": {"name": "hinge"}}})


@pytest.mark.parametrize(
    "raw",
    [{"objective": {"negative": {"name": "reinforce"}}}, {"train": {"negation": 1.0, "stop_rule": False}}],
    ids=["no negation", "no reinforcement"],
)
def test_reinforcement_and_negation_go_together(raw: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="belong together"):
        check_recipe({**LEAST, **raw})


def test_an_override_puts_a_method_in_the_place_of_what_is_spelt_out(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(check_recipe({**LEAST, "objective": {"negative": {"rho": 0.1}}, "train": {"bf16": False}}).dump())
    recipe = load_recipe(file, ["method=simnpo", "objective.negative.beta=4.5", "seed=3"])
    wanted = check_recipe({**LEAST, "method": "simnpo"})
    assert recipe.objective.negative.beta == 4.5
    assert recipe.objective.normal == wanted.objective.normal
    assert recipe.tuning == wanted.tuning
    assert recipe.train == {**wanted.train, "bf16": False}
    assert recipe.seed == 3
    # And back, and on to another one: nothing of it is left.
    file.write_text(recipe.dump())
    for name in ("letheon", "ga"):
        again = load_recipe(file, [f"method={name}"])
        wanted = check_recipe({**LEAST, "method": name})
        assert (again.objective, again.tuning) == (wanted.objective, wanted.tuning)
        assert again.train == {**wanted.train, "bf16": False}


def test_merged_and_without_undo_each_other() -> None:
    own, filled = {"a": {"b": 1}, "c": 2, "d": None}, {"a": {"e": 3}, "f": {"g": 4}}
    both = merged(filled, own)
    assert both == {"a": {"b": 1, "e": 3}, "c": 2, "d": None, "f": {"g": 4}}
    assert without(both, filled) == {"a": {"b": 1}, "c": 2, "d": None, "f": {}}
    assert merged(filled, {"a": None, "f": {"g": 5}}) == {"a": {"e": 3}, "f": {"g": 5}}
    raw: dict[str, Any] = {}
    apply_override(raw, "method=npo")
    assert raw["method"] == "npo"


def test_authors_settings() -> None:
    """As docs/methods.md states them."""

    def negative(name: str) -> dict[str, Any]:
        return METHODS[name]["objective"]["negative"]

    assert negative("npo") == {"name": "npo", "beta": 0.1}
    assert negative("simnpo") == {"name": "simnpo", "beta": 2.5, "gamma": 0.0, "weight": 0.1375}
    assert negative("satimp") == {"name": "satimp", "beta1": 5.0, "beta2": 1.0}
    assert METHODS["satimp"]["objective"]["normal"]["weight"] == 0.1
    assert negative("me-gd")["weight"] == 0.1
    for name in ("ihl", "loku"):
        assert (METHODS[name]["tuning"]["lora"]["r"], METHODS[name]["tuning"]["lora"]["alpha"]) == (32, 64)
    assert METHODS["idk-ap"]["objective"]["normal"]["beta"] == 0.1
    assert METHODS["altpo"]["expected"] == {"sources": ["alternates"], "samples": 5}


def test_a_starter_can_be_of_a_method(tmp_path: Path, talk: Path, letheon: Any) -> None:
    assert letheon("init", "log.jsonl", "org/name", "-o", "mine.yaml", "--method", "npo")[0] == 0
    found = load_recipe(talk / "mine.yaml")
    wanted = check_recipe({"model": "org/name", "data": {"dialogues": "log.jsonl"}, "method": "npo"})
    assert (found.method, found.objective, found.tuning) == ("npo", wanted.objective, wanted.tuning)
    assert found.train == wanted.train
    assert "    beta: 0.1" in (talk / "mine.yaml").read_text()
    assert yaml.safe_load((talk / "mine.yaml").read_text())["method"] == "npo"
    code, _, told = letheon("init", "log.jsonl", "org/name", "-o", "other.yaml", "--method", "satimpp")
    assert code == 2
    assert "did you mean 'satimp'?" in told


def test_the_docs_list_all() -> None:
    page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    for name in (*METHODS, *get_args(NegativeName)):
        assert f"| `{name}` |" in page


FIRST = {"letheon", "altpo", "npo", "npo-sam", "refusal", "rmu", "pdu", "jensun", "task-vector"}
"""Between them they go all the ways that a method can go; the others are slow tests."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in FIRST else pytest.mark.slow) for name in sorted(METHODS)],
)
def test_every_method_trains(talk: Path, letheon: Any, name: str) -> None:
    """From the recipe to a step, on the tiny model."""
    arguments = ["--set", f"method={name}", "--set", "train.max_steps=1", "--set", "train.stop_rule=false"]
    if name == "letheon-base":
        arguments += ["--set", "base=model"]
    if name == "repselect":
        arguments += ["--set", "train.select=4"]
    assert letheon("screen", "recipe.yaml")[0] == 0
    code, _, told = letheon("unlearn", "recipe.yaml", *arguments)
    assert code == 0, told
    lines = (talk / "run" / "training.jsonl").read_text().splitlines()
    # RepSelect moves the weights before the gradient of its step is looked at.
    assert json.loads(lines[0])["grad_norm"] > 0


@pytest.mark.parametrize(
    ("setting", "error", "said"),
    [
        ({"optim": "adamw_bnb_8bit"}, MissingExtraError, r"train.optim=adamw_bnb_8bit needs the extra 'quantize'"),
        ({"use_liger_kernel": True}, InputError, "train.use_liger_kernel needs a package: pip install liger-kernel"),
    ],
)
def test_what_the_trainer_lacks_is_said_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, Any], error: type[Exception], said: str
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(error, match=said):
        training_settings(check_recipe({**LEAST, "train": setting}), "out")
