"""Seconds of CPU and memory of a step: Letheon's against a plain one, alternating, a process for each.

    python benchmarks/steps.py --rounds 2 --steps 4

Both train the same weights on the demo's dialogues with the same loss. Each process computes on one thread and counts
the seconds that it was computing, so that other work on the machine disturbs little. FLOPs are those of matrix
products and attention, counted in a process of their own over the same steps; `share_of_peak` is their rate over that
of a large matrix product in the same precision.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from plain import Plain, padded
from table import read_rows, write_rows
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from letheon import Objective, UnlearnConfig, UnlearnTrainer, adapter_for
from letheon.chat import Encoded, encode_dialogue, encode_reply, encode_turn
from letheon.demo.weights import demo_model
from letheon.dialogues import read_dialogues
from letheon.expected import targets_of
from letheon.forward import hold_in_bf16
from letheon.measure import Measured
from letheon.models import fast_bf16, load_model, load_tokenizer
from letheon.objective import DPO, NPO, CrossEntropy, GradientAscent, SimNPO
from letheon.train.progress import quiet

LOG = Path(__file__).parents[1] / "src" / "letheon" / "demo" / "data" / "log.jsonl"
WARM_UP = 2
"""Steps that are not timed."""
TUNINGS = ("full", "lora", "top-8")
METHODS = {
    "plain": ("fine-tune", "graddiff", "npo", "simnpo", "dpo"),
    "letheon": ("graddiff", "npo", "simnpo", "dpo", "default"),
}
MATRIX = 512, 576, 1536
"""Of the product that is taken for the peak: tokens of a step, and the two sides of the model's widest layer."""


class Clock(TrainerCallback):  # type: ignore[misc]
    """Measures each step of a Trainer, from its batch being there to the optimizer having moved.

    Args:
        clock: What tells the seconds, or whatever is measured.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self.seconds: list[float] = []
        self.first = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.start = self.clock()
        self.first = self.first or self.start

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds.append(self.clock() - self.start)


def data() -> tuple[list[Any], list[Any]]:
    """The demo's dialogues to forget, and its normal ones."""
    log = read_dialogues(LOG)
    return [d for d in log if d.label == "forget"], [d for d in log if d.label == "normal"]


def cycle(rows: list[Encoded], batch: int, steps: int, pad: int) -> Iterator[Any]:
    for step in range(steps):
        chosen = [rows[(step * batch + place) % len(rows)] for place in range(batch)]
        yield padded([(row.ids, row.answer_mask) for row in chosen], pad)


def plain_lora(layers: list[int] | None = None) -> LoraConfig:
    """Plain LoRA, on every layer or some."""
    modules: Any = "all-linear"
    if layers:
        modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return LoraConfig(r=16, lora_alpha=32, target_modules=modules, layers_to_transform=layers, task_type="CAUSAL_LM")


def adapter(model: Any, tuning: str) -> LoraConfig | None:
    """What learns, in both kinds of step."""
    total = model.config.num_hidden_layers
    return {"full": None, "lora": plain_lora(), "top-8": plain_lora(list(range(total - 8, total)))}[tuning]


Tick = Callable[[], float]
"""A clock, or a count that goes up."""


def time_plain(
    model: Any, tokenizer: Any, tuning: str, method: str, batch: int, steps: int, tick: Tick
) -> list[float]:
    """What each step of a plain loop takes."""
    forget, normal = data()
    if (config := adapter(model, tuning)) is not None:
        model = get_peft_model(model, config)
    plain = Plain(model, method, 1e-5)
    turns = [d.last_turn for d in forget]
    rows = [[encode_turn(tokenizer, turn) for turn in turns], [encode_dialogue(tokenizer, d) for d in normal]]
    if method == "dpo":
        rows.append([encode_reply(tokenizer, one.turn.prompt, one.answers[0]) for one in targets_of(turns)])
    batches = zip(*(cycle(of, batch, steps, tokenizer.pad_token_id) for of in rows), strict=True)
    taken = []
    for given in batches:
        start = tick()
        plain.step(*given)
        taken.append(tick() - start)
    return taken


