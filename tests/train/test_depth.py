"""Choosing the depth: the rule on made-up figures, and the trial on the tiny model."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from letheon.errors import InputError
from letheon.expected import Target
from letheon.recipe import Full, Lora, Tuning
from letheon.records import Dialogue, LayerTrial, TriedLayers
from letheon.train import UnlearnConfig, UnlearnTrainer, adapter_for, choose_layers
from letheon.train.depth import AS_BLUNT, EVERY, PROBED, STEPS, _settings, pick
from letheon.train.scope import freeze_others

Curve = list[tuple[float, float]]
"""(forgetting, KL) by probe."""


def tried(layers: str, curve: Curve, seconds: float) -> TriedLayers:
    forgetting, kl = zip(*curve, strict=True) if curve else ((), ())
    return TriedLayers(layers=layers, steps=10, forgetting=forgetting, kl=kl, seconds=seconds, prepare=9.0)


def three(*figures: tuple[Curve, float]) -> list[TriedLayers]:
    return [tried(layers, *of) for layers, of in zip(("all", "top-66%", "top-33%"), figures, strict=True)]


# -- the rule --------------------------------------------------------------------------------------------------------

DEEPEST: Curve = [(0.2, 0.01), (0.4, 0.04), (0.8, 0.16)]


def test_the_most_forgetting_in_a_second_at_equal_harm() -> None:
    trial = pick(three((DEEPEST, 2.0), (DEEPEST, 1.5), (DEEPEST[:2], 0.5)), "top-66%")
    assert [one.harm for one in trial.tried] == [1.0, pytest.approx(1.0), pytest.approx(1.0)]
    assert trial.chosen == "top-33%"
    assert trial.why == "forgets most in a second (0.08)"


def test_of_equals_the_deepest() -> None:
    assert pick(three((DEEPEST, 2.0), (DEEPEST, 2.0), (DEEPEST[:2], 1.0)), "top-66%").chosen == "all"


def test_a_slower_shallow_depth_is_not_chosen() -> None:
    assert pick(three((DEEPEST, 1.0), ([(0.5, 0.01)], 0.9), ([(0.2, 0.001)], 0.5)), "top-66%").chosen == "all"


@pytest.mark.parametrize(("factor", "chosen"), [(0.99, "top-33%"), (1.01, "top-66%")])
def test_a_blunter_depth_is_not_chosen_however_fast(factor: float, chosen: str) -> None:
    trial = pick(three((DEEPEST, 2.0), (DEEPEST, 1.5), ([(0.4, factor * AS_BLUNT * 0.04)], 0.1)), "all")
    assert trial.chosen == chosen
    assert trial.tried[2].harm == pytest.approx(factor * AS_BLUNT)
    assert ("top-33% would forget more, but at more than 1.25 times the harm" in trial.why) == (chosen == "top-66%")


def test_harm_is_compared_at_the_same_forgetting() -> None:
    """Of two curves at the lesser end, between probes in proportion, from nothing on."""
    trial = pick(three((DEEPEST, 1.0), ([(0.3, 0.1)], 1.0), ([(1.0, 0.2), (1.6, 1.0)], 1.0)), "all")
    # (.01 + .04) / 2 of the deepest at .3; and .16 of the last at .8, half of which is forgotten at 1.6.
    assert [one.harm for one in trial.tried] == [1.0, pytest.approx(0.1 / 0.025), pytest.approx(0.16 / 0.16)]
    assert trial.chosen == "top-33%"
    # No more KL after as many steps, and four times as much for the same forgetting.
    blunt = pick(three((DEEPEST, 2.0), ([(0.4, 0.16)], 0.1), (DEEPEST, 2.0)), "all")
    assert blunt.tried[1].harm == pytest.approx(4)
    assert blunt.chosen == "all"


def test_a_curve_that_falls_back_counts_where_it_first_was() -> None:
    back = [(0.2, 0.01), (0.1, 0.9), (0.4, 0.04), (0.4, 0.9)]
    trial = pick(three((DEEPEST, 2.0), (back, 0.9), (DEEPEST, 2.0)), "all")
    assert trial.tried[1].harm == pytest.approx(1)
    assert trial.chosen == "top-66%"


@pytest.mark.parametrize(
    ("figures", "who"),
    [
        ((([(0.01, 0.0)], 2.0), ([(0.0, 0.0)], 1.5), ([(-0.2, 0.1)], 0.5)), "none forgot"),
        # Nothing to compare the others' harm with.
        ((([(0.01, 0.0)], 2.0), (DEEPEST, 1.5), (DEEPEST, 0.5)), "all, which the others are compared with, forgot"),
        ((([], 2.0), (DEEPEST, 1.5), ([], 0.5)), "all, which the others are compared with, forgot"),
    ],
)
def test_where_nothing_can_be_compared_the_default_stands(figures: Any, who: str) -> None:
    for default in ("top-66%", "all"):
        trial = pick(three(*figures), default)
        assert (trial.chosen, trial.why) == (default, f"the default: in 10 steps {who} too little to tell")
        assert {one.harm for one in trial.tried} == {None}


def test_a_depth_that_diverged_or_forgot_nothing_is_not_chosen() -> None:
    trial = pick(three((DEEPEST, 2.0), ([], 0.1), ([(0.01, 0.0)], 0.0001)), "top-66%")
    assert trial.chosen == "all"
    assert [one.harm for one in trial.tried] == [1.0, None, None]


def test_where_the_deepest_costs_nothing_it_is_chosen() -> None:
    trial = pick(three(([(0.4, 0.0)], 2.0), ([(0.4, 0.01)], 1.0), ([(0.4, 0.0)], 0.5)), "top-66%")
    assert [one.harm for one in trial.tried] == [1.0, None, None]
    assert trial.chosen == "all"


def test_a_recorded_trial_chooses_the_same() -> None:
    trial = pick(three((DEEPEST, 2.0), ([], 1.5), (DEEPEST[:2], 0.5)), "all")
    again = LayerTrial.model_validate_json(trial.model_dump_json())
    assert again == trial
    assert pick(again.tried, "all") == trial


# -- the trial -------------------------------------------------------------------------------------------------------

Choose = Callable[..., LayerTrial]


@pytest.fixture
def choose(tmp_path: Path, tiny_tokenizer: Any, targets: list[Target], normal: list[Dialogue]) -> Choose:
    """Choose for a model; keywords are settings."""

    def call(model: Any, tuning: Tuning | None = None, **settings: Any) -> LayerTrial:
        data = {"forget_dataset": targets, "normal_dataset": normal, "processing_class": tiny_tokenizer}
        data |= {name: settings.pop(name) for name in [*settings] if name.endswith("_dataset") or name == "progress"}
        given = {"output_dir": str(tmp_path / "run"), "use_cpu": True, "bf16": False, "learning_rate": 2e-2}
        return choose_layers(model, tuning, UnlearnConfig(**{**given, **settings}), **data)

    return call


KINDS = {
    "contrast": Tuning(),
    "random": Tuning(lora=Lora(init="random")),
    "full": Tuning(kind="full"),
    "free": Tuning(kind="full", full=Full(directions=0)),
}


def settings_of(tuning: Tuning) -> dict[str, Any]:
    return {"adapter_init": tuning.lora.init, "directions": tuning.full.directions}


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "kind", [kind if kind == "contrast" else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_the_model_is_put_back_as_it_was(
    memorised: Callable[[], Any], choose: Choose, tmp_path: Path, kind: str, bf16: bool
) -> None:
    model, tuning = memorised(), KINDS[kind]
    model.model.embed_tokens.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learning = [parameter.requires_grad for parameter in model.parameters()]
    modules, attributes = [*model.modules()], dict(vars(model))
    trial = choose(model, tuning, bf16=bf16, **settings_of(tuning))
    assert [one.layers for one in trial.tried] == ["all", "top-33%"]
    assert all(len(one.forgetting) == 3 and one.seconds > 0 and one.prepare > 0 for one in trial.tried)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == learning
    assert [*model.modules()] == modules
    assert vars(model) == attributes
    assert not list((tmp_path / "run").iterdir())


@pytest.mark.slow
def test_figures_are_those_of_a_training(
    memorised: Callable[[], Any],
    choose: Choose,
    make_trainer: Callable[..., UnlearnTrainer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same steps in a run of its own, with the probes that a run takes."""
    monkeypatch.setattr("letheon.train.stop.SELDOM", 1)
    trial = choose(memorised())
    for one in trial.tried:
        model = memorised()
        trainer = make_trainer(
            one.layers,
            model=model,
            peft_config=adapter_for(model, Tuning(layers=one.layers)),
            per_device_train_batch_size=2,
            learning_rate=2e-2,
            warmup_steps=4,
            max_steps=STEPS,
            stop_rule=True,
            stop_every=EVERY,
            stop_probability=1e-9,
            stop_normal_budget=1000.0,
            stop_kl_budget=1000.0,
        )
        trainer.train()
        before, *others = [probe for probe in trainer.probes if probe.alpha == 1]
        assert [probe.step for probe in others] == [*range(EVERY, STEPS + 1, EVERY)]
        left, *lefts = [max(1.0, p.probability / 0.1, p.extraction_strength / 0.1) for p in (before, *others)]
        assert one.forgetting == pytest.approx([math.log(left / now) for now in lefts], rel=1e-4)
        assert one.kl == pytest.approx([probe.kl for probe in others], rel=1e-4)


