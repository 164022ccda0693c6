"""Seconds to the forgetting target: a plain run of one method against Letheon's run on the same data.

    python benchmarks/demo.py --runs runs/bench --seeds 0 --tuning lora
    python benchmarks/target.py --run runs/bench/lora-0 --method npo --tuning full --rate 1e-5 3e-5

The plain run takes steps of `plain.py` on the dialogues that Letheon's run trained on, and is over when the old
answers' probability on the stop rule's probe is at its limit; looking there every few steps is not timed. Letheon's
row is what its run folder says of the whole stage, everything included. Both models are then scored alike.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import get_peft_model
from plain import Plain, padded
from steps import plain_lora
from table import read_rows, write_rows

from letheon.bench.look import memorised
from letheon.chat import Encoded, encode_dialogue, encode_turn
from letheon.evaluate.teacher_forced import score_sequences
from letheon.material import split_of
from letheon.models import in_eval_mode, load_model, load_tokenizer
from letheon.records import Results
from letheon.run import Run


def mean_probability(model: Any, sequences: Sequence[Encoded]) -> float:
    """Mean over the sequences of exp(mean log p) of their answers."""
    with in_eval_mode(model):
        return memorised(score_sequences(model, sequences))["probability"]


def shuffled(rows: list[Encoded], batch: int, pad: int, seed: int) -> Iterator[dict[str, Any]]:
    """Batches without end, a new order each time round."""
    draw = random.Random(seed)
    waiting: list[Encoded] = []
    while True:
        while len(waiting) < batch:
            waiting += draw.sample(rows, len(rows))
        chosen, waiting = waiting[:batch], waiting[batch:]
        yield padded([(row.ids, row.answer_mask) for row in chosen], pad)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a finished run folder")
    parser.add_argument("--method", choices=["graddiff", "npo"], default="npo")
    parser.add_argument("--tuning", choices=["full", "lora"], default="full")
    parser.add_argument("--rate", type=float, nargs="*", default=[1e-5])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--every", type=int, default=5, help="steps between looks at the probe")
    parser.add_argument("--most", type=float, default=900, help="seconds after which a plain run is given up")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "target.csv")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    run = Run.open(given.run)
    data, tokenizer = split_of(run), load_tokenizer(run.recipe.model)
    sets = {
        "forget": [encode_turn(tokenizer, turn) for turn in data.asked],
        "paraphrase": [encode_turn(tokenizer, turn) for turn in data.paraphrase],
        # The screening may have missed some that are to be forgotten.
        "normal_held_out": [
            encode_turn(tokenizer, dialogue.last_turn)
            for dialogue in data.normal_held_out
            if dialogue.label != "forget"
        ],
    }
    probe = [encode_turn(tokenizer, turn) for turn in data.probe]
    before = load_model(run.recipe.model).eval()
    held_out = mean_probability(before, sets["normal_held_out"])
    rows = []

    def add(who: str, rate: float | None, steps: int, seconds: float, model: Any) -> None:
        found = {name: mean_probability(model, own) for name, own in sets.items()}
        rows.append(
            {
                "run": given.run.name,
                "who": who,
                "rate": rate,
                "steps": steps,
                "seconds": round(seconds, 1),
                "probe": round(mean_probability(model, probe), 4),
                "forget": round(found["forget"], 4),
                "paraphrase": round(found["paraphrase"], 4),
                "normal_held_out_kept": round(found["normal_held_out"] / held_out, 4),
            }
        )
        print(rows[-1], flush=True)

    results = Results.load(run.results_file)
    assert results.stop is not None
    add("letheon", None, results.stop.step, results.seconds["unlearn"], load_model(str(run.model_folder)).eval())
    for rate in given.rate:
        model = load_model(run.recipe.model)
        if given.tuning == "lora":
            model = get_peft_model(model, plain_lora())
        plain, seconds, steps = Plain(model, given.method, rate), 0.0, 0
        device = next(model.parameters()).device
        forget = shuffled(
            [encode_turn(tokenizer, turn) for turn in data.forget], given.batch, tokenizer.pad_token_id, 0
        )
        normal = shuffled(
            [encode_dialogue(tokenizer, d) for d in data.normal], given.batch, tokenizer.pad_token_id, 1
        )
        while seconds < given.most:
            start = time.perf_counter()
            batches = [{name: values.to(device) for name, values in next(one).items()} for one in (forget, normal)]
            # On a GPU today's tools train in mixed precision.
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                plain.step(*batches)
            seconds += time.perf_counter() - start
            steps += 1
            if steps % given.every == 0 and mean_probability(model, probe) <= run.recipe.stop.probability:
                break
        add(f"plain {given.method} {given.tuning}", rate, steps, seconds, model.eval())
    write_rows(given.csv, [*read_rows(given.csv), *rows])


if __name__ == "__main__":
    main()
