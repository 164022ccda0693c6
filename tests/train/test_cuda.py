"""A GPU gives what a CPU gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from letheon.errors import missing_modules
from letheon.models import load_model, save_model
from letheon.objective import Objective
from letheon.train import UnlearnTrainer

Make = Callable[..., UnlearnTrainer]

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


def logged(trainer: UnlearnTrainer, key: str) -> list[float]:
    return [row[key] for row in trainer.state.log_history if key in row]


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_same_losses_as_on_a_cpu(make_trainer: Make, lora: Callable[[], Any], tuning: str) -> None:
    def train(folder: str, use_cpu: bool) -> UnlearnTrainer:
        given = {"adapter_init": "random", "directions": 0, "max_steps": 8, "use_cpu": use_cpu}
        adapter = lora() if tuning == "lora" else None
        if adapter is not None:
            # Drawn on each device by its own generator.
            adapter.lora_dropout = 0.0
        trainer = make_trainer(folder, peft_config=adapter, **given)
        trainer.train()
        return trainer

    on_cpu, on_gpu = train("cpu", True), train("gpu", False)
    assert next(on_gpu.model.parameters()).is_cuda
    assert on_gpu._collator.packed
    for key in ("negative", "positive", "normal"):
        assert logged(on_gpu, key) == pytest.approx(logged(on_cpu, key), rel=1e-3), key


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_default_forgets_there(make_trainer: Make, lora: Callable[[], Any], tuning: str) -> None:
    trainer = make_trainer(
        bf16=True,
        use_cpu=False,
        peft_config=lora() if tuning == "lora" else None,
        learning_rate=1e-2,
        max_steps=20,
        stop_rule=True,
        stop_every=2,
        stop_normal_budget=1e3,
        stop_kl_budget=1e3,
    )
    trainer.train()
    assert trainer._collator.packed
    assert trainer.probes[-1].probability < trainer.probes[0].probability


def test_models_are_loaded_there(tiny_model_dir: Any) -> None:
    assert load_model(str(tiny_model_dir)).device.type == "cuda"


@pytest.fixture
def on_four_bits(
    make_trainer: Make, lora: Callable[[], Any], tiny_model: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path
) -> UnlearnTrainer:
    """An adapter that has learnt on a base in 4 bits, whose whole weights lie in `base`."""
    if missing_modules("quantize"):
        pytest.skip("needs bitsandbytes")
    save_model(tiny_model(hidden_size=64, intermediate_size=128), tiny_tokenizer, tmp_path / "base")
    base = load_model(str(tmp_path / "base"), quantize="nf4")
    # A random base has nothing to be forgotten, whose directions an adapter could take.
    settings = {"adapter_init": "random", "objective": Objective(weights=(1.0, 1.0, 1.0)), "learning_rate": 1e-2}
    trainer = make_trainer(model=base, peft_config=lora(), max_steps=30, use_cpu=False, bf16=True, **settings)
    trainer.train()
    return trainer


def test_an_adapter_learns_on_a_base_in_4_bits(on_four_bits: UnlearnTrainer) -> None:
    assert on_four_bits._collator.packed
    assert logged(on_four_bits, "positive")[-1] < logged(on_four_bits, "positive")[0] / 2


def test_it_fits_the_base_as_it_is(on_four_bits: UnlearnTrainer, tiny_tokenizer: Any, tmp_path: Path) -> None:
    save_model(on_four_bits.model, tiny_tokenizer, tmp_path / "adapter")
    merged = load_model(str(tmp_path / "adapter"))
    assert {parameter.dtype for parameter in merged.parameters()} == {torch.float32}
    sequence = on_four_bits.train_dataset.forget[0].expected[0]
    ids, answer = torch.tensor([sequence.ids]).cuda(), torch.tensor(sequence.answer_mask)[1:].cuda()
    losses = [
        torch.nn.functional.cross_entropy(model(ids).logits[0, :-1][answer], ids[0, 1:][answer])
        for model in (merged, load_model(str(tmp_path / "base")))
    ]
    assert losses[0] < losses[1] / 2
