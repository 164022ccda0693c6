"""The usual learning rates, by what learns and how large the model is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from letheon.train.config import UnlearnConfig, default_learning_rate


class Plain(nn.Linear):
    """A model, for all that is asked of it."""

    def num_parameters(self) -> int:
        return self.weight.numel()


class Adapted(nn.Linear):
    """A model with an adapter as large as itself, which does not count."""

    peft_config: dict[str, Any] = {}

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        return self.weight.numel(), 2 * self.weight.numel()


@pytest.mark.parametrize(
    ("kind", "contrast", "rates"),
    [
        (Plain, False, (3e-5, 2e-5, 5e-6)),
        (Adapted, False, (5e-4, 1e-4, 1e-4)),
        (Plain, True, (2e-2, 4e-3, 4e-3)),
        (Adapted, True, (2e-2, 4e-3, 4e-3)),
    ],
)
def test_usual_rates_of_135_million_one_billion_and_seven(
    kind: type[nn.Linear], contrast: bool, rates: tuple[float, ...]
) -> None:
    for size, rate in zip((135_000, 1_000_000, 7_000_000), rates, strict=True):
        with torch.device("meta"):
            model: Any = kind(1000, size, bias=False)
        assert default_learning_rate(model, contrast=contrast) == rate


def test_an_adapter_makes_no_model_larger() -> None:
    with torch.device("meta"):
        model: Any = Adapted(1000, 300_000, bias=False)
    assert default_learning_rate(model, contrast=False) == 5e-4


def test_senseless_settings_are_refused_all_at_once() -> None:
    with pytest.raises(ValueError, match="per_device_train_batch_size=0: at least 1; max_length=1: at least 2; max_"):
        UnlearnConfig(per_device_train_batch_size=0, max_length=1, max_steps=0)
    for odd in ({"gradient_accumulation_steps": 0}, {"learning_rate": -1.0}, {"max_steps": -5}, {"stop_every": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(odd))}=.*: at least"):
            UnlearnConfig(**odd)
    with pytest.raises(ValueError, match="stop_kl_budget=0: above 0; stop_normal_budget=1: above 1.*stop_truth=1: "):
        UnlearnConfig(stop_kl_budget=0, stop_normal_budget=1, stop_truth=1)
    for odd in ({"probe_size": 0}, {"top_k": 0}, {"directions": -1}, {"stop_patience": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(odd))}=.*: at least"):
            UnlearnConfig(**odd)


@pytest.mark.parametrize("odd", [{"token_choice": "informativ"}, {"adapter_init": "contrsat"}])
def test_a_misspelt_choice_is_refused(odd: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(odd))}='.*': one of .*, "):
        UnlearnConfig(**odd)
