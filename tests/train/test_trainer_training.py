"""What must hold for a training run, whatever its numbers are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import TrainerCallback

from letheon import forward
from letheon.errors import InputError
from letheon.expected import Candidate, Target
from letheon.objective import (
    DPO,
    MASC,
    NLUL,
    NPO,
    UNDIAL,
    WGA,
    CrossEntropy,
    FlatTV,
    GradientAscent,
    InvertedHinge,
    JensUn,
    LogitFlattening,
    LogOddsHinge,
    MaxEntropy,
    Objective,
    ReferenceJS,
    ReferenceKL,
    SatImp,
    SimNPO,
)
from letheon.records import Dialogue
from letheon.train import Probe, UnlearnConfig, UnlearnTrainer
from letheon.train import trainer as trainer_module
from letheon.train.parts import StepSums
from letheon.train.probe import Prober
from letheon.train.scope import what_learns
from letheon.train.trainer import STATE_FILE
from letheon.train.watch import Watch

Make = Callable[..., UnlearnTrainer]
Resume = Callable[[Make, int], UnlearnTrainer]


def weights(trainer: UnlearnTrainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def logged(trainer: UnlearnTrainer, key: str) -> list[float]:
    return [row[key] for row in trainer.state.log_history if key in row]


def negative_loss(trainer: UnlearnTrainer) -> float:
    """The hinge on all old answers, of the model as it is."""
    losses = []
    for item in trainer.train_dataset.forget:
        ids, mask = torch.tensor([item.old.ids]), torch.tensor(item.old.answer_mask)
        with torch.no_grad():
            logits = trainer.model(ids).logits[0]
        at = mask.nonzero()[:, 0]
        picked, tokens = logits[at - 1], ids[0, at]
        odds = picked.softmax(dim=1).gather(1, tokens[:, None])[:, 0].logit()
        losses.append((odds - math.log(0.25)).relu().mean())
    return float(torch.stack(losses).mean())


@pytest.fixture
def regular_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look every so many steps, however far from enough it is."""
    monkeypatch.setattr("letheon.train.stop.SELDOM", 1)


@pytest.mark.parametrize(
    "objective",
    [
        None,
        Objective(NPO(), normal=CrossEntropy()),
        Objective(SimNPO()),
        Objective(DPO(), None),
        Objective(NLUL()),
        pytest.param(Objective(UNDIAL(), normal=ReferenceJS()), marks=pytest.mark.slow),
        pytest.param(Objective(FlatTV(), None), marks=pytest.mark.slow),
        Objective(JensUn(), None),
    ],
    ids=["default", "npo", "simnpo", "dpo", "nlul", "undial", "flat-tv", "jensun"],
)
def test_eight_micro_batches_of_1_are_one_batch_of_8(make_trainer: Make, objective: Objective | None) -> None:
    """Answers differ in length, so that a mean of means would be wrong."""
    whole = make_trainer(per_device_train_batch_size=8, objective=objective)
    pieces = make_trainer(per_device_train_batch_size=1, gradient_accumulation_steps=8, objective=objective)
    before = weights(whole)
    whole.train()
    pieces.train()
    assert distance(before, weights(whole)) > 1e-3
    # Adam's first steps magnify rounding where a gradient is nearly zero.
    assert distance(weights(whole), weights(pieces)) < 2e-5
    for key in ("negative", "positive", "normal", "scale", "weight_normal", "grad_norm"):
        assert logged(pieces, key) == pytest.approx(logged(whole, key), rel=1e-3, abs=1e-9), key
    assert len(logged(whole, "negative")) == 4