OBJECTIVES = {
    "graddiff": Objective(GradientAscent(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "npo": Objective(NPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "simnpo": Objective(SimNPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "dpo": Objective(DPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "default": Objective(),
}


def time_letheon(
    model: Any, tokenizer: Any, tuning: str, method: str, batch: int, steps: int, tick: Tick
) -> list[float]:
    """What each step of the trainer takes.

    "default" also takes an expected answer for each to forget; with "lora" its adapter is the default one.
    """
    forget, normal = data()
    default, clock = method == "default", Clock(tick)
    if tuning != "full" and fast_bf16():
        # As a recipe's run does.
        hold_in_bf16(model)
    with tempfile.TemporaryDirectory() as folder:
        args = UnlearnConfig(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=batch,
            normal_per_forget=1,
            learning_rate=1e-5,
            stop_rule=False,
            disable_tqdm=True,
            logging_steps=10_000,
            balance=default,
            adapter_init="contrast" if default else "random",
            directions=4 if default else 0,
            damping=0.1 if default else None,
        )
        trainer = UnlearnTrainer(
            model,
            args,
            forget_dataset=forget,
            normal_dataset=normal,
            objective=OBJECTIVES[method],
            peft_config=adapter_for(model) if default and tuning == "lora" else adapter(model, tuning),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        quiet(trainer, lambda done, total: None)
        trainer.train()
    return clock.seconds


def peak_rate(dtype: torch.dtype) -> float:
    """FLOPs a second of a large matrix product."""
    rows, inner, columns = MATRIX
    left, right = torch.randn(rows, inner, dtype=dtype), torch.randn(inner, columns, dtype=dtype)
    seconds = []
    for _ in range(30):
        start = time.process_time()
        left @ right
        seconds.append(time.process_time() - start)
    return 2 * rows * inner * columns / statistics.median(seconds)


def measure(who: str, tuning: str, method: str, batch: int, steps: int, *, count: bool) -> dict[str, Any]:
    """One variant, in this process: its seconds and memory, or its FLOPs."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    folder = str(demo_model())
    run = time_plain if who == "plain" else time_letheon
    with Measured() as cost, FlopCounterMode(display=False) if count else nullcontext() as counter:
        tick = counter.get_total_flops if counter is not None else time.process_time
        taken = run(load_model(folder), load_tokenizer(folder), tuning, method, batch, steps + WARM_UP, tick)[
            WARM_UP:
        ]
    if count:
        return {"flops": taken}
    peak = peak_rate(torch.bfloat16 if who == "letheon" and fast_bf16() else torch.float32)
    return {"seconds": taken, "peak_mb": cost.peak_mb, "peak": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--tuning", nargs="+", choices=TUNINGS, default=list(TUNINGS))
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "steps.csv")
    parser.add_argument("--count", action="store_true", help="with --one: FLOPs in place of seconds")
    parser.add_argument("--one", nargs=3, metavar=("WHO", "TUNING", "METHOD"), help="measure this alone, as JSON")
    given = parser.parse_args()
    if given.one:
        who, tuning, method = given.one
        print(json.dumps(measure(who, tuning, method, given.batch[0], given.steps, count=given.count)))
        return
    variants = [(who, tuning, method) for tuning in given.tuning for who in METHODS for method in METHODS[who]]
    rows: list[dict[str, Any]] = []
    for batch in given.batch:

        def one(variant: tuple[str, str, str], *more: str, batch: int = batch) -> dict[str, Any]:
            command = [
                sys.executable,
                __file__,
                "--one",
                *variant,
                "--batch",
                str(batch),
                "--steps",
                str(given.steps),
            ]
            done = subprocess.run([*command, *more], check=True, capture_output=True, text=True)
            return dict(json.loads(done.stdout.splitlines()[-1]))

        found: dict[tuple[str, str, str], list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(given.rounds):
            for variant in variants:
                found[variant].append(one(variant))
        flops = {variant: one(variant, "--count")["flops"] for variant in variants}
        seconds = {v: statistics.median(s for run in runs for s in run["seconds"]) for v, runs in found.items()}
        peak = {variant: statistics.median(run["peak_mb"] for run in runs) for variant, runs in found.items()}
        for own in variants:
            who, tuning, method = own
            rival = "plain", tuning, "npo" if method == "default" else method
            # Step by step: they differ in length.
            rates = [
                work / taken / run["peak"]
                for run in found[own]
                for work, taken in zip(flops[own], run["seconds"], strict=True)
            ]
            rows.append(
                {
                    "batch": batch,
                    "tuning": tuning,
                    "who": who,
                    "method": method,
                    "seconds": round(seconds[own], 3),
                    "gflop": round(statistics.median(flops[own]) / 1e9),
                    "share_of_peak": round(statistics.median(rates), 2),
                    "peak_mb": round(peak[own]),
                    "times_as_fast": round(seconds[rival] / seconds[own], 2),
                    "share_of_memory": round(peak[own] / peak[rival], 2),
                }
            )
            print(rows[-1], flush=True)
    again = {(str(batch), tuning) for batch in given.batch for tuning in given.tuning}
    kept = [row for row in read_rows(given.csv) if (row["batch"], row["tuning"]) not in again]
    write_rows(given.csv, [*kept, *rows])


if __name__ == "__main__":
    main()
