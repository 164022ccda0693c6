"""Adapters that start as a part of the weights: the part by its formula, and an ordinary adapter at every moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, IA3Config, LoraConfig, get_peft_model
from torch import Tensor
from transformers import TrainerCallback

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.forward import hold_in_bf16
from letheon.models import save_model
from letheon.objective import CrossEntropy, InvertedHinge, Objective
from letheon.train import UnlearnTrainer
from letheon.train.contrast import lora_layers
from letheon.train.fila import FLOOR, doubled, fisher, leading_part, second_halves, start_adapters

Make = Callable[..., UnlearnTrainer]
Resume = Callable[[Make, int], UnlearnTrainer]
LOKU: dict[str, Any] = {
    "objective": Objective(InvertedHinge(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "adapter_init": "fila",
    "weight_decay": 0.1,
    "learning_rate": 1e-2,
}


def adapter(**changes: Any) -> LoraConfig:
    return LoraConfig(**{"r": 3, "lora_alpha": 12, "target_modules": ["q_proj", "up_proj", "down_proj"], **changes})


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model.eval()(torch.arange(3, 40)[None]).logits
    return found


def changes(model: Any) -> list[Tensor]:
    return [layer.get_delta_weight("default").detach() for layer in lora_layers(model).values()]  # type: ignore[operator]


# -- the part of a weight -----------------------------------------------------------------------------------------


def test_by_hand_the_weighed_row_comes_first() -> None:
    # D W has the singular values 3, 20 and 1.
    left, right = leading_part(torch.diag(torch.tensor([3.0, 2.0, 1.0])), torch.tensor([1.0, 100.0, 1.0]), rank=1)
    torch.testing.assert_close(left @ right, torch.diag(torch.tensor([0.0, 2.0, 0.0])))
    # The singular value is shared: S^½ on either side, and D⁻¹ on the left.
    assert float(right.norm()) == pytest.approx(20**0.5)
    assert float(left.norm()) == pytest.approx(20**0.5 / 10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("out", "into", "rank"), [(7, 5, 2), (5, 7, 2), (6, 6, 6), (1, 4, 1), (9, 3, 3)])
def test_against_a_whole_decomposition(out: int, into: int, rank: int, dtype: torch.dtype) -> None:
    random = torch.Generator().manual_seed(out * into)
    weight = torch.randn(out, into, generator=random).to(dtype)
    importance = torch.rand(out, generator=random) * 10
    left, right = leading_part(weight, importance, rank)
    scale = torch.diag(importance.double().sqrt())
    u, s, v = torch.linalg.svd(scale @ weight.double(), full_matrices=False)
    wanted = scale.inverse() @ u[:, :rank] @ torch.diag(s[:rank]) @ v[:rank]
    torch.testing.assert_close((left @ right).double(), wanted, rtol=1e-4, atol=1e-5)
    # Its factors are those of the formula, up to their signs.
    torch.testing.assert_close((right @ right.T).double(), torch.diag(s[:rank]), rtol=1e-4, atol=1e-4)


def test_no_approximation_of_the_rank_is_better_where_it_matters() -> None:
    random = torch.Generator().manual_seed(0)
    weight, importance = torch.randn(8, 6, generator=random), torch.rand(8, generator=random) * 20

    def loss(part: Tensor) -> float:
        return float((importance[:, None] * (weight - part).square()).sum())

    found = torch.matmul(*leading_part(weight, importance, 2))
    plain = torch.matmul(*leading_part(weight, torch.ones(8), 2))
    assert loss(found) < loss(plain)
    assert float((weight - plain).square().sum()) < float((weight - found).square().sum())
    for _ in range(20):
        left, right = leading_part(weight, importance, 2)
        left += 0.05 * torch.randn(8, 2, generator=random)
        right += 0.05 * torch.randn(2, 6, generator=random)
        assert loss(found) < loss(left @ right)


def test_rows_that_nothing_leans_on_and_directions_that_are_not_there_are_left_out() -> None:
    weight = torch.tensor([[1.0, 2.0], [5.0, 5.0], [2.0, 4.0]])
    left, right = leading_part(weight, torch.tensor([1.0, 0.0, 4.0]), rank=2)
    # Without the second row the weight has but one direction.
    assert (left.shape, right.shape) == ((3, 1), (1, 2))
    torch.testing.assert_close(left @ right, weight * torch.tensor([1.0, 0.0, 1.0])[:, None])
    assert leading_part(weight, torch.zeros(3), 2)[0].shape == (3, 0)


# -- the Fisher information ---------------------------------------------------------------------------------------


def test_fisher_is_the_mean_of_each_answers_squared_gradient(
    make_trainer: Make, tiny_model: Callable[..., Any]
) -> None:
    """Against passes by hand through a model that knows none of the answers: else all gradients are nearly zero."""
    trainer = make_trainer(**LOKU, model=tiny_model(), peft_config=adapter())
    sequences = [item.old for item in trainer.train_dataset.forget][:3]
    layers = lora_layers(trainer.model)
    found = fisher(trainer.model, layers, sequences, pad_token_id=0)
    weights = {name: layer.base_layer.weight.requires_grad_() for name, layer in layers.items()}  # type: ignore[union-attr, operator]
    wanted = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for sequence in sequences:
        ids, at = torch.tensor([sequence.ids]), torch.tensor(sequence.answer_mask).nonzero()[:, 0]
        picked = trainer.model(ids).logits[0, at - 1].log_softmax(dim=1).gather(1, ids[0, at][:, None])
        gradients = torch.autograd.grad(picked.sum(), list(weights.values()))
        for name, gradient in zip(weights, gradients, strict=True):
            wanted[name] += gradient.square() / len(sequences)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert float((found[name] - value).norm()) < 1e-3 * float(value.norm())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    # What the answers say matters, not just where they are.
    others = [type(s)([*s.ids[:-2], s.ids[-2] + 1, s.ids[-1]], s.answer_mask) for s in sequences]
    for name, value in fisher(trainer.model, layers, others, pad_token_id=0).items():
        assert float((value - found[name]).norm()) > 0.05 * float(value.norm())


# -- through the trainer ------------------------------------------------------------------------------------------


@pytest.fixture
def trained(make_trainer: Make) -> tuple[UnlearnTrainer, dict[str, Tensor], Tensor]:
    """A trainer that is done, with the weights and logits from before."""
    trainer = make_trainer(**LOKU, peft_config=adapter())
    before = {name: value.clone() for name, value in trainer.model.state_dict().items() if "lora" not in name}
    said = logits(trainer.model)
    trainer.train()
    return trainer, before, said


def test_as_many_normal_answers_as_old_ones_are_weighed(
    tiny_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences, weighed = [Encoded([5, 6, 7 + n], [False, False, True]) for n in range(9)], []

    def noted(model: Any, layers: Any, some: list[Encoded], *given: Any) -> Any:
        weighed.append(some)
        return fisher(model, layers, some, *given)

    monkeypatch.setattr("letheon.train.fila.fisher", noted)
    start_adapters(get_peft_model(tiny_model(), adapter(r=4)), sequences[:3], sequences[3:], 0)
    assert weighed == [sequences[:3], sequences[3::2]]


def test_adapters_start_as_the_leading_part_and_change_nothing(make_trainer: Make) -> None:
    trainer = make_trainer(**{**LOKU, "learning_rate": 0.0}, peft_config=adapter())
    said = logits(trainer.model)
    old = [item.old for item in trainer.train_dataset.forget]
    layers, normal = lora_layers(trainer.model), trainer.train_dataset.normal
    by_old, by_normal = (fisher(trainer.model, layers, some, 0) for some in (old, normal[: len(old)]))
    trainer.train()
    torch.testing.assert_close(logits(trainer.model), said, rtol=1e-4, atol=1e-4)
    for name, layer in layers.items():
        down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight  # type: ignore[index]
        assert (len(down), up.size(1)) == (6, 6)
        importance = (by_old[name] / (by_normal[name] + FLOOR)).sum(dim=1)
        wanted = torch.matmul(*leading_part(layer.base_layer.weight, importance, 3))  # type: ignore[arg-type, union-attr]
        # The scale is alpha / r = 4, whatever the rank has become.
        torch.testing.assert_close(4 * up[:, :3] @ down[:3], wanted, rtol=1e-3, atol=1e-4)
        assert torch.equal(up[:, 3:], -up[:, :3])
        assert torch.equal(down[3:], down[:3])


@pytest.mark.parametrize("sam_rho", [0.0, 0.05])
def test_the_second_half_and_the_base_stay_to_the_bit(make_trainer: Make, sam_rho: float) -> None:
    """With weight decay, clipping and SAM."""
    start = make_trainer("start", **{**LOKU, "learning_rate": 0.0}, peft_config=adapter())
    trainer = make_trainer("run", **LOKU, sam_rho=sam_rho, peft_config=adapter())
    base = {name: value.clone() for name, value in trainer.model.state_dict().items() if "lora" not in name}
    start.train()
    trainer.train()
    for (held, where), (begun, _) in zip(second_halves(trainer.model), second_halves(start.model), strict=True):
        assert torch.equal(held[where], begun[where])
        assert not torch.equal(held, begun)
    assert all(torch.equal(trainer.model.state_dict()[name], value) for name, value in base.items())
    # Another training of the same adapter would train all of it.
    trainer.model(torch.tensor([[5, 6]])).logits.sum().backward()
    assert all(bool(held.grad[where].any()) for held, where in second_halves(trainer.model))  # type: ignore[index]


def test_the_gradient_norm_is_that_of_what_learns(make_trainer: Make) -> None:
    trainer = make_trainer(**LOKU, max_steps=1, max_grad_norm=1e9, peft_config=adapter())
    norms: list[float] = []

    class Look(TrainerCallback):  # type: ignore[misc]
        def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
            halves = second_halves(trainer.model)
            assert not any(bool(held.grad[where].any()) for held, where in halves)  # type: ignore[index]
            norms.append(float(sum(held.grad.square().sum() for held, _ in halves) ** 0.5))  # type: ignore[union-attr]

    trainer.add_callback(Look())
    trainer.train()
    assert trainer.state.log_history[0]["grad_norm"] == pytest.approx(norms[0], rel=1e-4)


def test_it_is_saved_as_an_ordinary_adapter_of_the_untouched_base(
    trained: Any, memorised: Callable[[], Any], tiny_tokenizer: Any, tmp_path: Path
) -> None:
    trainer, _, said = trained
    after = logits(trainer.model)
    assert float((after - said).abs().max()) > 0.1
    with trainer.model.disable_adapter():
        assert torch.equal(logits(trainer.model), said)
    memorised().save_pretrained(tmp_path / "base")
    trainer.model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    save_model(trainer.model, tiny_tokenizer, tmp_path / "adapter")
    again = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    torch.testing.assert_close(logits(again), after)
    torch.testing.assert_close(logits(again.merge_and_unload()), after, rtol=1e-3, atol=1e-3)


def test_the_line_leads_from_before_to_after(make_trainer: Make) -> None:
    trainer = make_trainer(**LOKU, peft_config=adapter())
    said, seen = logits(trainer.model), []
    trainer._finish = lambda: seen.append(True)  # type: ignore[method-assign]
    trainer.train()
    line, after = trainer._line, logits(trainer.model)
    assert seen
    assert line is not None
    line.end()
    far = []
    for alpha in (0.0, 0.25, 0.75, 1.0):
        line.go(alpha)
        far.append(float((logits(trainer.model) - said).norm()))
    assert far[0] < 1e-3 * far[-1]
    assert far == sorted(far)
    assert torch.equal(logits(trainer.model), after)
    line.close()


def test_of_a_negated_adapter_the_change_is_negated(make_trainer: Make) -> None:
    there, back = (
        make_trainer(f"{n}", **LOKU, peft_config=adapter(), **more) for n, more in enumerate(({}, {"negation": 2.0}))
    )
    there.train()
    back.train()
    for one, other in zip(changes(there.model), changes(back.model), strict=True):
        torch.testing.assert_close(other, -2 * one, rtol=1e-3, atol=1e-5)
        assert bool(one.any())


def test_a_killed_run_resumes_to_the_same_result(make_trainer: Make, killed_and_resumed: Resume) -> None:
    settings = {**LOKU, "max_steps": 5, "save_strategy": "steps", "save_steps": 2}

    unbroken = make_trainer("unbroken", **settings, peft_config=adapter())
    unbroken.train()
    resumed = killed_and_resumed(lambda **more: make_trainer("killed", **settings, peft_config=adapter(), **more), 3)
    for one, other in zip(unbroken.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_base_held_in_bfloat16(make_trainer: Make, memorised: Callable[[], Any]) -> None:
    model = memorised()
    hold_in_bf16(model)
    trainer = make_trainer(**LOKU, bf16=True, model=model, peft_config=adapter())
    with torch.autocast("cpu", torch.bfloat16):
        said = logits(trainer.model)
    trainer.train()
    line = trainer.state.log_history[0]
    assert line["grad_norm"] > 0
    with torch.autocast("cpu", torch.bfloat16), trainer.model.disable_adapter():
        assert torch.equal(logits(trainer.model), said)


def test_layers_that_hold_their_weights_the_other_way_round(make_trainer: Make, tiny_tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    size = {"vocab_size": len(tiny_tokenizer), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(**size, initializer_range=0.2, bos_token_id=0, eos_token_id=1)).eval()
    config = adapter(target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)
    trainer = make_trainer(**LOKU, model=model, peft_config=config)
    said = logits(trainer.model)
    trainer.train()
    assert trainer._line is not None
    for layer in lora_layers(trainer.model).values():
        up, down = layer.lora_B["default"].weight.detach(), layer.lora_A["default"].weight.detach()  # type: ignore[index]
        # A direction of the weight itself: what is left without it has less.
        part = -4 * up[:, 3:] @ down[3:]
        weight = layer.base_layer.weight.T  # type: ignore[union-attr, operator]
        assert float((weight - part).norm()) < float(weight.norm())
    assert float((logits(trainer.model) - said).abs().max()) > 1e-2


def test_twice_the_rank_at_the_same_scale() -> None:
    config = adapter(rank_pattern={"q_proj": 2}, alpha_pattern={"q_proj": 5})
    twice = doubled(config)
    assert (twice.r, twice.lora_alpha) == (6, 24)
    assert (twice.rank_pattern, twice.alpha_pattern) == ({"q_proj": 4}, {"q_proj": 10})
    assert (config.r, config.lora_alpha, config.rank_pattern) == (3, 12, {"q_proj": 2})
    steady = doubled(adapter(use_rslora=True))
    assert steady.lora_alpha / steady.r**0.5 == pytest.approx(12 / 3**0.5)


def test_what_cannot_start_so_is_refused(make_trainer: Make, memorised: Callable[[], Any]) -> None:
    with pytest.raises(InputError, match="is for LoRA, not for IA3Config"):
        make_trainer(**LOKU, peft_config=IA3Config(target_modules=["q_proj"], feedforward_modules=[]))
    with pytest.raises(InputError, match="give datasets of both"):
        make_trainer(
            **{**LOKU, "objective": Objective(InvertedHinge(), None, None)}, normal_dataset=[], peft_config=adapter()
        )
    with pytest.raises(InputError, match="but .*embed_tokens is Embedding: leave it out of target_modules"):
        make_trainer(**LOKU, peft_config=adapter(target_modules=["embed_tokens", "q_proj"]))
    model = memorised()
    model.is_quantized = True
    model.hf_quantizer = SimpleNamespace(is_trainable=True)
    with pytest.raises(InputError, match="which are quantised here"):
        make_trainer(**LOKU, model=model, peft_config=adapter())
