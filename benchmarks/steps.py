"""Seconds of CPU and memory of a step: Letheon's against a plain one, alternating, a process for each.

    python benchmarks/steps.py --rounds 2 --steps 4

Both train the same weights on the demo's dialogues with the same loss. Each process computes on one thread and counts
the seconds that it was computing, so that other work on the machine disturbs little. FLOPs are those of matrix
products and attention, counted in a process of their own over the same steps; `share_of_peak` is their rate over that
of a large matrix product in the same precision.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
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
from letheon.objective import DPO, NPO, RMU, CrossEntropy, GradientAscent, ReferenceStates, SimNPO
from letheon.records import Dialogue
from letheon.train.progress import quiet

LOG = Path(__file__).parents[1] / "src" / "letheon" / "demo" / "data" / "log.jsonl"
WARM_UP = 2
"""Steps that are not timed."""
TUNINGS = ("full", "lora", "top-8", "4-6")
METHODS = ("fine-tune", "graddiff", "npo", "simnpo", "dpo", "rmu", "default")
"""The first only as a plain step, the last only as Letheon's."""
READ = 6
"""The layer that RMU reads, of 30. With it nothing above learns, and in place of the last layers those just below."""
Variant = tuple[str, str, str]
"""Whose step ("checkpointed": Letheon's with gradient checkpointing), what learns, and the method."""
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


def data(words: int = 0) -> tuple[list[Dialogue], list[Dialogue]]:
    """The demo's dialogues to forget, and its normal ones.

    Args:
        words: So many words of general text, about as many tokens, stand before each question.
    """
    text = (LOG.parent / "general.txt").read_text(encoding="utf-8").split()
    log = []
    for number, dialogue in enumerate(read_dialogues(LOG)):
        # Each begins elsewhere in the text, so that no beginning is shared.
        before = [text[(97 * number + place) % len(text)] for place in range(words)]
        *others, question, answer = dialogue.messages
        longer = question.model_copy(update={"content": " ".join([*before, question.content])})
        log.append(dialogue.model_copy(update={"messages": (*others, longer, answer)}))
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


def adapter(model: Any, tuning: str, method: str) -> LoraConfig | None:
    """What learns, in both kinds of step; of a model without an adapter all but what lies above what RMU reads."""
    total = model.config.num_hidden_layers
    if tuning == "full":
        for layer in model.model.layers[READ + 1 if method == "rmu" else total :]:
            layer.requires_grad_(False)
        return None
    lora = plain_lora(list(range(READ + 1))) if method == "rmu" else plain_lora()
    return {"lora": lora, "top-8": plain_lora(list(range(total - 8, total))), "4-6": plain_lora([4, 5, 6])}[tuning]


def goes_with(tuning: str, method: str) -> bool:
    """Whether a method is measured with what learns."""
    return tuning not in {"top-8", "4-6"} or (tuning == "4-6") == (method == "rmu")


Tick = Callable[[], float]
"""A clock, or a count that goes up."""


def time_plain(
    model: Any, tokenizer: Any, tuning: str, method: str, batch: int, words: int, steps: int, tick: Tick
) -> list[float]:
    """What each step of a plain loop takes."""
    forget, normal = data(words)
    if (config := adapter(model, tuning, method)) is not None:
        model = get_peft_model(model, config)
    plain = Plain(model, method, 1e-5, READ)
    turns = [d.last_turn for d in forget]
    rows = [[encode_turn(tokenizer, turn) for turn in turns], [encode_dialogue(tokenizer, d) for d in normal]]
    if method == "dpo":
        rows.append([encode_reply(tokenizer, one.turn.prompt, one.answers[0]) for one in targets_of(turns)])
    batches = zip(*(cycle(of, batch, steps, tokenizer.pad_token_id) for of in rows), strict=True)
    device, taken = next(model.parameters()).device, []
    for given in batches:
        moved = [{name: values.to(device) for name, values in one.items()} for one in given]
        start = tick()
        # On a GPU today's tools train in mixed precision.
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            plain.step(*moved)
        taken.append(tick() - start)
    return taken


