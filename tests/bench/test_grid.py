from __future__ import annotations

import pytest

from letheon.bench.grid import LONGER, MOST, OWN, WITH_STOP, check_methods, flat, settings, trials
from letheon.errors import InputError
from letheon.methods import METHODS, merged
from letheon.recipe import check_recipe


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("method", [*METHODS, "npo" + WITH_STOP])
def test_every_trial_is_a_valid_recipe_and_no_two_are_alike(method: str, tuning: str) -> None:
    seen = []
    for trial in trials(method, tuning, MOST):
        raw = {"model": "m", "base": "b", "data": {"dialogues": "d"}, "screen": {"judges": ["embedding"]}}
        unfit = {("repselect", "lora"): "an adapter could not hold it", ("loku", "full"): "how an adapter starts"}
        if why := unfit.get((method, tuning)):
            # Its row will say so.
            with pytest.raises(InputError, match=why):
                check_recipe(merged(raw, settings(method, tuning, trial)))
            return
        recipe = check_recipe(merged(raw, settings(method, tuning, trial)))
        assert recipe.tuning.kind == tuning
        assert recipe.dump() not in seen
        seen.append(recipe.dump())
    assert len(seen) == MOST


def test_every_method_has_as_many_trials() -> None:
    for number in range(1, MOST + 1):
        assert {len(trials(method, "lora", number)) for method in METHODS} == {number}


def test_ours_begins_with_its_defaults_and_the_others_with_their_authors_form() -> None:
    assert trials("letheon", "lora", 1) == [{}]
    assert settings("letheon", "lora", {}) == {"tuning": {"kind": "lora"}}
    (first,) = trials("npo", "full", 1)
    assert first == {"train": {"learning_rate": 3e-5}}
    found = settings("npo", "full", first)
    assert found["objective"] == METHODS["npo"]["objective"]
    assert found["train"]["stop_rule"] is False


def test_a_baseline_under_our_stop_rule_differs_in_nothing_else() -> None:
    found = settings("npo" + WITH_STOP, "lora", {})
    assert found["train"].pop("stop_rule") is True
    plain = settings("npo", "lora", {})
    plain["train"].pop("stop_rule")
    assert found == plain


def test_own_parameters_are_of_methods_that_exist() -> None:
    assert set(OWN) <= set(METHODS)
    assert LONGER["train"]["num_train_epochs"] > 10


def test_unknown_methods_are_named_all_at_once() -> None:
    check_methods(["letheon", "npo", "npo+stop"])
    with pytest.raises(InputError) as caught:
        check_methods(["npo", "nop", "letheon+stop"])
    assert len(caught.value.faults) == 2


def test_settings_are_told_as_set_takes_them() -> None:
    assert flat({"train": {"learning_rate": 5e-4}, "stop": {"every": 3}}) == "train.learning_rate=0.0005 stop.every=3"
    assert flat({}) == ""
