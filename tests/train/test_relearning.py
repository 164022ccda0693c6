from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.models import Model
from letheon.objective import CrossEntropy, GradientAscent, Objective
from letheon.prefix import frozen_prefix
from letheon.store import Store
from letheon.stress.relearn import BATCH, usual_rate
from letheon.train import UnlearnTrainer
from letheon.train.relearning import STEPS, Relearning, what_is_taught

Make = Callable[..., UnlearnTrainer]


def relearning(model: Model, old: list[Encoded], **other: Any) -> Relearning:
    return Relearning(model, old, **{"seed": 0, "pad_token_id": 0, "prefix": None, "autocast": nullcontext, **other})


def naive_gradient(model: Model, sequences: list[Encoded], weights: list[Any]) -> tuple[torch.Tensor, ...]:
    """One sequence at a time, of the mean over all answer tokens."""
    losses = []
    for one in sequences:
        ids, at = torch.tensor([one.ids]), torch.tensor(one.answer_mask).nonzero()[:, 0]
        log_probs = model(ids).logits[0, at - 1].log_softmax(dim=1)
        losses.append(-log_probs.gather(1, ids[0, at][:, None]))
    return torch.autograd.grad(torch.cat(losses).mean(), weights)


@pytest.fixture
def old(make_trainer: Make) -> list[Encoded]:
    """Four of the old answers: all of them are taught."""
    return [item.old for item in make_trainer("old").train_dataset.forget[:BATCH]]


def test_all_linear_weights_go_one_step_of_signs_and_come_back(
    memorised: Callable[[], Any], old: list[Encoded]
) -> None:
    model = memorised().eval()
    weights = what_is_taught(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    gradient = naive_gradient(model, old, weights)
    rate = STEPS * usual_rate(sum(p.numel() for p in model.parameters()))
    wanted = [w.detach() - rate * g.sign() for w, g in zip(weights, gradient, strict=True)]
    with relearning(model, old).taught(0):
        # A sign near zero may fall to either side.
        same = [
            torch.isclose(w, there, atol=rate / 10).float().mean() for w, there in zip(weights, wanted, strict=True)
        ]
        assert min(map(float, same)) > 0.98
        loss = sum(float(naive_loss(model, one)) for one in old)
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert loss < sum(float(naive_loss(model, one)) for one in old)
    assert all(p.grad is None for p in model.parameters())
    # Neither norms nor embeddings, nor the head.
    assert moved == {name for name, p in model.named_parameters() if any(p is w for w in weights)}
    assert all("proj" in name for name in moved)


@torch.no_grad()
def naive_loss(model: Model, sequence: Encoded) -> torch.Tensor:
    ids, at = torch.tensor([sequence.ids]), torch.tensor(sequence.answer_mask).nonzero()[:, 0]
    return -model(ids).logits[0, at - 1].log_softmax(dim=1).gather(1, ids[0, at][:, None]).mean()


def test_under_an_adapter_the_base_goes_and_the_adapter_stays(
    make_trainer: Make, lora: Callable[[], Any], old: list[Encoded]
) -> None:
    model = make_trainer(peft_config=lora()).model
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    with relearning(model, old).taught(0):
        moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.endswith("base_layer.weight") for name in moved)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == learning
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_gpt2_holds_its_weights_the_other_way_round() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=16, n_layer=2, n_head=2))
    taught = what_is_taught(model)
    names = {name for name, p in model.named_parameters() if any(p is one for one in taught)}
    layer = {"attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"}
    assert names == {f"transformer.h.{n}.{one}.weight" for n in (0, 1) for one in layer}
    with pytest.raises(InputError, match="no linear layer learns"):
        what_is_taught(model.requires_grad_(False))


