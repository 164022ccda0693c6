"""The usual learning rates, by what learns and how large the model is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from letheon.train.config import UnlearnConfig, default_learning_rate


class Adapted(nn.Linear):
    """A model with an adapter, for all that is asked of it."""

    peft_config: dict[str, Any] = {}


@pytest.mark.parametrize(
    ("kind", "contrast", "rates"),
    [
        (nn.Linear, False, (3e-5, 2e-5, 5e-6)),
        (Adapted, False, (5e-4, 1e-4, 1e-4)),
        (nn.Linear, True, (2e-2, 4e-3, 4e-3)),
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


def test_senseless_settings_are_refused_all_at_once() -> None:
    with pytest.raises(ValueError, match="per_device_train_batch_size=0: at least 1; max_length=1: at least 2; max_"):
        UnlearnConfig(per_device_train_batch_size=0, max_length=1, max_steps=0)
    for odd in ({"gradient_accumulation_steps": 0}, {"learning_rate": -1.0}, {"max_steps": -5}, {"stop_every": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(odd))}=.*: at least"):
            UnlearnConfig(**odd)
