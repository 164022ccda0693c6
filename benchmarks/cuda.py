"""Seconds and memory of a step on a GPU, for a model of the shape of Llama-3.2-1B with random weights.

    python benchmarks/cuda.py --batch 4 16 --words 0 300

As `benchmarks/steps.py`, whose steps these are, but in one process: each variant makes its model on the GPU, and
rounds alternate. The plain steps run under bfloat16 autocast too, as today's tools do there. Only the tokenizer is
the demo model's.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from steps import METHODS, goes_with, time_letheon, time_plain
from table import write_rows
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from letheon.demo.weights import demo_model
from letheon.measure import wait_for_device
from letheon.models import load_model, load_tokenizer

WARM_UP = 2
SHAPES = {
    "llama-1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
    },
    "smollm2-135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
    },
}
EXTRAS: dict[str, dict[str, Any]] = {
    "liger": {"use_liger_kernel": True},
    "compile": {"torch_compile": True},
    "adam-8bit": {"optim": "adamw_bnb_8bit"},
}
"""Settings whose worth is measured on NPO's steps: full tuning by default has an optimizer of its own."""
QUANTISED = "nf4"
"""The extra that holds the base in 4 bits."""


def random_model(shape: str, vocabulary: int) -> LlamaForCausalLM:
    """A model with random weights, made where it runs."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary, max_position_embeddings=8192, tie_word_embeddings=True, **SHAPES[shape]
    )
    with torch.device("cuda"):
        return LlamaForCausalLM(config)


def quantised_model(shape: str, vocabulary: int) -> Any:
    """The same in 4 bits: what quantises reads a folder."""
    with tempfile.TemporaryDirectory() as folder:
        random_model(shape, vocabulary).save_pretrained(folder)
        return load_model(folder, quantize="nf4")


def now() -> float:
    """Seconds, once the GPU has done what it has been given."""
    wait_for_device()
    return time.perf_counter()


def peak_rate(tokens: int, shape: str) -> float:
    """FLOPs a second of a large product of bfloat16 matrices at the model's widths."""
    width, inner = SHAPES[shape]["hidden_size"], SHAPES[shape]["intermediate_size"]
    left = torch.randn(tokens, width, dtype=torch.bfloat16, device="cuda")
    right = torch.randn(width, inner, dtype=torch.bfloat16, device="cuda")
    for _ in range(5):
        left @ right
    start = now()
    for _ in range(50):
        left @ right
    return 50 * 2 * tokens * width * inner / (now() - start)


Variant = tuple[str, str, str, str]
"""Whose step, what learns, the method, and the extra."""


def once(variant: Variant, sizes: tuple[int, int, int], shape: str, tokenizer: Any, *, count: bool) -> dict[str, Any]:
    """One variant at a batch, words and steps: its seconds and memory, or its FLOPs."""
    who, tuning, method, extra = variant
    counter = FlopCounterMode(display=False) if count else None
    tick = counter.get_total_flops if counter is not None else now
    model = (quantised_model if extra == QUANTISED else random_model)(shape, len(tokenizer))
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    run = time_plain if who == "plain" else time_letheon
    with counter if counter is not None else nullcontext():
        taken = run(model, tokenizer, tuning, method, *sizes, tick, **EXTRAS.get(extra, {}))[WARM_UP:]
    if count:
        return {"flops": taken}
    return {"seconds": taken, "peak_mb": torch.cuda.max_memory_allocated() / 1e6}


def variants_of(methods: Sequence[str], tunings: Sequence[str], extras: Sequence[str]) -> list[Variant]:
    """The plain steps first: the others are held against them."""
    pairs = [(tuning, method) for tuning in tunings for method in methods if goes_with(tuning, method)]
    plain = [("plain", tuning, method, "") for tuning, method in pairs if method != "default"]
    ours = [("letheon", tuning, method, "") for tuning, method in pairs if method != "fine-tune"]
    more = [(tuning, extra) for tuning in tunings for extra in extras if tuning != "full" or extra != QUANTISED]
    # Liger replaces functions of transformers' modules, for whatever runs in the process after it.
    more.sort(key=lambda one: one[1] == "liger")
    return [*plain, *ours, *(("letheon", tuning, "npo", extra) for tuning, extra in more)]


def row(variant: Variant, found: dict[Variant, list[dict[str, Any]]], peak: float) -> dict[str, Any]:
    """What is known of one variant so far."""
    who, tuning, method, extra = variant
    seconds = [s for run in found[variant] for s in run.get("seconds", [])]
    memory = statistics.median(run["peak_mb"] for run in found[variant] if "peak_mb" in run)
    known = {"tuning": tuning, "who": who, "method": method, "extra": extra}
    known |= {"ms": round(1000 * statistics.median(seconds), 1), "peak_mb": round(memory)}
    if flops := next((run["flops"] for run in found[variant] if "flops" in run), None):
        rate = statistics.median(flops) / statistics.median(seconds)
        known |= {"tflop": round(statistics.median(flops) / 1e12, 2), "share_of_peak": round(rate / peak, 3)}
    if rival := found.get(("plain", tuning, "npo" if method == "default" else method, "")):
        theirs = statistics.median(s for run in rival for s in run.get("seconds", []))
        held = statistics.median(run["peak_mb"] for run in rival if "peak_mb" in run)
        known |= {
            "times_as_fast": round(theirs / statistics.median(seconds), 2),
            "share_of_memory": round(memory / held, 2),
        }
    return known


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="llama-1b")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 16])
    parser.add_argument("--words", type=int, nargs="+", default=[0, 300])
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tuning", nargs="+", default=["full", "lora", "top-8"])
    parser.add_argument("--extra", nargs="*", choices=[*EXTRAS, QUANTISED], default=[])
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "cuda.csv")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    tokenizer = load_tokenizer(str(demo_model()))
    done: list[dict[str, Any]] = []
    # The first steps of a process are several times as slow as those of the next variant.
    once(("plain", "lora", "npo", ""), (4, 0, given.steps + WARM_UP), given.shape, tokenizer, count=False)
    for batch, words in itertools.product(given.batch, given.words):
        peak = peak_rate(batch * 2 * (60 + 4 * words // 3), given.shape)
        same = {"card": torch.cuda.get_device_name(), "shape": given.shape, "batch": batch, "words": words}
        found: dict[Variant, list[dict[str, Any]]] = {}
        failed: set[Variant] = set()
        for count in (*[False] * given.rounds, True):
            for variant in variants_of(given.method, given.tuning, given.extra):
                # What the default prepares takes long, and its FLOPs are much like NPO's.
                if variant in failed or count and (variant[-1] or variant[2] == "default"):
                    continue
                start = time.perf_counter()
                try:
                    own = once(variant, (batch, words, given.steps + WARM_UP), given.shape, tokenizer, count=count)
                except (RuntimeError, ImportError, ValueError) as error:
                    # It is said, and the others go on.
                    print(*variant, type(error).__name__, str(error).splitlines()[0][:200], flush=True)
                    failed.add(variant)
                    continue
                found.setdefault(variant, []).append(own)
                print(*variant, f"took {time.perf_counter() - start:.1f} s", flush=True)
                # A machine may be lent for minutes: what is known is written at once.
                rows = [same | row(one, found, peak) for one in found if one not in failed]
                write_rows(given.csv, [*done, *rows])
        done += rows


if __name__ == "__main__":
    main()