@pytest.mark.parametrize("kind", ["contrast", "full"])
def test_an_interrupted_trial_puts_the_model_back(
    memorised: Callable[[], Any], choose: Choose, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    after_step = UnlearnTrainer._after_step

    def interrupt(self: UnlearnTrainer, step: int) -> bool:
        after_step(self, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(UnlearnTrainer, "_after_step", interrupt)
    model = memorised()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt):
        choose(model, KINDS[kind])
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.slow
def test_progress_runs_through_all_depths(memorised: Callable[[], Any], choose: Choose) -> None:
    told: list[tuple[int, int]] = []
    choose(memorised(), progress=lambda done, total: told.append((done, total)))
    assert told == [*((done, 2 * STEPS) for done in (*range(STEPS + 1), *range(STEPS, 2 * STEPS + 1)))]


@pytest.mark.slow
def test_a_training_shorter_than_the_trial_is_tried_as_it_is(memorised: Callable[[], Any], choose: Choose) -> None:
    trial = choose(memorised(), max_steps=2, warmup_steps=0)
    assert all(one.steps == 2 and len(one.forgetting) == len(one.kl) == 1 for one in trial.tried)


def test_a_diverged_depth_has_no_figures(memorised: Callable[[], Any], choose: Choose) -> None:
    trial = choose(memorised(), Tuning(lora=Lora(init="random")), adapter_init="random", learning_rate=1e30)
    assert [(one.forgetting, one.kl, one.harm) for one in trial.tried] == [((), (), None)] * 2
    assert trial.chosen == "top-66%"


def test_a_trial_looks_at_many_and_has_the_other_settings_of_the_run() -> None:
    for size, probed in ((PROBED - 1, PROBED), (PROBED + 1, PROBED + 1)):
        args = UnlearnConfig(probe_size=size, seed=3, learning_rate=0.5, keep_cache=True, save_strategy="steps")
        found = _settings(args, "trial")
        assert (found.probe_size, found.seed, found.learning_rate) == (probed, 3, 0.5)
        assert (found.output_dir, found.cache_dir, found.keep_cache) == ("trial", None, False)
        assert (args.probe_size, args.keep_cache) == (size, True)


@pytest.mark.parametrize(("kind", "default"), [("lora", "top-66%"), ("full", "all")])
def test_nothing_is_tried_where_there_is_nothing_to_choose(
    tiny_model: Callable[..., Any], choose: Choose, kind: str, default: str
) -> None:
    tuning = Tuning(kind=kind, layers="auto")
    clean = choose(tiny_model(), tuning)
    assert clean == LayerTrial(chosen=default, why="the default: the model does not say the old answers as it is")
    single = choose(tiny_model(num_hidden_layers=1), tuning)
    assert single == LayerTrial(chosen=default, why="the default: the model has but one layer")


def test_faults_are_named(
    memorised: Callable[[], Any], choose: Choose, lora: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import get_peft_model

    with pytest.raises(InputError, match="the model has an adapter"):
        choose(get_peft_model(memorised(), lora()))
    with pytest.raises(InputError, match="forget_dataset is missing or empty"):
        choose(memorised(), forget_dataset=[])
    with pytest.raises(InputError, match="normal_dataset is missing or empty: what normal answers pay"):
        choose(memorised(), normal_dataset=None)
    with monkeypatch.context() as several:
        several.setattr(UnlearnConfig, "world_size", 2)
        with pytest.raises(InputError, match="each of 2 processes would choose for itself"):
            choose(memorised())
    for use in (lambda model: adapter_for(model, Tuning(layers="auto")), freeze_for_full):
        with pytest.raises(InputError, match=r"letheon\.choose_layers takes it"):
            use(memorised())


def freeze_for_full(model: Any) -> None:
    freeze_others(model, Tuning(kind="full", layers="auto"))
