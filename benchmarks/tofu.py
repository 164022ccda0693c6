"""TOFU's forget01 on the demo's model: fine-tune a victim and a control, then unlearn by a recipe, for several seeds.

    python benchmarks/tofu.py --data ../shared/data/tofu --runs runs/tofu --seeds 0 1 2
    python benchmarks/target.py --run runs/tofu/lora-0 --method npo --tuning full --rate 1e-5 3e-5

The victim has learnt forget01 and 160 pairs of other authors (not of forget10); the control those 160 alone. Of the
reworded questions every second drives the stop rule, the others are for evaluation. The folder holds TOFU's files.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import transformers
from table import write_rows

from demo import row
from letheon.console import Console
from letheon.demo.fine_tune import Schooling, fine_tune
from letheon.demo.weights import demo_model
from letheon.dialogues import read_dialogues
from letheon.records import Results, write_text

RETAIN = 160
SCHOOLING = Schooling(epochs=5, learning_rate=1e-4)


def pairs(folder: Path, name: str) -> list[dict[str, Any]]:
    """Questions and answers of a file of TOFU's."""
    lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def dialogue(name: str, question: str, answer: str, **more: str) -> dict[str, Any]:
    """A row of a dialogue file."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": name, "messages": messages, **more}


def prepare(data: Path, folder: Path, seed: int) -> Path:
    """Write a seed's dialogues and its recipe, with the models fine-tuned; the recipe."""
    forget, reworded = pairs(data, "forget01"), pairs(data, "forget01_perturbed")
    hidden = {pair["question"] for pair in pairs(data, "forget10")}
    others = [pair for pair in pairs(data, "full") if pair["question"] not in hidden]
    log = [
        dialogue(f"f{n}", pair["question"], pair["answer"], label="forget", category="privacy")
        for n, pair in enumerate(forget)
    ] + [
        dialogue(f"n{n}", pair["question"], pair["answer"], label="normal")
        for n, pair in enumerate(random.Random(seed).sample(others, RETAIN))
    ]
    paraphrases = [
        dialogue(f"f{n}/p", pair["paraphrased_question"], pair["answer"], of=f"f{n}", split=("probe", "test")[n % 2])
        for n, pair in enumerate(reworded)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in (("log", log), ("paraphrases", paraphrases)):
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    dialogues = read_dialogues(folder / "log.jsonl")
    console, base = Console(), demo_model()
    victim = fine_tune(console, "tofu", base, dialogues, seed, SCHOOLING)
    retained = [one for one in dialogues if one.label == "normal"]
    control = fine_tune(console, "tofu-control", base, retained, seed, SCHOOLING)
    recipe = {
        "model": str(victim.folder),
        "data": {"dialogues": "log.jsonl", "paraphrases": "paraphrases.jsonl"},
        "screen": {"judges": ["labels"]},
        "evaluate": {"control": str(control.folder), "batch_size": 32},
    }
    write_text(folder / "recipe.yaml", json.dumps(recipe, indent=2))
    return folder / "recipe.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/tofu"))
    parser.add_argument("--runs", type=Path, default=Path("runs/tofu"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tuning", nargs="+", default=["lora"])
    parser.add_argument("--set", nargs="*", default=[], help="as of `letheon run`, for every run")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "tofu.csv")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    rows = []
    for seed in given.seeds:
        recipe = prepare(given.data, given.runs / f"data-{seed}", seed)
        for tuning in given.tuning:
            folder = given.runs / f"{tuning}-{seed}"
            if not (folder / "report.html").is_file():
                sets = [f"output={folder.resolve()}", f"seed={seed}", f"tuning.kind={tuning}", *given.set]
                command = [sys.executable, "-m", "letheon.cli", "run", str(recipe)]
                # A failed gate (exit code 1) is a result as well.
                done = subprocess.run([*command, *(part for one in sets for part in ("--set", one))], check=False)
                if done.returncode not in (0, 1):
                    sys.exit(done.returncode)
            rows.append(row(seed, tuning, Results.load(folder / "results.json")))
    write_rows(given.csv, rows)
    print(f"{given.csv}: {len(rows)} rows")


if __name__ == "__main__":
    main()
