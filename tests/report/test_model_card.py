"""The model card: front matter that a hub reads, the numbers, the limits, and no text."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from made_up import SECRET, make_run

from letheon.errors import InputError
from letheon.recipe import check_recipe
from letheon.report import write_model_card


def front_matter(card: str) -> dict[str, object]:
    return yaml.safe_load(card.split("---\n")[1])


def test_card_of_an_adapter(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", show_texts=True)
    path = write_model_card(run)
    card = path.read_text(encoding="utf-8")
    assert path == run / "model" / "README.md"
    assert front_matter(card)["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert front_matter(card)["library_name"] == "peft"
    assert "**Forgotten: yes.**" in card
    assert "| Forget | Probability of the answer | 0.853 ± 0.034 | 0.061 ± 0.023 | 0.058 ± 0.022 |" in card
    assert "evidence of forgetting, and no more" in card
    assert "The base forgets nothing" in card
    assert "**Under attack: NOT within its limits.** relearn: forget items: 0.232 > 0.2" in card
    assert "Mirella" not in card
    assert SECRET not in card


def test_card_of_full_weights_from_a_local_folder(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "model" / "adapter_config.json").unlink()
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["model"] = str(tmp_path / "private" / "my-model")
    (run / "recipe.yaml").write_text(check_recipe(recipe).dump())
    card = write_model_card(run).read_text(encoding="utf-8")
    assert front_matter(card)["base_model"] == "my-model"
    assert front_matter(card)["library_name"] == "transformers"
    assert "private" not in card
    assert "LoRA" not in card


def test_card_before_evaluation(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    card = write_model_card(run).read_text(encoding="utf-8")
    assert "not known yet" in card
    assert "base_model" not in front_matter(card)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="letheon unlearn"):
        write_model_card(tmp_path)
