"""Seconds a step: Letheon's against a plain one (`plain.py`), alternating in one process.

    python benchmarks/steps.py --rounds 3 --steps 6 --batch 4 8

Both take B dialogues to forget and B normal ones of the demo's log through the demo's model, with the same tuning and
loss. The machine is shared, so each round times every variant in turn, and what counts are medians and their ratios.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import transformers
from peft import LoraConfig, get_peft_model
from plain import Plain, padded
from transformers import TrainerCallback

from letheon import Objective, UnlearnConfig, UnlearnTrainer, adapter_for
from letheon.chat import Encoded, encode_dialogue, encode_turn
from letheon.demo.weights import demo_model
from letheon.dialogues import read_dialogues
from letheon.models import load_model, load_tokenizer
from letheon.objective import NPO, CrossEntropy, GradientAscent
from letheon.train.progress import quiet

LOG = Path(__file__).parents[1] / "src" / "letheon" / "demo" / "data" / "log.jsonl"
WARM_UP = 2
"""Steps that are not timed."""


class Clock(TrainerCallback):  # type: ignore[misc]
    """Times each step of a Trainer, from its batch being there to the optimizer having moved."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start."""
        self.start = time.perf_counter()

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


def time_plain(model: Any, tokenizer: Any, method: str, batch: int, steps: int, lora: bool) -> list[float]:
    """Seconds of each step of a plain loop."""
    forget, normal = data()
    if lora:
        model = get_peft_model(model, plain_lora())
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


def plain_lora() -> LoraConfig:
    return LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")


OBJECTIVES = {
    "graddiff": Objective(GradientAscent(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "npo": Objective(NPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "default": Objective(),
}


def time_letheon(model: Any, tokenizer: Any, method: str, batch: int, steps: int, lora: bool) -> list[float]:
    """Seconds of each step of the trainer. "default" also takes an expected answer for each to forget."""
    forget, normal = data()
    default, clock = method == "default", Clock()
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
        adapter = (adapter_for(model) if default else plain_lora()) if lora else None
        trainer = UnlearnTrainer(
            model,
            args,
            forget_dataset=forget,
            normal_dataset=normal,
            objective=OBJECTIVES[method],
            peft_config=adapter,
            processing_class=tokenizer,
            callbacks=[clock],
        )
        quiet(trainer, lambda done, total: None)
        trainer.train()
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "steps.csv")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    folder = str(demo_model())
    tokenizer = load_tokenizer(folder)
    variants = [
        (tuning, who, method)
        for tuning in ("full", "lora")
        for who, methods in (("plain", ("fine-tune", "graddiff", "npo")), ("letheon", ("graddiff", "npo", "default")))
        for method in methods
    ]
    rows = []
    for batch in given.batch:
        seconds: dict[tuple[str, str, str], list[float]] = {variant: [] for variant in variants}
        for _ in range(given.rounds):
            for tuning, who, method in variants:
                run = time_plain if who == "plain" else time_letheon
                model = load_model(folder)
                found = run(model, tokenizer, method, batch, given.steps + WARM_UP, tuning == "lora")
                seconds[tuning, who, method] += found[WARM_UP:]
        for (tuning, who, method), found in seconds.items():
            median = statistics.median(found)
            rival = statistics.median(seconds[tuning, "plain", "npo" if method == "default" else method])
            rows.append(
                {
                    "batch": batch,
                    "tuning": tuning,
                    "who": who,
                    "method": method,
                    "seconds": round(median, 3),
                    "fastest": round(min(found), 3),
                    "times_as_fast_as_plain": round(rival / median, 2),
                }
            )
            print(rows[-1], flush=True)
    given.csv.parent.mkdir(parents=True, exist_ok=True)
    with given.csv.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
