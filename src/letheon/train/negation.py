"""Task-vector negation: learn the old answers still better, then go the other way.

θ₀ − α (θ − θ₀), θ being what reinforcement has made of θ₀: no distance runs away, and nothing says when to stop.
Source: arXiv 2212.04089 (task arithmetic); "tv" in muse_bench.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from letheon.errors import InputError
from letheon.models import Model
from letheon.train.scale_back import Line

FACTORS = (".lora_A.", ".lora_B.")


def check_negation(model: Model) -> None:
    """Check that to negate an adapter's B is to negate its change.

    Raises:
        InputError: It has learnt before, or more than its factors learn.
    """
    if not hasattr(model, "peft_config"):
        return
    learns = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if beside := [name for name in learns if not any(factor in name for factor in FACTORS)]:
        raise InputError(f"negation: {beside[0]} learns beside the adapter's factors, and would not be negated")
    if any(p.detach().any() for name, p in model.named_parameters() if ".lora_B." in name):
        raise InputError(
            "negation: the adapter has learnt something before, which would be negated with the rest: merge it into "
            "its base, and give the trainer a new one (peft_config)"
        )


@torch.no_grad()
def negate(line: Line, parameters: Mapping[str, nn.Parameter], alpha: float) -> None:
    """Put the weights at −α on the line from θ₀ to where they are.

    A low-rank adapter changes a weight by B A, and starts with B = 0: to negate the change is to negate B alone.

    Args:
        line: From θ₀.
        parameters: What has learned, by name.
        alpha: α, > 0.
    """
    factors = [parameter for name, parameter in parameters.items() if ".lora_B." in name]
    for factor in factors:
        factor.mul_(-alpha)
    if not factors:
        line.end()
        line.go(-alpha)
