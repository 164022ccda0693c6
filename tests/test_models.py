from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from letheon.models import Model, load_model, load_tokenizer, save_model


def add_adapter(source: Path, target: Path) -> torch.Tensor:
    """Put a random adapter on a model and save it; what it says."""
    config = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(load_model(str(source)), config).eval()
    # Before it is saved, which may merge it.
    said = logits(model)
    save_model(model, load_tokenizer(str(source)), target)
    return said


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(torch.arange(9)[None]).logits
    return result


def test_an_adapter_comes_back_as_it_was(tiny_model_dir: Path, tmp_path: Path) -> None:
    before = add_adapter(tiny_model_dir, tmp_path / "first")
    assert (tmp_path / "first" / "adapter_config.json").is_file()
    torch.testing.assert_close(logits(load_model(str(tmp_path / "first"))), before, atol=1e-4, rtol=1e-4)


def test_an_adapter_on_an_adapter_keeps_both(tiny_model_dir: Path, tmp_path: Path) -> None:
    add_adapter(tiny_model_dir, tmp_path / "first")
    before = add_adapter(tmp_path / "first", tmp_path / "second")
    # Whole weights: an adapter of this kind could only name the first one's base.
    assert not (tmp_path / "second" / "adapter_config.json").exists()
    torch.testing.assert_close(logits(load_model(str(tmp_path / "second"))), before, atol=1e-4, rtol=1e-4)