def test_micro_batches_whatever_the_model_does_with_counts(make_trainer: Make, memorised: Callable[[], Any]) -> None:
    """Of other models the Trainer averages the losses of micro-batches; ours are parts of a mean already."""
    norms = []
    for settings in (
        {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
        {"per_device_train_batch_size": 8},
    ):
        model = memorised()
        model.accepts_loss_kwargs = False
        trainer = make_trainer(model=model, max_steps=1, **settings)
        trainer.train()
        norms += logged(trainer, "grad_norm")
    assert norms[0] == pytest.approx(norms[1], rel=1e-3)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_chunks_of_logits_change_nothing(
    make_trainer: Make, lora: Callable[[], Any], tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def new(folder: str) -> UnlearnTrainer:
        # Directions would turn with the rounding: of so few dialogues several stand out alike. And Adam would magnify
        # it where a gradient is nearly zero.
        given = {"adapter_init": "random", "directions": 0, "adam_epsilon": 1e-5, "eval_dataset": rows}
        return make_trainer(folder, peft_config=lora() if tuning == "lora" else None, **given)

    rows = [{"messages": [{"role": "user", "content": "Sky?"}, {"role": "assistant", "content": "It is blue"}]}]
    whole = new("whole")
    whole.train()
    monkeypatch.setattr(forward, "CHUNK", 8)
    chunked = new("chunked")
    chunked.train()
    assert distance(weights(whole), weights(chunked)) < 2e-6
    for key in ("negative", "positive", "normal", "scale", "weight_normal"):
        assert logged(chunked, key) == pytest.approx(logged(whole, key), rel=1e-4), key
    assert chunked.evaluate()["eval_loss"] == pytest.approx(whole.evaluate()["eval_loss"], rel=1e-4)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_fast_paths_end_where_the_plain_path_does(
    make_trainer: Make, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, chunked and from the frozen prefix on, against a row for each sequence through the whole model."""
    from peft import LoraConfig

    upper = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], layers_to_transform=[1])

    def new(folder: str) -> UnlearnTrainer:
        given = {"adapter_init": "random", "directions": 0, "max_steps": 20, "learning_rate": 3e-4}
        # The order that padded batches have in any case.
        given["train_sampling_strategy"] = "group_by_length"
        trainer = make_trainer(folder, peft_config=upper if tuning == "lora" else None, **given)
        if tuning == "full":
            trainer.model.requires_grad_(False)
            trainer.model.model.layers[1].requires_grad_(True)
        return trainer

    with monkeypatch.context() as fast_paths:
        fast_paths.setattr(forward, "CHUNK", 40)
        fast = new("fast")
        fast.train()
    assert fast._collator.packed
    assert fast._collator.prefix is not None
    monkeypatch.setattr(trainer_module, "can_pack", lambda model: False)
    monkeypatch.setattr(forward, "can_pack", lambda model: False)
    monkeypatch.setattr("letheon.train.reference.frozen_prefix", lambda *given: None)
    plain = new("plain")
    before = weights(plain)
    plain.train()
    assert not plain._collator.packed
    assert plain._collator.prefix is None
    for key in ("negative", "positive", "normal"):
        assert logged(fast, key)[0] == pytest.approx(logged(plain, key)[0], rel=1e-5), key
    assert logged(fast, "grad_norm")[0] == pytest.approx(logged(plain, "grad_norm")[0], rel=1e-4)
    # Adam's steps magnify rounding; all of them together moved the weights by far more.
    assert distance(weights(fast), weights(plain)) < 1e-2 * distance(before, weights(plain))


@pytest.mark.parametrize(
    "killed_at", [4, pytest.param(6, marks=pytest.mark.slow), pytest.param(9, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("tuning", ["full", "lora", "upper layer", "upper layer in bfloat16"])
def test_a_killed_run_resumes_to_the_same_result(
    make_trainer: Make, killed_and_resumed: Resume, lora: Callable[[], Any], tuning: str, killed_at: int
) -> None:
    """Batches of 3 of 8 dialogues: an epoch has 3 steps, so that a checkpoint falls within and at the end of one.

    Of the 24 normal dialogues 8 are new in each epoch. To the bit, also where the lower layer is not run again.
    """
    from peft import LoraConfig

    upper = LoraConfig(r=4, target_modules=["q_proj", "up_proj"], layers_to_transform=[1])
    adapters = {"full": lambda: None, "lora": lora}
    rows = [
        {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}"}]}
        for n in range(24)
    ]
    settings: dict[str, Any] = {
        "per_device_train_batch_size": 3,
        "gradient_accumulation_steps": 1,
        "max_steps": 11,
        "save_strategy": "steps",
        # A checkpoint at 3, 6, 9: ends of epochs; at 5: within the second.
        "save_steps": {4: 3, 6: 5, 9: 8}[killed_at],
        "stop_rule": True,
        "stop_every": 2,
        "stop_probability": 1e-9,
        "stop_patience": 100,
        "stop_normal_budget": 2.0,
        "stop_kl_budget": 1.0,
        "probe_size": 4,
        "learning_rate": 3e-3,
        "normal_per_forget": 1,
        "bf16": tuning.endswith("bfloat16"),
        # Else all normal dialogues are looked at before the first step.
        "adapter_init": "random",
        "directions": 0,
    }

    def new(folder: str, **more: Any) -> UnlearnTrainer:
        adapter = adapters.get(tuning, lambda: upper)()
        return make_trainer(folder, normal_dataset=rows, peft_config=adapter, **settings, **more)

    unbroken = new("unbroken")
    unbroken.train()
    resumed = killed_and_resumed(partial(new, "killed"), killed_at)
    assert (unbroken._collator.prefix is not None) == tuning.startswith("upper")
    assert distance(weights(resumed), weights(unbroken)) == 0.0
    assert resumed.probes == unbroken.probes
    assert len(unbroken.probes) >= 4
    assert unbroken.probes[-1].step == 11
    assert resumed.stop == unbroken.stop
    assert resumed._weights.of == unbroken._weights.of
    assert resumed._weights.balance == unbroken._weights.balance
    assert logged(resumed, "negative") == logged(unbroken, "negative")
    # θ₀'s, although the resumed run trained from other weights.
    for part, references in unbroken._collator.reference.items():
        others = resumed._collator.reference[part]
        assert references.keys() == others.keys() != set()
        for number, reference in references.items():
            assert torch.equal(reference.log_prob, others[number].log_prob)
            assert torch.equal(reference.top_log_probs, others[number].top_log_probs)


def test_workers_may_load_the_data(make_trainer: Make) -> None:
    from peft import LoraConfig

    def new(folder: str, workers: int) -> UnlearnTrainer:
        upper = LoraConfig(r=4, target_modules=["q_proj"], layers_to_transform=[1])
        given = {"adapter_init": "random", "dataloader_num_workers": workers}
        return make_trainer(folder, peft_config=upper, **given)

    alone = new("alone", 0)
    alone.train()
    helped = new("helped", 1)
    helped.train()
    assert distance(weights(alone), weights(helped)) < 1e-5
    with pytest.raises(InputError, match="leave it off"):
        make_trainer(dataloader_persistent_workers=True, dataloader_num_workers=1)


@pytest.mark.usefixtures("regular_probes")
def test_a_finished_run_goes_on_from_its_checkpoint(make_trainer: Make) -> None:
    """The best state of the run before is there, although the finished run has tidied up."""
    settings: dict[str, Any] = {
        "stop_rule": True,
        "stop_every": 2,
        "stop_probability": 1e-9,
        "stop_normal_budget": 100.0,
        "stop_kl_budget": 100.0,
        "save_strategy": "steps",
        "save_steps": 4,
    }
    first = make_trainer(max_steps=4, **settings)
    first.train()
    assert first.stop is not None
    # With a budget that no state keeps, the best one stays that of the checkpoint.
    longer = make_trainer(max_steps=6, **settings)
    watch = longer._watch
    watch.rule.kl_budget = -1.0
    watch.restore = lambda state: Watch.restore(  # type: ignore[method-assign]
        watch, {**state, "rule": {**state["rule"], "kl_budget": -1.0}}
    )
    longer.train(resume_from_checkpoint=True)
    assert longer.stop is not None
    assert longer.stop.step == first.stop.step > 0
    assert distance(weights(longer), weights(first)) == 0.0


def test_a_checkpoint_without_our_state_is_refused(make_trainer: Make) -> None:
    make_trainer(save_strategy="steps", save_steps=2, max_steps=2).train()
    again = make_trainer(max_steps=4)
    folder = Path(again.args.output_dir) / "checkpoint-2"
    (folder / STATE_FILE).unlink()
    with pytest.raises(InputError, match="not a whole checkpoint"):
        again.train(resume_from_checkpoint=str(folder))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_equal_seeds_give_equal_weights_and_others_do_not(
    make_trainer: Make, lora: Callable[[], Any], tuning: str
) -> None:
    def run(seed: int) -> dict[str, Tensor]:
        trainer = make_trainer(seed=seed, peft_config=lora() if tuning == "lora" else None)
        trainer.train()
        return weights(trainer)

    first = run(1)
    torch.rand(7)
    assert distance(first, run(1)) == 0.0
    assert distance(first, run(2)) > 1e-5


def test_the_seed_is_that_of_a_new_adapter_and_of_all_draws(make_trainer: Make, lora: Callable[[], Any]) -> None:
    def new(seed: int) -> tuple[dict[str, Tensor], list[list[list[int]]]]:
        torch.rand(7)
        trainer = make_trainer(seed=seed, peft_config=lora(), adapter_init="random", robust=True)
        assert trainer._reader.seed == seed
        dataset = trainer.train_dataset
        return weights(trainer), [[one.encoded.ids for one in dataset[n]] for n in range(len(dataset))]

    first, again, other = new(1), new(1), new(2)
    assert distance(first[0], again[0]) == 0.0
    assert first[1] == again[1]
    assert distance(first[0], other[0]) > 1e-3
    assert first[1] != other[1]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_gradient_checkpointing_changes_nothing(make_trainer: Make, lora: Callable[[], Any], tuning: str) -> None:
    runs = []
    for on in (False, True):
        trainer = make_trainer(gradient_checkpointing=on, peft_config=lora() if tuning == "lora" else None)
        trainer.train()
        runs.append(weights(trainer))
    assert distance(*runs) < 1e-5


NEGATIVE = [
    LogOddsHinge(), MASC(), InvertedHinge(), NPO(), SimNPO(), DPO(), FlatTV(), NLUL(), GradientAscent(), WGA(),
    SatImp(), UNDIAL(), MaxEntropy(), LogitFlattening(), JensUn(),
]  # fmt: skip


@pytest.mark.parametrize("negative", NEGATIVE, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("tuning", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_lowers_the_negative_loss(make_trainer: Make, lora: Callable[[], Any], tuning: str, negative: Any) -> None:
    trainer = make_trainer(
        peft_config=lora() if tuning == "lora" else None,
        objective=Objective(negative),
        learning_rate=2e-2,
        max_steps=16,
    )
    before = negative_loss(trainer)
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    start = weights(trainer)
    trainer.train()
    assert negative_loss(trainer) < 0.8 * before
    changed = {name for name, value in weights(trainer).items() if not torch.equal(value, start[name])}
    if tuning == "lora":
        assert all("lora_" in name for name in trained)
    assert changed <= trained
    assert changed


def test_old_answers_have_the_distribution_of_the_model_before(make_trainer: Make) -> None:
    """The first loss of UNDIAL is, at θ = θ₀, the cross-entropy of the lowered distribution to the model's own."""
    term = UNDIAL(beta=3.0)
    trainer = make_trainer(
        objective=Objective(term, None), per_device_train_batch_size=8, max_steps=1, top_k=10_000, learning_rate=0.0
    )
    trainer.train()
    losses = []
    for item in trainer.train_dataset.forget:
        ids, at = torch.tensor([item.old.ids]), torch.tensor(item.old.answer_mask).nonzero()[:, 0]
        with torch.no_grad():
            logits = trainer.model(ids).logits[0, at - 1]
        lowered = logits - term.beta * torch.nn.functional.one_hot(ids[0, at], logits.size(1))
        losses.append(-(lowered.softmax(dim=1) * logits.log_softmax(dim=1)).sum(dim=1))
    assert logged(trainer, "negative") == [pytest.approx(float(torch.cat(losses).mean()), rel=1e-3)]


@pytest.mark.parametrize(
    ("objective", "parts"),
    [
        (Objective(None, normal=CrossEntropy()), {"positive", "normal"}),
        (Objective(GradientAscent(), None, None), {"negative"}),
        (Objective(JensUn(), None, None), {"negative", "positive"}),
    ],
    ids=["refusal", "ascent", "jensun"],
)
def test_what_no_term_reads_is_not_run(make_trainer: Make, objective: Objective, parts: set[str]) -> None:
    trainer = make_trainer(objective=objective, max_steps=2)
    assert {sequence.part for sequence in trainer.train_dataset[0]} == parts
    start = weights(trainer)
    trainer.train()
    assert distance(start, weights(trainer)) > 1e-4


def test_the_normal_weight_has_its_own_floor(make_trainer: Make) -> None:
    trainer = make_trainer(normal_floor=0.5, dual_rate=1.0, normal_budget=1.5, max_steps=8, learning_rate=1e-5)
    trainer.train()
    found = logged(trainer, "weight_normal")
    # Nothing is overrun: it falls by half a step each, down to its floor.
    assert found == pytest.approx([2.5, 2.0, 1.5, 1.0, 0.5, 0.5, 0.5, 0.5], abs=0.02)


def test_ordinary_fine_tuning_lowers_the_loss(
    make_trainer: Make, tiny_model: Callable[..., Any], normal: list[Dialogue]
) -> None:
    trainer = make_trainer(
        model=tiny_model(), forget_dataset=None, eval_dataset=normal, max_steps=20, learning_rate=1e-2
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < 0.5 * losses[0]
    assert trainer.evaluate()["eval_loss"] < 0.5 * before
    assert trainer.stop is None
    assert trainer.probes == []


def test_fine_tuning_to_a_reference(make_trainer: Make) -> None:
    """An objective that needs θ₀ gets it without anything to forget, too."""
    trainer = make_trainer(forget_dataset=None, objective=Objective(None, None, ReferenceKL()))
    trainer.train()
    assert all(math.isfinite(loss) for loss in logged(trainer, "loss"))


# -- the stop rule in a run ---------------------------------------------------------------------------------------

LOOSE: dict[str, Any] = {"stop_rule": True, "stop_normal_budget": 1000.0, "stop_kl_budget": 1000.0}


def test_stops_when_forgotten(make_trainer: Make) -> None:
    limits = {"stop_probability": 0.3, "stop_extraction": 0.3}
    trainer = make_trainer(**LOOSE, **limits, stop_every=2, max_steps=60, learning_rate=2e-2)
    trainer.train()
    assert trainer.probes[0].extraction_strength > 0.5
    assert trainer.stop is not None
    assert trainer.stop.reason.startswith("forgotten")
    assert trainer.stop.step == trainer.state.global_step < 60
    assert max(trainer.probes[-1].probability, trainer.probes[-1].extraction_strength) <= 0.3
    # The decision is made on the larger probe, and that one generates.
    assert trainer.probes[-1].repetition is not None


def test_a_clean_model_is_left_alone(
    make_trainer: Make, tiny_model: Callable[..., Any], lora: Callable[[], Any]
) -> None:
    for adapter in (None, lora()):
        trainer = make_trainer(model=tiny_model(), stop_rule=True, peft_config=adapter)
        before = weights(trainer)
        trainer.train()
        # Not even a new adapter is pointed at the data.
        assert distance(before, weights(trainer)) == 0.0
        assert trainer.stop is not None
        assert trainer.stop.step == 0
        assert trainer.stop.reason.startswith("already clean")
        assert len(trainer.probes) == 1


def test_a_loss_that_is_not_a_number_stops_the_run(make_trainer: Make) -> None:
    class Break(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 2:
                with torch.no_grad():
                    model.lm_head.weight[0] = math.nan

    for stop_rule in (False, True):
        trainer = make_trainer(callbacks=[Break()], max_steps=9, stop_rule=stop_rule)
        start = {name: value.clone() for name, value in what_learns(trainer.model).items()}
        trainer.train()
        assert trainer.stop is not None
        assert trainer.stop.reason.startswith("diverged")
        assert trainer.stop.reason.endswith("the weights are again those before training")
        assert not trainer.stop.within_guards
        assert trainer.state.global_step == 3
        assert all(torch.equal(value, start[name]) for name, value in what_learns(trainer.model).items())


def test_a_broken_model_is_not_forgotten_without_normal_data(make_trainer: Make) -> None:
    """No guard on normal data would see it, and no comparison with NaN is true."""

    class Break(TrainerCallback):  # type: ignore[misc]
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            with torch.no_grad():
                model.model.norm.weight.fill_(math.nan)

    trainer = make_trainer(
        callbacks=[Break()],
        normal_dataset=None,
        objective=Objective(LogOddsHinge(), None, None),
        stop_rule=True,
        stop_every=1,
    )
    trainer.train()
    assert trainer.stop is not None
    assert trainer.stop.reason.startswith("diverged")


def test_a_loss_beyond_all_bounds_is_no_crash(make_trainer: Make) -> None:
    """A perplexity that overflows a float, of a model whose numbers are still finite."""

    class Break(TrainerCallback):  # type: ignore[misc]
        def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            with torch.no_grad():
                model.lm_head.weight.mul_(-1e6)

    trainer = make_trainer(callbacks=[Break()], stop_rule=True, stop_every=1)
    trainer.train()
    assert trainer.stop is not None
    assert trainer.stop.reason.startswith("diverged")
    assert trainer.probes[-1].normal_ratio == math.inf


def test_what_several_processes_add_up_is_their_mean() -> None:
    """One whose loss is not finite ends all; one that has no old answer in a step adapts as the others do."""
    first, second = StepSums(), StepSums()
    first.losses, first.normal_loss, first.normal_tokens = {"negative": 3.0, "normal": math.nan}, 4.0, 10
    second.losses, second.normal_loss, second.normal_tokens = {"normal": 1.0}, 8.0, 30
    values: list[Tensor] = []
    for own in (first, second):
        own.average(lambda vector: values.append(vector) or vector)
    for own in (first, second):
        own.average(lambda vector: torch.stack(values[:2]).mean(dim=0))
        assert own.losses["negative"] == 1.5
        assert math.isnan(own.losses["normal"])
        assert (own.normal_loss, own.normal_tokens) == (6.0, 20.0)


@pytest.mark.usefixtures("regular_probes")
@pytest.mark.parametrize("babbles", [False, True])
def test_goes_back_to_the_best_state_within_the_guards(
    make_trainer: Make, monkeypatch: pytest.MonkeyPatch, babbles: bool
) -> None:
    """What passed a quick look is looked at whole, with answers, before it is said to be within the guards."""

    class Wreck(TrainerCallback):  # type: ignore[misc]
        """Ruins the model after the second probe."""

        def __init__(self) -> None:
            self.best: dict[str, Tensor] = {}

        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 4:
                self.best = {name: value.clone() for name, value in model.state_dict().items()}
                with torch.no_grad():
                    model.lm_head.weight.mul_(-3)

    wreck = Wreck()
    trainer = make_trainer(
        callbacks=[wreck],
        directions=0,
        stop_rule=True,
        stop_normal_budget=1000.0,
        # What of the wreck is within the guards has forgotten less than the state before it.
        stop_kl_budget=0.1,
        stop_every=2,
        stop_probability=1e-9,
        max_steps=8,
        learning_rate=3e-3,
    )
    if babbles:
        monkeypatch.setattr(Prober, "with_answers", lambda self, model, probe: replace(probe, repetition=0.9))
    trainer.train()
    assert trainer.stop is not None
    assert trainer.stop.step == 4
    assert "went back to step 4" in trainer.stop.reason
    assert trainer.stop.within_guards is not babbles
    assert ("no state passed the guards" in trainer.stop.reason, "repeat themselves" in trainer.stop.reason) == (
        babbles,
        babbles,
    )
    assert distance(weights(trainer), wreck.best) == 0.0
    assert not trainer._watch.best.file.exists()


@pytest.mark.usefixtures("regular_probes")
def test_says_when_no_state_passed_the_guards(make_trainer: Make) -> None:
    trainer = make_trainer(**LOOSE, stop_every=1, stop_patience=3, max_steps=9)
    trainer._watch.rule.kl_budget = -1.0
    trainer.train()
    assert trainer.stop is not None
    assert trainer.state.global_step == 3
    assert trainer.stop.reason.startswith("no progress for 3 steps (KL")
    assert trainer.stop.reason.endswith("no state passed the guards")
    assert not trainer.stop.within_guards


def test_the_negative_loss_rests_while_a_guard_is_breached(make_trainer: Make) -> None:
    """Held from the first probe on, gradient ascent is as if it were not there."""
    settings: dict[str, Any] = {"stop_every": 1, "stop_patience": 99, "balance": False}
    held = make_trainer(stop_rule=True, max_steps=5, **settings)
    held._watch.rule.kl_budget = -1.0
    held.train()
    assert held._watch.holding
    assert held._weights.of["negative"] == 1.0
    # Its negative loss no longer falls as one that is not held does.
    free = make_trainer(stop_rule=False, max_steps=5, balance=False)
    free.train()
    assert negative_loss(free) < negative_loss(held)


def test_full_tuning_along_directions_moves_linear_layers_only(make_trainer: Make) -> None:
    trainer = make_trainer(learning_rate=None, directions=2)
    assert trainer.args.learning_rate == 2e-2
    start = weights(trainer)
    trainer.train()
    moved = {name for name, value in weights(trainer).items() if not torch.equal(value, start[name])}
    assert moved == {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert {name.split(".")[-2] for name in moved} == {
        *("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"),
    }
    for name in moved:
        assert torch.linalg.matrix_rank(weights(trainer)[name] - start[name], rtol=1e-4) <= 2


@pytest.mark.parametrize("setting", [{"optim": "adafactor"}, {"weight_decay": 0.1}, {"fp16": True, "bf16": False}])
def test_another_optimizer_is_not_ignored(make_trainer: Make, setting: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="set directions=0"):
        make_trainer(directions=2, **setting)
    make_trainer(directions=0, **setting)


def test_full_tuning_without_directions_moves_all(make_trainer: Make) -> None:
    trainer = make_trainer(learning_rate=None, directions=0)
    assert trainer.args.learning_rate == 3e-5
    start = weights(trainer)
    trainer.train()
    assert all(not torch.equal(value, start[name]) for name, value in weights(trainer).items())


def test_the_token_that_pads_learns_as_well(make_trainer: Make, tiny_tokenizer: Any) -> None:
    """Where it ends turns too: an embedding drops the gradient of its padding index."""
    trainer = make_trainer(directions=0, weight_decay=0.0)
    pad = tiny_tokenizer.pad_token_id
    assert any(pad in item.old.ids for item in trainer.train_dataset.forget)
    table = trainer.model.get_input_embeddings()
    start = table.weight.detach().clone()
    trainer.train()
    moved = (table.weight.detach() - start).abs().amax(dim=1)
    other = tiny_tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert moved[pad] > 0.1 * moved[other] > 0


def test_the_last_step_is_probed(make_trainer: Make) -> None:
    trainer = make_trainer(**LOOSE, stop_every=4, max_steps=10, stop_probability=1e-9)
    trainer.train()
    assert [probe.step for probe in trainer.probes] == [0, 8, 10]


# -- data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("choice", ["all", "without-first", "informative"])
def test_token_choice(make_trainer: Make, choice: str) -> None:
    trainer = make_trainer(token_choice=choice, max_steps=1)
    trainer.train()
    batch = trainer._collator([trainer.train_dataset[n] for n in range(3)])
    rows = batch["row"]
    negative = batch["counts"][batch["part"][rows] == 0]
    assert bool(batch["counts"][batch["part"][rows] > 0].all())
    sizes = [sum(trainer.train_dataset.forget[n].old.answer_mask) for n in range(3)]
    wanted = {"all": sum(sizes), "without-first": sum(sizes) - 3}
    if choice in wanted:
        assert int(negative.sum()) == wanted[choice]
    for counts in negative.split(sizes):
        assert bool(counts.any())
        assert bool(counts[0]) or choice != "all"
        assert not bool(counts[0]) or choice != "without-first"


def test_each_epoch_draws_anew(make_trainer: Make) -> None:
    """The accelerate loader must pass the epoch on to the dataset, or the same draws would come again and again."""
    trainer = make_trainer(max_steps=6, per_device_train_batch_size=4)
    seen: list[tuple[int, int]] = []

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append((state.global_step, trainer.train_dataset.epoch))

    trainer.add_callback(Look())
    trainer.train()
    assert seen == [(1, 0), (2, 0), (3, 1), (4, 1), (5, 2), (6, 2)]


def test_settings_are_not_written_into(
    memorised: Callable[[], Any], tiny_tokenizer: Any, normal: list[Dialogue], tmp_path: Path
) -> None:
    """One config serves for several trainers: a learning rate chosen for an adapter would wreck full tuning."""
    args = UnlearnConfig(output_dir=str(tmp_path), use_cpu=True)
    trainer = UnlearnTrainer(memorised(), args, normal_dataset=normal, processing_class=tiny_tokenizer)
    assert args.learning_rate is None
    assert trainer.args.learning_rate == 3e-5


def test_expected_steps_extrapolate_what_remains(make_trainer: Make) -> None:
    trainer = make_trainer(stop_rule=True, stop_probability=0.1, stop_extraction=0.1)
    assert trainer.expected_steps() == 80
    levels = {"extraction_strength": 0.0, "normal_ratio": 1.0, "kl": 0.0}
    trainer.probes.extend(Probe(step=n, probability=p, **levels) for n, p in ((0, 0.8), (60, 0.4)))
    # Halved in 60 steps, three halvings to go in all.
    assert trainer.expected_steps() == 180
    trainer.probes.append(Probe(step=66, probability=0.11, **levels))
    assert trainer.expected_steps() == 80


@pytest.mark.parametrize("directions", [0, 4])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_bfloat16_on_a_cpu(make_trainer: Make, lora: Callable[[], Any], tuning: str, directions: int) -> None:
    """Reference, contrast and sensitivity are measured under autocast too, and the masters stay float32."""
    trainer = make_trainer(
        bf16=True,
        use_cpu=False,
        directions=directions,
        adapter_init="contrast" if directions else "random",
        peft_config=lora() if tuning == "lora" else None,
        learning_rate=1e-2,
        stop_rule=True,
        stop_every=2,
        stop_normal_budget=1e3,
        stop_kl_budget=1e3,
    )
    trainer.train()
    assert trainer.probes[-1].probability < trainer.probes[0].probability
    assert all(parameter.dtype == torch.float32 for parameter in trainer.model.parameters())


def test_the_last_probe_is_of_the_weights_that_are_left(make_trainer: Make, lora: Callable[[], Any]) -> None:
    """Autocast remembers what it has cast: a probe must not see the weights of the one before."""
    limits = {"stop_probability": 0.3, "stop_extraction": 0.3, "stop_every": 6}
    trainer = make_trainer(
        **LOOSE, **limits, bf16=True, use_cpu=False, max_steps=60, learning_rate=3e-2, peft_config=lora()
    )
    trainer.train()
    assert trainer.probes[-1].alpha < 1
    seen = trainer._watch.prober.whole(trainer.model, trainer.probes[-1].step)
    assert seen == replace(trainer.probes[-1], alpha=1.0, repetition=None)


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_damping_spares_normal_answers(make_trainer: Make, lora: Callable[[], Any], tuning: str) -> None:
    """Much damping is none; little takes another way."""
    found = []
    for folder, damping in (("none", None), ("much", 1e8), ("little", 0.01)):
        peft_config = lora() if tuning == "lora" else None
        trainer = make_trainer(folder, damping=damping, peft_config=peft_config, learning_rate=1e-2)
        trainer.train()
        found.append(weights(trainer))
    assert distance(found[0], found[1]) < 1e-4
    assert distance(found[0], found[2]) > 1e-3


def test_damping_must_be_positive() -> None:
    with pytest.raises(ValueError, match="damping=0: it must be above 0, or None"):
        UnlearnConfig(damping=0)


def test_a_preference_is_held_against_the_answer_that_was_drawn(make_trainer: Make, targets: list[Target]) -> None:
    """The reference of each expected answer is its own, whichever is drawn beside the old one."""
    trainer = make_trainer(objective=Objective(DPO(), None), max_steps=1)
    trainer.train()
    references = trainer._collator.reference["positive"]
    assert len(references) == sum(len(target.answers) for target in targets)
    for number, item in enumerate(trainer.train_dataset):
        old, expected = item[0], item[1]
        assert (old.part, expected.part) == ("negative", "positive")
        assert expected.encoded in trainer.train_dataset.forget[number].expected
        assert trainer.train_dataset.expected[expected.key] is expected.encoded
        assert len(references[expected.key].log_prob) == sum(expected.encoded.answer_mask)


def test_a_preference_without_an_expected_answer_is_refused(make_trainer: Make, targets: list[Target]) -> None:
    with pytest.raises(InputError, match="DPO needs an expected answer for each"):
        make_trainer(objective=Objective(DPO()), forget_dataset=[*targets[:-1], replace(targets[-1], candidates=())])


def test_an_expected_answer_that_does_not_fit_is_named(make_trainer: Make, targets: list[Target]) -> None:
    long = Target(targets[0].turn, (Candidate("No. " * 60, "data", weight=1.0),), "data")
    with pytest.raises(InputError, match="dialogue 'f0': an expected answer: the answer has .* at most 40 fit"):
        make_trainer(forget_dataset=[long], max_length=40)