def test_it_starts_from_the_frozen_prefix(make_trainer: Make, lora: Callable[[], Any], old: list[Encoded]) -> None:
    config = lora()
    config.layers_to_transform = [1]
    model = make_trainer(peft_config=config).model.eval()
    prefix = frozen_prefix(model, 0, Store())
    assert prefix is not None
    ways = [relearning(model, old, prefix=one) for one in (None, prefix)]
    there = []
    for way in ways:
        with way.taught(3):
            there.append([w.detach().clone() for w in what_is_taught(model)])
    for one, other in zip(*there, strict=True):
        assert float(torch.isclose(one, other, atol=1e-6).float().mean()) > 0.99


def test_weights_come_back_after_an_error(memorised: Callable[[], Any], old: list[Encoded]) -> None:
    model = memorised()
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError), relearning(model, old).taught(0):
        raise RuntimeError
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), before, strict=True))


def test_micro_batches_of_a_step_share_one_gradient(
    memorised: Callable[[], Any], old: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    way, asked = relearning(memorised(), old), []
    gradient = way._gradient
    monkeypatch.setattr(way, "_gradient", lambda sequences: asked.append(1) or gradient(sequences))
    for step in (0, 0, 1, 1, 1):
        with way.taught(step):
            pass
    assert len(asked) == 2


def test_what_is_taught_depends_on_step_and_seed_alone(make_trainer: Make, memorised: Callable[[], Any]) -> None:
    every = [item.old for item in make_trainer("every").train_dataset.forget]
    model = memorised()

    def place(step: int, seed: int = 0) -> torch.Tensor:
        with relearning(model, every, seed=seed).taught(step):
            return what_is_taught(model)[0].detach().clone()

    assert torch.equal(place(1), place(1))
    assert not torch.equal(place(1), place(2))
    assert not torch.equal(place(1), place(1, seed=1))


def test_dropout_rests_while_it_is_taught(memorised: Callable[[], Any], old: list[Encoded]) -> None:
    places = []
    for model in (memorised(), memorised().train()):
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.5
        with relearning(model, old).taught(0):
            places.append([weight.detach().clone() for weight in what_is_taught(model)])
    assert all(torch.equal(*weights) for weights in zip(*places, strict=True))


@pytest.mark.parametrize("kept", [CrossEntropy(), None], ids=["with normal", "alone"])
def test_a_step_has_the_negative_gradient_of_there_and_the_others_of_here(
    make_trainer: Make, one_descent: dict[str, Any], kept: Any
) -> None:
    """Against passes by hand through copies of the model."""
    objective = Objective(GradientAscent(), None, kept, weights=(0.5, 0.0, 1.0))
    trainer = make_trainer(objective=objective, robust=True, **one_descent)
    model = copy.deepcopy(trainer.model)
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    items = [s for n in range(8) for s in trainer.train_dataset[n]]

    def gradient(part: str, sign: float) -> dict[str, torch.Tensor]:
        names, parameters = zip(*model.named_parameters(), strict=True)
        found = naive_gradient(model, [s.encoded for s in items if s.part == part], list(parameters))
        return {name: sign * g for name, g in zip(names, found, strict=True)}

    here = gradient("normal", 1.0) if kept is not None else {}
    with relearning(model, [item.old for item in trainer.train_dataset.forget], seed=trainer.args.seed).taught(0):
        there = gradient("negative", -0.5)
    trainer.train()
    for name, p in trainer.model.named_parameters():
        wanted = start[name] - there[name] - here.get(name, torch.zeros(()))
        torch.testing.assert_close(p.detach(), wanted, rtol=1e-3, atol=2e-5)


def test_pieces_of_a_batch_are_led_to_the_same_place(make_trainer: Make, lora: Callable[[], Any]) -> None:
    """Batch 1 × accumulation 8 = batch 8 × 1."""
    adapter = lora()
    adapter.lora_dropout = 0.0
    trained = []
    for size in (8, 1):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
        trainer = make_trainer(f"{size}", robust=True, peft_config=adapter, max_steps=2, **split)
        trainer.train()
        trained.append([p.detach() for p in trainer.model.parameters() if p.requires_grad])
    for one, other in zip(*trained, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)
