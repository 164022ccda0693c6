"""Quantisation: unlearning moves weights by little, and rounding them may take that back (arXiv 2410.16454).

Weight-only schemes, each as the rounding that it is (`letheon.quantise`): bf16 of all weights; int8 with a scale a
row and int4 with a scale for 64 inputs, of the linear layers but the head; GGUF's Q4_0 of the linear layers with Q8_0
of embeddings and head (llama.cpp takes Q6_K there, which the gguf package cannot write), by the gguf package's own
quantiser; NF4 by bitsandbytes' own, on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn

from letheon.console import OnProgress
from letheon.errors import missing_modules
from letheon.models import Model, bare_model
from letheon.quantise import Rounding, linear_share, linear_weights, round_absmax, rounded, roundings
from letheon.stress.attack import EXTRACTION, Found, Given, extraction
from letheon.stress.records import NotRun

GROUP = 64
"""Inputs that share a scale in int4."""
LEAST = 0.5
"""Where less of the weights would be rounded than this share, most of the model would not be attacked."""


def quantise(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """Round the weights by each scheme, and score the model with them."""
    linear, share = linear_weights(model), linear_share(model)
    schemes: dict[str, tuple[str, dict[nn.Parameter, Rounding]] | str] = {
        "bf16": ("All weights rounded to bfloat16", dict.fromkeys(model.parameters(), _bf16)),
        "int8": ("Linear weights rounded to 8 bits", roundings(linear, partial(round_absmax, bits=8))),
        "int4": (
            f"Linear weights rounded to 4 bits, in groups of {GROUP}",
            roundings(linear, partial(round_absmax, bits=4, group=GROUP)),
        ),
        "GGUF Q4_0": _gguf_scheme(model, linear),
        "NF4": _nf4_scheme(model, linear),
    }
    for number, (variant, scheme) in enumerate(schemes.items()):
        update(number, len(schemes))
        if variant != "bf16" and share < LEAST:
            scheme = (
                f"only {share:.0%} of the weights, embeddings and head left out, are those of linear layers "
                "(torch.nn.Linear, Conv1D), which alone could be rounded"
            )
        if isinstance(scheme, str):
            yield NotRun(attack="quantise", variant=variant, why=scheme)
            continue
        how, weights = scheme
        with rounded(weights):
            yield Found(variant, how, EXTRACTION, extraction(model, given.sequences, given.batch_size))


def _bf16(weight: Tensor) -> Tensor:
    return weight.to(torch.bfloat16)


def _gguf_scheme(model: Model, linear: dict[nn.Parameter, int]) -> tuple[str, dict[nn.Parameter, Rounding]] | str:
    if missing_modules("demo"):
        return "it needs the extra 'demo': pip install 'letheon[demo]'"
    inner = bare_model(model)
    ends = [m.weight for m in (inner.get_input_embeddings(), inner.get_output_embeddings()) if m is not None]
    weights: dict[nn.Parameter, Rounding] = dict.fromkeys(ends, partial(_gguf, kind="Q8_0"))
    weights |= roundings(linear, partial(_gguf, kind="Q4_0"))
    if any(weight.size(linear.get(weight, 1)) % 32 for weight in weights):
        return "a weight's rows are no multiple of 32 long, and GGUF's blocks are"
    return "Rounded as a GGUF export would be: Q4_0, with Q8_0 at both ends", weights


def _gguf(weight: Tensor, kind: str) -> Tensor:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize

    form = GGMLQuantizationType[kind]
    array = weight.float().cpu().numpy()
    return torch.from_numpy(dequantize(quantize(array, form), form)).to(weight.device)


def _nf4_scheme(model: Model, linear: dict[nn.Parameter, int]) -> tuple[str, dict[nn.Parameter, Rounding]] | str:
    if missing_modules("quantize"):
        return "it needs the extra 'quantize' and a GPU: pip install 'letheon[quantize]'"
    if model.device.type != "cuda":
        return "it needs a GPU"
    return "Linear weights rounded to NF4, in groups of 64", roundings(linear, _nf4)


def _nf4(weight: Tensor) -> Tensor:
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    packed, state = quantize_4bit(weight.contiguous(), blocksize=64, quant_type="nf4")
    whole: Tensor = dequantize_4bit(packed, state)
    return whole
