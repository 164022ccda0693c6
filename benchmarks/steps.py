"""Seconds and memory of a step: Letheon's against a plain one (`plain.py`), taking turns.

    python benchmarks/steps.py --rounds 3 --steps 5 --batch 4 8

Both take B dialogues to forget and B normal ones of the demo's log through the demo's model, with the same loss and
the same weights learning: all of them, an adapter on every layer, or one on the last eight. The machine is shared, so
each round times every variant in turn, each in a process of its own; what counts are medians and their ratios.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from peft import LoraConfig, get_peft_model
from plain import Plain, padded
from table import write_rows
from transformers import TrainerCallback

from letheon import Objective, UnlearnConfig, UnlearnTrainer, adapter_for
from letheon.chat import Encoded, encode_dialogue, encode_turn
from letheon.demo.weights import demo_model
from letheon.dialogues import read_dialogues
from letheon.forward import hold_in_bf16
from letheon.measure import Measured
from letheon.models import fast_bf16, load_model, load_tokenizer
from letheon.objective import NPO, CrossEntropy, GradientAscent
from letheon.train.progress import quiet

LOG = Path(__file__).parents[1] / "src" / "letheon" / "demo" / "data" / "log.jsonl"
WARM_UP = 2
"""Steps that are not timed."""
TUNINGS = ("full", "lora", "top-8")
METHODS = {"plain": ("fine-tune", "graddiff", "npo"), "letheon": ("graddiff", "npo", "default")}


class Clock(TrainerCallback):  # type: ignore[misc]
    """Times each step of a Trainer, from its batch being there to the optimizer having moved."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.first = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.start = time.perf_counter()
        self.first = self.first or self.start

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop."""
        self.seconds.append(time.perf_counter() - self.start)


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


def time_plain(model: Any, tokenizer: Any, tuning: str, method: str, batch: int, steps: int) -> list[float]:
    """Seconds of each step of a plain loop."""
    forget, normal = data()
    if (config := adapter(model, tuning)) is not None:
        model = get_peft_model(model, config)
    plain = Plain(model, method, 1e-5)
    batches = zip(
        cycle([encode_turn(tokenizer, d.last_turn) for d in forget], batch, steps, tokenizer.pad_token_id),
        cycle([encode_dialogue(tokenizer, d) for d in normal], batch, steps, tokenizer.pad_token_id),
        strict=True,
    )
    seconds = []
    for pair in batches:
        start = time.perf_counter()
        plain.step(*pair)
        seconds.append(time.perf_counter() - start)
    return seconds


OBJECTIVES = {
    "graddiff": Objective(GradientAscent(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "npo": Objective(NPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "default": Objective(),
}


def time_letheon(model: Any, tokenizer: Any, tuning: str, method: str, batch: int, steps: int) -> list[float]:
    """Seconds of each step of the trainer.

    "default" also takes an expected answer for each to forget; with "lora" its adapter is the default one.
    """
    forget, normal = data()
    default, clock = method == "default", Clock()
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


def measure(who: str, tuning: str, method: str, batch: int, steps: int) -> dict[str, Any]:
    """One variant, in this process."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = str(demo_model())
    run = time_plain if who == "plain" else time_letheon
    with Measured() as cost:
        seconds = run(load_model(folder), load_tokenizer(folder), tuning, method, batch, steps + WARM_UP)
    return {"seconds": seconds[WARM_UP:], "peak_mb": cost.peak_mb}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "steps.csv")
    parser.add_argument("--one", nargs=3, metavar=("WHO", "TUNING", "METHOD"), help="measure this alone, as JSON")
    given = parser.parse_args()
    if given.one:
        who, tuning, method = given.one
        print(json.dumps(measure(who, tuning, method, given.batch[0], given.steps)))
        return
    variants = [(who, tuning, method) for tuning in TUNINGS for who in METHODS for method in METHODS[who]]
    rows = []
    for batch in given.batch:
        found: dict[tuple[str, str, str], list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(given.rounds):
            for variant in variants:
                command = [sys.executable, __file__, "--one", *variant, "--batch", str(batch)]
                done = subprocess.run(
                    [*command, "--steps", str(given.steps)], check=True, capture_output=True, text=True
                )
                found[variant].append(json.loads(done.stdout.splitlines()[-1]))
        seconds = {v: statistics.median(s for run in runs for s in run["seconds"]) for v, runs in found.items()}
        peak = {variant: statistics.median(run["peak_mb"] for run in runs) for variant, runs in found.items()}
        for who, tuning, method in variants:
            rival = "plain", tuning, "npo" if method == "default" else method
            own = who, tuning, method
            rows.append(
                {
                    "batch": batch,
                    "tuning": tuning,
                    "who": who,
                    "method": method,
                    "seconds": round(seconds[own], 3),
                    "peak_mb": round(peak[own]),
                    "times_as_fast": round(seconds[rival] / seconds[own], 2),
                    "share_of_memory": round(peak[own] / peak[rival], 2),
                }
            )
            print(rows[-1], flush=True)
    write_rows(given.csv, rows)


if __name__ == "__main__":
    main()
