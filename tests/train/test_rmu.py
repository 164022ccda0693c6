"""RMU in the trainer: steps that end at the layer that is read, and what is known of its states under θ₀."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from letheon import forward
from letheon import prefix as prefix_module
from letheon.errors import InputError
from letheon.forward import answer_states, collate
from letheon.layers import decoder_layers
from letheon.objective import (
    DPO,
    RMU,
    AdaptiveRMU,
    ClusterMean,
    CrossEntropy,
    Objective,
    ReferenceKL,
    ReferenceStates,
)
from letheon.records import Dialogue
from letheon.train import UnlearnConfig, UnlearnTrainer
from letheon.train import trainer as trainer_module

Make = Callable[..., UnlearnTrainer]
Resume = Callable[[Make, int], UnlearnTrainer]
READ = 2
"""The layer that is read, of four."""
ALONE = Objective(RMU(READ, steering=3.0), None, ReferenceStates(READ), weights=(1.0, 0.0, 20.0))
OBJECTIVES = {
    "rmu": ALONE,
    "adaptive": Objective(AdaptiveRMU(READ, scale=2.0), None, ReferenceStates(READ), weights=(1.0, 0.0, 20.0)),
    "no normal term": Objective(RMU(READ), None, None),
    "normal by logits": Objective(RMU(READ), None, ReferenceKL()),
    "expected by logits": Objective(AdaptiveRMU(READ), ClusterMean(), ReferenceStates(READ)),
    "states kept from dpo": Objective(DPO(), None, ReferenceStates(READ)),
}


@pytest.fixture
def make(make_trainer: Make, tiny_model: Callable[..., Any]) -> Make:
    """Make a trainer of four layers, of which 1 and 2 learn, by an adapter ("lora") or themselves ("upper").

    With "full" layer 0 does too. Not embeddings: those of words that normal dialogues alone have get a gradient of
    rounding in the first step, which Adam makes as large as any.
    """

    def new(folder: str = "run", tuning: str = "lora", objective: Objective = ALONE, **given: Any) -> UnlearnTrainer:
        model = tiny_model(num_hidden_layers=4)
        if tuning != "lora":
            model.requires_grad_(False)
            for layer in model.model.layers[0 if tuning == "full" else 1 : READ + 1]:
                layer.requires_grad_(True)
        adapter = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], layers_to_transform=[1, 2])
        settings = {"adapter_init": "random", "directions": 0, "learning_rate": 1e-3, **given}
        peft_config = adapter if tuning == "lora" else None
        return make_trainer(folder, model=model, peft_config=peft_config, objective=objective, **settings)

    return new


def weights(trainer: UnlearnTrainer) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def logged(trainer: UnlearnTrainer, key: str) -> list[float]:
    return [row[key] for row in trainer.state.log_history if key in row]


def run_of(trainer: UnlearnTrainer) -> list[int]:
    """Grows by the number of each layer that runs with gradients; the head's is 99."""
    ran: list[int] = []

    def note(number: int) -> Any:
        return lambda *_: ran.append(number) if torch.is_grad_enabled() else None

    for number, layer in enumerate(decoder_layers(trainer.model)):
        layer.mlp.register_forward_hook(note(number))
    trainer.model.get_output_embeddings().register_forward_hook(note(99))
    return ran


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_eight_micro_batches_of_1_are_one_batch_of_8(make: Make, name: str, tuning: str) -> None:
    whole = make("whole", tuning, OBJECTIVES[name], per_device_train_batch_size=8)
    before = weights(whole)
    whole.train()
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    pieces = make("pieces", tuning, OBJECTIVES[name], **split)
    pieces.train()
    assert distance(before, weights(whole)) > 1e-3
    assert distance(weights(whole), weights(pieces)) < 5e-5
    for key in ("negative", "positive", "normal", "grad_norm"):
        assert logged(pieces, key) == pytest.approx(logged(whole, key), rel=1e-3, abs=1e-7), key


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_runs_what_its_objective_reads(make: Make, name: str) -> None:
    trainer = make(objective=OBJECTIVES[name], max_steps=1)
    ran = run_of(trainer)
    trainer.train()
    # Layer 0 does not learn: it has run before, without gradients.
    assert trainer._collator.prefix is not None
    assert ran == ([1, 2, 3, 99] if OBJECTIVES[name].reads_logits else [1, 2])


