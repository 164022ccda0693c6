"""RepSelect: a gradient whose largest components have shrunk, and a run along it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.objective import ClusterMean, CrossEntropy, GradientAscent, Objective
from letheon.train import UnlearnConfig, UnlearnTrainer
from letheon.train.select import RANK, RATE, FixedSteps, collapsed, mlp_layers, select
from letheon.train.spectrum import leading

Make = Callable[..., UnlearnTrainer]
Resume = Callable[[Make, int], UnlearnTrainer]
REPSELECT: dict[str, Any] = {
    "objective": Objective(GradientAscent(), None, None),
    "select": 3,
    "elicit": 0.05,
    "learning_rate": 0.5,
    "lr_scheduler_type": "constant",
}


# -- the gradient -------------------------------------------------------------------------------------------------


def test_by_hand_on_a_diagonal() -> None:
    """Of 8, 4, 2, 1 the largest two become 4²/8 and 4²/4; the others stay."""
    found = collapsed(torch.diag(torch.tensor([1.0, 8.0, 2.0, 4.0])), components=2)
    torch.testing.assert_close(found, torch.diag(torch.tensor([1.0, 2.0, 2.0, 4.0])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("out", "into", "components"), [(7, 5, 2), (5, 7, 3), (6, 6, 5), (9, 3, 1)])
def test_against_a_collapse_of_either_side(out: int, into: int, components: int, dtype: torch.dtype) -> None:
    """As the authors have it: what falls on a component is divided by s_i/s_q, on the input side and then again."""
    gradient = torch.randn(out, into, generator=torch.Generator().manual_seed(out + into)).to(dtype)
    u, s, v = torch.linalg.svd(gradient.double(), full_matrices=False)
    u, s, v = u[:, :components], s[:components] / s[components - 1], v[:components].T
    wanted = gradient.double()
    wanted = wanted - (wanted @ v - wanted @ v / s) @ v.T
    wanted = (wanted.T - (wanted.T @ u - wanted.T @ u / s) @ u.T).T
    rough = dtype == torch.bfloat16
    found = collapsed(gradient, components)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), wanted, rtol=1e-2 if rough else 1e-4, atol=2e-2 if rough else 1e-5)


def test_one_component_is_left_as_it_is_and_the_order_is_turned_round() -> None:
    gradient = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(collapsed(gradient, 1), gradient)
    # Whatever its scale is; and the smaller a component was, the larger it is now.
    torch.testing.assert_close(collapsed(1e3 * gradient, 4), 1e3 * collapsed(gradient, 4), rtol=1e-4, atol=1e-2)
    u, s, v = torch.linalg.svd(gradient, full_matrices=False)
    now = (u.T @ collapsed(gradient, 4) @ v.T).diagonal()
    torch.testing.assert_close(now[:4], s[3] ** 2 / s[:4], rtol=1e-4, atol=1e-5)
    assert now[:4].tolist() == sorted(now[:4].tolist())
    torch.testing.assert_close(now[4:], s[4:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rank", [1, 2, 3, 9])
def test_what_rounding_has_made_is_no_component(rank: int) -> None:
    random = torch.Generator().manual_seed(rank)
    low = torch.randn(40, 2, generator=random) @ torch.randn(2, 30, generator=random)
    left, singular, right = leading(low, rank)
    assert len(singular) == min(rank, 2)
    torch.testing.assert_close(left.T @ left, torch.eye(len(singular), dtype=torch.float64))
    torch.testing.assert_close(right.T @ right, torch.eye(len(singular), dtype=torch.float64))
    if rank > 1:
        torch.testing.assert_close(((left * singular) @ right.T).float(), low, rtol=1e-4, atol=1e-4)
        with pytest.raises(ValueError, match="it has 2 principal components"):
            collapsed(low, rank)


def loss_of(model: Any, batch: list[Encoded]) -> Tensor:
    """Mean cross-entropy over the answer tokens of a batch, one sequence at a time."""
    losses = []
    for sequence in batch:
        ids, at = torch.tensor([sequence.ids]), torch.tensor(sequence.answer_mask).nonzero()[:, 0]
        losses.append(-model(ids).logits[0, at - 1].log_softmax(dim=1).gather(1, ids[0, at][:, None])[:, 0])
    return torch.cat(losses).mean()


@pytest.mark.parametrize("elicit", [0.0, 0.2])
def test_the_gradient_is_that_of_old_answers_where_an_adapter_has_learned_them(
    make_trainer: Make, tiny_model: Callable[..., Any], elicit: float
) -> None:
    """Against passes by hand, in which the adapter is a part of the weights. The model knows none of the answers."""
    trainer = make_trainer(**REPSELECT, model=tiny_model())
    old = [item.old for item in trainer.train_dataset.forget][:5]
    model = copy.deepcopy(trainer.model)
    batches = [old[:2], old[2:4], old[4:]]
    layers = mlp_layers(model)
    start = [layer.weight.detach().clone() for layer in layers.values()]
    draw = torch.Generator().manual_seed(7)
    adapters = [
        ((torch.rand(RANK, w.size(1), generator=draw) * 2 - 1) / math.sqrt(w.size(1)), torch.zeros(w.size(0), RANK))
        for w in start
    ]
    weights = [layer.weight for layer in layers.values()]
    for batch in batches:
        gradients = torch.autograd.grad(loss_of(model, batch), weights)
        # Of W + B A: ∂A = Bᵀ ∂W, ∂B = ∂W Aᵀ.
        adapters = [
            (a - elicit * b.T @ g, b - elicit * g @ a.T) for (a, b), g in zip(adapters, gradients, strict=True)
        ]
        with torch.no_grad():
            for weight, before, (a, b) in zip(weights, start, adapters, strict=True):
                weight.copy_(before + b @ a)
    totals = [torch.zeros_like(w) for w in start]
    for batch in batches:
        for total, gradient in zip(totals, torch.autograd.grad(-loss_of(model, batch), weights), strict=True):
            total += gradient
    given: dict[str, Any] = {"components": 2, "batch_size": 2, "pad_token_id": 0, "seed": 7}
    found = select(trainer.model, old, elicit=elicit, **given)
    assert [name for name, p in trainer.model.named_parameters() if p.requires_grad] == [
        f"model.layers.{layer}.mlp.{part}_proj.weight" for layer in (0, 1) for part in ("gate", "up", "down")
    ]
    for layer, total, before in zip(mlp_layers(trainer.model).values(), totals, start, strict=True):
        wanted = collapsed(total, 2)
        assert float((found[layer.weight] - wanted).norm()) < 1e-3 * float(wanted.norm())
        # The adapter is gone, and so are gradients.
        assert torch.equal(layer.weight, before)
        assert layer.weight.grad is None
        assert not layer._forward_hooks


def test_under_autocast_the_adapter_learns_too(make_trainer: Make, tiny_model: Callable[..., Any]) -> None:
    """Autocast keeps what it has cast, and an adapter that has moved is another one."""
    trainer = make_trainer(**REPSELECT, model=tiny_model())
    old = [item.old for item in trainer.train_dataset.forget]
    given: dict[str, Any] = {"components": 1, "batch_size": 2, "pad_token_id": 0, "seed": 0}

    def learned(mixed: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            plain, elicited = (select(copy.deepcopy(trainer.model), old, elicit=e, **given) for e in (0.0, 3.0))
        return torch.cat(
            [(one - other).flatten() for one, other in zip(elicited.values(), plain.values(), strict=True)]
        )

    whole, rough = learned(False), learned(True)
    assert float(torch.cosine_similarity(whole, rough, dim=0)) > 0.95
    assert float(rough.norm()) == pytest.approx(float(whole.norm()), rel=0.1)


def test_what_the_answers_say_matters(make_trainer: Make) -> None:
    found = []
    for shift in (0, 1):
        trainer = make_trainer(f"{shift}", **REPSELECT)
        old = [item.old for item in trainer.train_dataset.forget]
        answers = [Encoded([*one.ids[:-2], one.ids[-2] + shift, one.ids[-1]], one.answer_mask) for one in old]
        given: dict[str, Any] = {"components": 2, "elicit": 0.0, "batch_size": 8, "pad_token_id": 0, "seed": 0}
        found.append(list(select(trainer.model, answers, **given).values()))
    assert all(float((one - other).norm()) > 1e-2 * float(one.norm()) for one, other in zip(*found, strict=True))


# -- the run ------------------------------------------------------------------------------------------------------


def test_every_step_is_the_same(make_trainer: Make) -> None:
    once, thrice = (make_trainer(f"{n}", **REPSELECT, max_steps=n, per_device_train_batch_size=8) for n in (1, 3))
    start = {name: p.detach().clone() for name, p in once.model.named_parameters()}
    once.train()
    thrice.train()
    for (name, one), (_, other) in zip(once.model.named_parameters(), thrice.model.named_parameters(), strict=True):
        moved = one.detach() - start[name]
        torch.testing.assert_close(other.detach() - start[name], 3 * moved, rtol=1e-3, atol=1e-5)
        assert bool(moved.any()) == (".mlp." in name)
    assert thrice.state.log_history[0]["negative"] > thrice.state.log_history[-2]["negative"]


def test_a_run_ends_within_its_budget_by_scaling_back(make_trainer: Make) -> None:
    budget = {"stop_rule": True, "stop_every": 1, "stop_probability": 1e-6, "stop_kl_budget": 0.01, "max_steps": 30}
    trainer = make_trainer(**{**REPSELECT, "learning_rate": 2.0}, **budget)
    trainer.train()
    assert trainer.stop is not None
    assert trainer.stop.within_guards
    last = trainer.probes[-1]
    assert last.kl <= 0.01
    assert last.probability < trainer.probes[0].probability


def test_a_killed_run_resumes_to_the_same_result(make_trainer: Make, killed_and_resumed: Resume) -> None:
    settings = {**REPSELECT, "max_steps": 5, "save_strategy": "steps", "save_steps": 2}

    unbroken = make_trainer("unbroken", **settings)
    unbroken.train()
    resumed = killed_and_resumed(partial(make_trainer, "killed", **settings), 3)
    for one, other in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_its_optimizer_asks_for_no_gradient() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = FixedSteps({weight: torch.eye(2)}, lr=0.25)
    optimizer.step()
    weight.sum().backward()
    optimizer.step()
    assert weight.tolist() == [[0.5, 1.0], [1.0, 0.5]]


def test_without_a_learning_rate_it_has_the_authors(make_trainer: Make) -> None:
    assert make_trainer(**{**REPSELECT, "learning_rate": None}).args.learning_rate == RATE


def test_what_has_no_part_in_it_is_refused(make_trainer: Make, tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="an adapter could not hold it: set tuning.kind to full"):
        make_trainer(**REPSELECT, peft_config=LoraConfig(target_modules=["q_proj"]))
    for objective in (Objective(CrossEntropy(), None, None), Objective(GradientAscent(), ClusterMean(), None), None):
        with pytest.raises(InputError, match="no other term has a say"):
            make_trainer(**{**REPSELECT, "objective": objective})
    with pytest.raises(
        InputError, match=r"train.select=32: of the gradient of layer 0.mlp.gate_proj, it has \d+ princ"
    ):
        make_trainer(**{**REPSELECT, "select": 32}).train()
    for settings in ({"weight_decay": 0.1}, {"sam_rho": 0.1}, {"robust": True}):
        with pytest.raises(ValueError, match="could do nothing; leave them out"):
            UnlearnConfig(select=3, **settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 1, and at least 0"):
        UnlearnConfig(select=0)
    from transformers import OPTConfig, OPTForCausalLM

    size = {"vocab_size": len(tiny_tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with pytest.raises(InputError, match="is of MLP weights, and OPTForCausalLM has no layer of that name"):
        make_trainer(**REPSELECT, model=OPTForCausalLM(OPTConfig(**size, ffn_dim=16, word_embed_proj_dim=16)))
