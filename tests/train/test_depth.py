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
from letheon.train.depth import AS_BLUNT, STEPS, pick
from letheon.train.scope import freeze_lower


def tried(layers: str, forgetting: float | None, kl: float | None, seconds: float) -> TriedLayers:
    return TriedLayers(layers=layers, forgetting=forgetting, kl=kl, seconds=seconds, prepare=9.0)


def three(*figures: tuple[float | None, float | None, float]) -> list[TriedLayers]:
    return [tried(layers, *of) for layers, of in zip(("all", "top-66%", "top-33%"), figures, strict=True)]


# -- the rule --------------------------------------------------------------------------------------------------------


def test_the_most_forgetting_in_a_second_at_equal_harm() -> None:
    trial = pick(three((0.8, 0.04, 2.0), (0.8, 0.04, 1.5), (0.4, 0.01, 0.5)), "top-66%")
    # KL grows with the square of the forgetting: a quarter of it for half of that is the same.
    assert [one.harm for one in trial.tried] == [1.0, pytest.approx(1.0), pytest.approx(1.0)]
    assert trial.chosen == "top-33%"
    assert trial.why == "forgets most in a second (0.8)"


def test_a_slower_shallow_depth_is_not_chosen() -> None:
    assert pick(three((0.8, 0.04, 1.0), (0.5, 0.01, 0.9), (0.2, 0.001, 0.5)), "top-66%").chosen == "all"


@pytest.mark.parametrize(("factor", "chosen"), [(0.99, "top-33%"), (1.01, "top-66%")])
def test_a_blunter_depth_is_not_chosen_however_fast(factor: float, chosen: str) -> None:
    kl = factor * AS_BLUNT * 0.04 / 4
    trial = pick(three((0.8, 0.04, 2.0), (0.8, 0.04, 1.5), (0.4, kl, 0.1)), "all")
    assert trial.chosen == chosen
    assert trial.tried[2].harm == pytest.approx(factor * AS_BLUNT)
    assert ("top-33% would forget more, but at more than 1.25 times the harm" in trial.why) == (chosen == "top-66%")


def test_less_kl_for_less_forgetting_does_not_flatter() -> None:
    """A third of the forgetting for a third of the KL: three times the harm of forgetting as much."""
    trial = pick(three((0.9, 0.03, 2.0), (0.9, 0.09, 1.0), (0.3, 0.01, 0.1)), "all")
    assert [one.harm for one in trial.tried] == [1.0, pytest.approx(3), pytest.approx(3)]
    assert trial.chosen == "all"
    assert "top-66% and top-33% would forget more" in trial.why


@pytest.mark.parametrize(
    ("figures", "who"),
    [
        (((0.01, 0.0, 2.0), (0.0, 0.0, 1.5), (-0.2, 0.1, 0.5)), "none forgot"),
        # Nothing to compare the others' harm with.
        (((0.01, 0.0, 2.0), (0.9, 0.0, 1.5), (0.9, 0.0, 0.5)), "all, which the others are compared with, forgot"),
        (((None, None, 2.0), (0.9, 0.1, 1.5), (None, None, 0.5)), "all, which the others are compared with, forgot"),
    ],
)
def test_where_nothing_can_be_compared_the_default_stands(figures: Any, who: str) -> None:
    for default in ("top-66%", "all"):
        trial = pick(three(*figures), default)
        assert (trial.chosen, trial.why) == (default, f"the default: in 8 steps {who} too little to tell")
        assert {one.harm for one in trial.tried} == {None}


def test_a_depth_that_diverged_or_forgot_nothing_is_not_chosen() -> None:
    trial = pick(three((0.5, 0.01, 2.0), (None, None, 0.1), (0.01, 0.0, 0.0001)), "top-66%")
    assert trial.chosen == "all"
    assert [one.harm for one in trial.tried] == [1.0, None, None]


def test_a_recorded_trial_chooses_the_same() -> None:
    trial = pick(three((0.8, 0.04, 2.0), (None, None, 1.5), (0.4, 0.01, 0.5)), "all")
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


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("kind", KINDS)
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
    assert all(one.forgetting is not None and one.seconds > 0 and one.prepare > 0 for one in trial.tried)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert [parameter.requires_grad for parameter in model.parameters()] == learning
    assert [*model.modules()] == modules
    assert vars(model) == attributes
    assert not list((tmp_path / "run").iterdir())


def test_figures_are_those_of_a_training(
    memorised: Callable[[], Any], choose: Choose, make_trainer: Callable[..., UnlearnTrainer]
) -> None:
    """The same steps in a run of its own, with the probes that a run takes."""
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
            stop_every=STEPS,
            stop_patience=100,
            stop_probability=0.1,
            stop_normal_budget=1000.0,
            stop_kl_budget=1000.0,
        )
        trainer.train()
        before, after = (next(p for p in trainer.probes if p.step == step and p.alpha == 1) for step in (0, STEPS))
        left = [max(1.0, p.probability / 0.1, p.extraction_strength / 0.1) for p in (before, after)]
        assert one.forgetting == pytest.approx(math.log(left[0] / left[1]), rel=1e-4)
        assert one.kl == pytest.approx(after.kl, rel=1e-4)


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


def test_progress_runs_through_all_depths(memorised: Callable[[], Any], choose: Choose) -> None:
    told: list[tuple[int, int]] = []
    choose(memorised(), progress=lambda done, total: told.append((done, total)))
    assert told == [*((done, 2 * STEPS) for done in (*range(STEPS + 1), *range(STEPS, 2 * STEPS + 1)))]


def test_a_training_shorter_than_the_trial_is_tried_as_it_is(memorised: Callable[[], Any], choose: Choose) -> None:
    trial = choose(memorised(), max_steps=2, warmup_steps=0)
    assert all(one.forgetting is not None for one in trial.tried)


def test_a_diverged_depth_has_no_figures(memorised: Callable[[], Any], choose: Choose) -> None:
    trial = choose(memorised(), Tuning(lora=Lora(init="random")), adapter_init="random", learning_rate=1e30)
    assert [(one.forgetting, one.kl, one.harm) for one in trial.tried] == [(None, None, None)] * 2
    assert trial.chosen == "top-66%"


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
    freeze_lower(model, Tuning(kind="full", layers="auto"))