@pytest.mark.parametrize("tuning", ["full", "lora", "upper"])
@pytest.mark.parametrize("name", ["rmu", "adaptive", "expected by logits"])
def test_fast_paths_end_where_the_plain_path_does(
    make: Make, tuning: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, left early and from the frozen prefix on, against a row for each sequence through the whole model."""
    given = {"tuning": tuning, "objective": OBJECTIVES[name], "max_steps": 20, "learning_rate": 3e-4}
    # The order that padded batches have in any case.
    given["train_sampling_strategy"] = "group_by_length"
    fast = make("fast", **given)
    fast.train()
    assert fast._collator.packed
    assert (fast._collator.prefix is not None) == (tuning != "full")
    monkeypatch.setattr(trainer_module, "can_pack", lambda model: False)
    monkeypatch.setattr(forward, "can_pack", lambda model: False)
    monkeypatch.setattr("letheon.train.reference.frozen_prefix", lambda *given: None)
    monkeypatch.setattr(
        trainer_module,
        "answer_states",
        lambda *given, with_logits: answer_states(*given, with_logits=True),
    )
    plain = make("plain", **given)
    before, ran = weights(plain), run_of(plain)
    plain.train()
    assert not plain._collator.packed
    assert 99 in ran
    for key in ("negative", "positive", "normal"):
        assert logged(fast, key)[:1] == pytest.approx(logged(plain, key)[:1], rel=1e-5, abs=1e-9), key
    assert logged(fast, "grad_norm")[0] == pytest.approx(logged(plain, "grad_norm")[0], rel=1e-4)
    assert distance(weights(fast), weights(plain)) < 1e-2 * distance(before, weights(plain))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_gradient_checkpointing_changes_nothing(make: Make, tuning: str) -> None:
    runs = []
    for on in (False, True):
        trainer = make(f"run-{on}", tuning, gradient_checkpointing=on)
        trainer.train()
        runs.append(weights(trainer))
    assert distance(*runs) < 1e-5


@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_killed_run_resumes_to_the_same_result(
    make: Make, killed_and_resumed: Resume, tuning: str, bf16: bool
) -> None:
    """Epochs have 3 steps, and each of them new normal dialogues, asked about when their turn comes; to the bit."""
    rows = [
        {"messages": [{"role": "user", "content": f"What is {n}?"}, {"role": "assistant", "content": f"It is {n}"}]}
        for n in range(24)
    ]
    settings = {
        "tuning": tuning,
        "objective": OBJECTIVES["adaptive"],
        "normal_dataset": rows,
        "per_device_train_batch_size": 3,
        "normal_per_forget": 1,
        "max_steps": 9,
        "save_strategy": "steps",
        "save_steps": 5,
        "learning_rate": 3e-3,
        "bf16": bf16,
    }
    unbroken = make("unbroken", **settings)
    unbroken.train()
    resumed = killed_and_resumed(partial(make, "killed", **settings), 6)
    assert distance(weights(resumed), weights(unbroken)) == 0.0
    assert logged(resumed, "negative") == logged(unbroken, "negative")
    assert resumed._prepared.norm == unbroken._prepared.norm
    states = unbroken._collator.states["normal"]
    assert len(states) == 24
    assert states.keys() == resumed._collator.states["normal"].keys()
    assert all(torch.equal(value, resumed._collator.states["normal"][key]) for key, value in states.items())


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_reference_states_are_those_before(make: Make, tiny_model: Callable[..., Any], tuning: str) -> None:
    trainer = make(tuning=tuning, objective=OBJECTIVES["adaptive"], learning_rate=1e-1)
    trainer.train()
    model, dataset = tiny_model(num_hidden_layers=4), trainer.train_dataset

    def before(sequence: Any) -> Tensor:
        return answer_states(model, collate([sequence], 0), READ)[0].detach()

    known = trainer._collator.states
    assert known.keys() == {"normal"}
    for number, states in known["normal"].items():
        torch.testing.assert_close(states, before(dataset.normal[number]), rtol=1e-4, atol=1e-4)
    lengths = torch.cat([before(item.old).norm(dim=1) for item in dataset.forget])
    assert trainer._prepared.norm == pytest.approx(float(lengths.mean()), rel=1e-5)
    # Nothing reads logits, so nobody has asked for θ₀'s.
    assert not any(trainer._collator.reference.values())


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_layers_above_stay_and_states_are_steered(make: Make, tuning: str) -> None:
    trainer = make(tuning=tuning, learning_rate=1e-2, max_steps=30, per_device_train_batch_size=8)
    start = weights(trainer)
    trainer.train()
    assert all(p.grad is None for p in decoder_layers(trainer.model)[READ + 1].parameters())
    changed = {name for name, value in weights(trainer).items() if not torch.equal(value, start[name])}
    assert changed
    assert not any("layers.3." in name or "lm_head" in name for name in changed)
    negative, normal = logged(trainer, "negative"), logged(trainer, "normal")
    assert negative[-1] < 0.5 * negative[0]
    # At θ₀ there is nothing to bring back.
    assert normal[0] == pytest.approx(0, abs=1e-9)
    assert normal[-1] < 0.2 * (negative[0] - negative[-1])


def test_balance_and_dual_weight_rest(make: Make) -> None:
    """They go by gradients at the logits and by a perplexity, of which these terms know nothing."""
    trainer = make(balance=True, dual_rate=5.0)
    trainer.train()
    assert logged(trainer, "scale") == [1.0] * 4
    assert logged(trainer, "weight_normal") == [20.0] * 4
    # Where the normal term reads logits the dual weight goes on.
    other = make("other", objective=OBJECTIVES["normal by logits"], normal_budget=0.5)
    other.train()
    assert logged(other, "scale") == [1.0] * 4
    assert logged(other, "weight_normal")[-1] > logged(other, "weight_normal")[0]


@pytest.mark.parametrize("choice", ["without-first", "informative"])
def test_token_choice(make: Make, choice: str) -> None:
    trainer = make(token_choice=choice, max_steps=1)
    trainer.train()
    batch = trainer._collator([trainer.train_dataset[n] for n in range(3)])
    assert not bool(batch["counts"][batch["part"][batch["row"]] == 0].all())
    assert math.isfinite(logged(trainer, "negative")[0])


@pytest.mark.parametrize("name", ["rmu", "expected by logits"])
@pytest.mark.parametrize("tuning", ["upper", "lora"])
def test_with_the_contrast(make: Make, name: str, tuning: str) -> None:
    """Adapters are pointed, and weights move along directions, by passes that go no further than the objective."""
    more = {"adapter_init": "contrast", "directions": 2, "learning_rate": 1e-2}
    trainer = make(tuning=tuning, objective=OBJECTIVES[name], max_steps=12, **more)
    start = weights(trainer)
    trainer.train()
    assert logged(trainer, "negative")[-1] < logged(trainer, "negative")[0]
    changed = {n for n, value in weights(trainer).items() if not torch.equal(value, start[n])}
    assert {n.split("layers.")[1][0] for n in changed} == {"1", "2"}


def test_probes_and_the_stop_rule_see_the_whole_model(make_trainer: Make, memorised: Callable[[], Any]) -> None:
    model = memorised()
    model.requires_grad_(False)
    model.model.layers[0].requires_grad_(True)
    objective = Objective(AdaptiveRMU(0, scale=5.0), None, ReferenceStates(0), weights=(1.0, 0.0, 1.0))
    trainer = make_trainer(
        model=model,
        objective=objective,
        directions=0,
        learning_rate=5e-3,
        max_steps=40,
        stop_rule=True,
        stop_every=2,
        stop_probability=0.3,
        stop_extraction=0.3,
        stop_normal_budget=1e6,
        stop_kl_budget=1e6,
    )
    trainer.train()
    assert trainer.stop is not None
    assert trainer.stop.reason.startswith("forgotten")
    assert trainer.probes[0].extraction_strength > 0.5
    assert trainer.probes[-1].probability <= 0.3


def test_a_kept_cache_holds_the_states_too(make: Make, tmp_path: Any) -> None:
    given = {"max_steps": 2, "keep_cache": True, "cache_dir": str(tmp_path / "cache")}
    found = []
    for run in ("first", "second"):
        trainer = make(run, **given)
        passes: list[Any] = []
        decoder_layers(trainer.model)[READ].register_forward_hook(lambda *given, passes=passes: passes.append(given))
        trainer.train()
        found.append((len(passes), weights(trainer)))
    assert found[0][0] == found[1][0] + 1
    assert distance(found[0][1], found[1][1]) == 0.0


def test_padded_where_a_model_cannot_pack(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = make("packed", train_sampling_strategy="group_by_length")
    packed.train()
    for module in (trainer_module, forward, prefix_module):
        monkeypatch.setattr(module, "can_pack", lambda model: False)
    padded = make("padded")
    padded.train()
    assert (packed._collator.packed, padded._collator.packed) == (True, False)
    assert padded._collator.prefix is not None
    assert logged(padded, "negative") == pytest.approx(logged(packed, "negative"), rel=1e-4)
    assert distance(weights(packed), weights(padded)) < 5e-5


def test_ordinary_fine_tuning_may_keep_states(make: Make, normal: list[Dialogue]) -> None:
    trainer = make(forget_dataset=None, objective=Objective(None, None, ReferenceStates(READ)), eval_dataset=normal)
    trainer.train()
    # But for what Adam makes of rounding.
    assert logged(trainer, "normal") == pytest.approx([0.0] * 4, abs=1e-3)
    assert math.isfinite(trainer.evaluate()["eval_loss"])


# -- refusals -----------------------------------------------------------------------------------------------------


def test_layers_that_would_get_no_gradient_are_refused(
    make: Make, make_trainer: Make, tiny_model: Callable[..., Any]
) -> None:
    model = tiny_model(num_hidden_layers=4)
    with pytest.raises(InputError, match="layers up to 3 learn, but the objective reads nothing above layer 2"):
        make_trainer(model=model, objective=ALONE)
    # Where another term reads logits they do get one.
    make_trainer(model=model, objective=OBJECTIVES["normal by logits"])
    model.requires_grad_(False)
    model.model.layers[3].requires_grad_(True)
    with pytest.raises(InputError, match="lowest layer that learns is 3, above layer 2"):
        make_trainer(model=model, objective=OBJECTIVES["normal by logits"])


def test_a_layer_that_is_not_there_is_refused(make_trainer: Make, tiny_model: Callable[..., Any]) -> None:
    objective = Objective(RMU(3), None, CrossEntropy())
    with pytest.raises(InputError, match="layer=3: the model has 4 layers"):
        make_trainer(model=tiny_model(num_hidden_layers=4), objective=objective)
    model = tiny_model(num_hidden_layers=4)
    model.config.num_hidden_layers = 7
    with pytest.raises(InputError, match="LlamaForCausalLM has no list of layers"):
        make_trainer(model=model, objective=objective)


def test_several_devices_under_one_process_are_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(UnlearnConfig, "n_gpu", 2)
    with pytest.raises(InputError, match="one device a process, and this has 2: show it one"):
        make()