OBJECTIVES = {
    "graddiff": Objective(GradientAscent(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "npo": Objective(NPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "simnpo": Objective(SimNPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "dpo": Objective(DPO(), None, CrossEntropy(), weights=(1.0, 0.0, 1.0)),
    "rmu": Objective(RMU(READ), None, ReferenceStates(READ), weights=(1.0, 0.0, 1200.0)),
    "default": Objective(),
}


def time_letheon(
    model: Any,
    tokenizer: Any,
    tuning: str,
    method: str,
    batch: int,
    words: int,
    steps: int,
    tick: Tick,
    **settings: Any,
) -> list[float]:
    """What each step of the trainer takes, with further settings of `UnlearnConfig`.

    "default" also takes an expected answer for each to forget; with "lora" its adapter is the default one.
    """
    forget, normal = data(words)
    default, clock = method == "default", Clock(tick)
    if tuning != "full" and fast_bf16() and not getattr(model, "is_quantized", False):
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
            **settings,
        )
        trainer = UnlearnTrainer(
            model,
            args,
            forget_dataset=forget,
            normal_dataset=normal,
            objective=OBJECTIVES[method],
            peft_config=adapter_for(model) if default and tuning == "lora" else adapter(model, tuning, method),
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


def measure(who: str, tuning: str, method: str, batch: int, words: int, steps: int, *, count: bool) -> dict[str, Any]:
    """One variant, in this process: its seconds and memory, or its FLOPs."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    folder = str(demo_model())
    checkpointed = partial(time_letheon, gradient_checkpointing=True)
    ways: dict[str, Callable[..., list[Any]]] = {
        "plain": time_plain,
        "letheon": time_letheon,
        "checkpointed": checkpointed,
    }
    with Measured() as cost, FlopCounterMode(display=False) if count else nullcontext() as counter:
        tick = counter.get_total_flops if counter is not None else time.process_time
        model, tokenizer = load_model(folder), load_tokenizer(folder)
        taken = ways[who](model, tokenizer, tuning, method, batch, words, steps + WARM_UP, tick)[WARM_UP:]
    if count:
        return {"flops": taken}
    peak = peak_rate(torch.bfloat16 if who != "plain" and fast_bf16() else torch.float32)
    return {"seconds": taken, "peak_mb": cost.peak_mb, "peak": peak}


def row(batch: int, words: int, own: Variant, found: dict[Variant, list[dict[str, Any]]]) -> dict[str, Any]:
    """What is written of one variant, the last of whose measurements is the count."""
    who, tuning, method = own
    rival = "plain", tuning, "npo" if method == "default" else method
    seconds = {v: statistics.median(s for run in found[v][:-1] for s in run["seconds"]) for v in (own, rival)}
    peak = {v: statistics.median(run["peak_mb"] for run in found[v][:-1]) for v in (own, rival)}
    flops = found[own][-1]["flops"]
    # Step by step: they differ in length.
    rates = [
        work / taken / run["peak"]
        for run in found[own][:-1]
        for work, taken in zip(flops, run["seconds"], strict=True)
    ]
    return {
        "batch": batch,
        "words": words,
        "tuning": tuning,
        "who": who,
        "method": method,
        "seconds": round(seconds[own], 3),
        "gflop": round(statistics.median(flops) / 1e9),
        "share_of_peak": round(statistics.median(rates), 2),
        "peak_mb": round(peak[own]),
        "times_as_fast": round(seconds[rival] / seconds[own], 2),
        "share_of_memory": round(peak[own] / peak[rival], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--words", type=int, nargs="+", default=[0], help="of general text before each question")
    parser.add_argument("--method", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tuning", nargs="+", choices=TUNINGS, default=list(TUNINGS))
    parser.add_argument("--checkpointing", action="store_true", help="also ours with gradient checkpointing")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "steps.csv")
    parser.add_argument("--one", nargs=3, metavar=("WHO", "TUNING", "METHOD"), help="measure this alone, as JSON")
    parser.add_argument("--count", action="store_true", help="with --one: FLOPs in place of seconds")
    given = parser.parse_args()
    if given.one:
        who, tuning, method = given.one
        measured = measure(who, tuning, method, given.batch[0], given.words[0], given.steps, count=given.count)
        print(json.dumps(measured))
        return
    # What the default is held against comes with it.
    plain = [
        method for method in METHODS if method in given.method or (method == "npo" and "default" in given.method)
    ]
    variants = [("plain", tuning, method) for tuning in given.tuning for method in plain if method != "default"]
    ours = ("letheon", "checkpointed") if given.checkpointing else ("letheon",)
    trained = [method for method in given.method if method != "fine-tune"]
    variants += [(who, tuning, method) for who in ours for tuning in given.tuning for method in trained]
    variants = [(who, tuning, method) for who, tuning, method in variants if goes_with(tuning, method)]
    rows = []
    for batch, words in itertools.product(given.batch, given.words):
        sizes = ["--batch", str(batch), "--words", str(words), "--steps", str(given.steps)]
        found: dict[Variant, list[dict[str, Any]]] = {variant: [] for variant in variants}
        for more in (*[()] * given.rounds, ("--count",)):
            for variant in variants:
                command = [sys.executable, __file__, "--one", *variant, *sizes, *more]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[variant].append(json.loads(done.stdout.splitlines()[-1]))
        rows += [row(batch, words, variant, found) for variant in variants]
        print(*rows[-len(variants) :], sep="\n", flush=True)
    new = [{name: str(value) for name, value in one.items()} for one in rows]
    same = ("batch", "words", "tuning", "who", "method")
    again = {tuple(one[name] for name in same) for one in new}
    kept = [one for one in read_rows(given.csv) if tuple(one.get(name, "0") for name in same) not in again]
    write_rows(given.csv, [*kept, *new])


if __name__ == "__main__":
    main()
