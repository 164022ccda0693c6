"""How the judge's precision and recall move what unlearning achieves: runs that differ in their screening alone.

    python benchmarks/end_to_end.py --seeds 0 1 2
    python benchmarks/end_to_end.py --seeds 3 --variants judge recall-0.8 --csv three.csv --runs runs/three

The demo's fine-tuned model and control; each variant screens, unlearns and evaluates with the real stages:

    labels        the true labels
    judge         the demo's judges
    reviewed      the same, after a person, who is always right, has decided the 50 most doubtful turns
    recall-R      the true labels but for a share 1 − R of those to forget, drawn at random, which pass for normal
    precision-P   the true labels and, drawn at random, as many normal dialogues besides as bring the precision to P

A smaller recall misses what a larger one misses, and more; precision likewise. A real judge does not err at random.

No run knows the truth but through its screening: the log that the judges see has no labels, a degraded one has false
ones. What counts is scored here, alike for all variants of a seed: every dialogue that is truly to be forgotten, its
reworded questions (those that no probe uses), and 30 normal dialogues that are taken out of the log beforehand, so
that no variant trains on them or takes them for bad. `verdict` is what the run itself believes.

A row is written as soon as it is known, and rows that the file has are not run again. A row takes what the stages of
the demo take, some five minutes on two cores; processes side by side want seeds and CSV files of their own.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
import transformers
from table import read_rows, write_rows

from letheon.bench.compare import ratio
from letheon.bench.look import memorised
from letheon.bench.rows import numbers
from letheon.chat import encode_turn
from letheon.console import Console
from letheon.demo.fine_tune import fine_tune
from letheon.demo.weights import demo_model
from letheon.evaluate.teacher_forced import TokenScores, score_sequences
from letheon.models import load_model, load_tokenizer
from letheon.pipeline import prepare, run_all, screen_stage
from letheon.recipe import Recipe, load_recipe
from letheon.records import NORMAL, Dialogue, Results, Turn, write_jsonl
from letheon.review.exchange import import_queue, write_queue
from letheon.run import Run
from letheon.screen import score_screening

RESERVED = 30
"""Normal dialogues that no run sees."""
REVIEWED = 50
"""Turns that a person decides."""
DEGRADED = re.compile(r"(recall|precision)-(0\.\d+)")
VARIANTS = ["labels", "judge", "reviewed"]
VARIANTS += [f"{what}-{share}" for what in ("recall", "precision") for share in (0.9, 0.7, 0.5)]

Truth = dict[str, list[Turn]]
"""What the models of a seed are scored on: "forget", "paraphrase", "normal"; and "seen", the log's normal ones."""
Scores = dict[str, list[TokenScores]]


def variant(name: str) -> str:
    """Check a variant's name."""
    if name not in VARIANTS and not DEGRADED.fullmatch(name):
        raise argparse.ArgumentTypeError(f"{name!r}: give labels, judge, reviewed, recall-0.8 or precision-0.8")
    return name


def demo_recipe(*settings: str) -> Recipe:
    with as_file(files("letheon") / "recipes" / "demo.yaml") as path:
        return load_recipe(path, settings)


def degraded(log: Sequence[Dialogue], name: str, seed: int) -> list[Dialogue]:
    """The log under labels that are wrong at random, at the precision or recall that the variant's name says."""
    found = DEGRADED.fullmatch(name)
    assert found
    what, share = found[1], float(found[2])
    draw = random.Random(f"{seed}-degraded")
    bad = [dialogue for dialogue in log if dialogue.label == "forget"]
    good = [dialogue for dialogue in log if dialogue.label == "normal"]
    categories = [dialogue.category for dialogue in bad]
    # All shuffled and named at once: what a variant gets wrong, one that is worse gets wrong too.
    draw.shuffle(bad)
    draw.shuffle(good)
    named = [draw.choice(categories) for _ in good]
    if what == "recall":
        missed = bad[: round(len(bad) * (1 - share))]
        wrong = {one.id: one.model_copy(update={"label": "normal", "category": NORMAL}) for one in missed}
    else:
        more = round(len(bad) * (1 / share - 1))
        if more >= len(good):
            raise SystemExit(f"{name}: the log has {len(good)} normal dialogues, too few for that many false alarms")
        pairs = zip(good[:more], named, strict=False)
        wrong = {one.id: one.model_copy(update={"label": "forget", "category": kind}) for one, kind in pairs}
    return [wrong.get(dialogue.id, dialogue) for dialogue in log]


def review(run: Run, console: Console, truth: dict[str, Dialogue]) -> None:
    """Decide the most doubtful turns by the truth, by way of the queue file; what is no last turn is normal."""
    queue = run.folder / "queue.jsonl"
    queue.unlink(missing_ok=True)
    write_queue(run, queue, console)
    rows = [json.loads(line) for line in queue.read_text(encoding="utf-8").splitlines()]
    for row in rows[:REVIEWED]:
        dialogue = truth[row["id"]]
        bad = dialogue.label == "forget" and row["turn"] == dialogue.last_turn.index
        row |= {"decision": "forget", "category": dialogue.category} if bad else {"decision": "normal"}
    queue.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    import_queue(run, queue, console)


def score(folder: str, truth: Truth) -> Scores:
    model, tokenizer = load_model(folder).eval(), load_tokenizer(folder)
    return {name: score_sequences(model, [encode_turn(tokenizer, t) for t in turns]) for name, turns in truth.items()}


def mean_probability(scores: Sequence[TokenScores]) -> float:
    return memorised(scores)["probability"]


def kept(before: Sequence[TokenScores], after: Sequence[TokenScores]) -> float:
    """Probability after to before."""
    return ratio(mean_probability(after), mean_probability(before))


def outcome(run: Run, log: Sequence[Dialogue], truth: Truth, scores: dict[str, Scores]) -> dict[str, Any]:
    """What became of a run, by the truth."""
    results, verdicts = Results.load(run.results_file), run.verdicts()
    assert results.verdict
    assert results.stop
    flagged = {(verdict.id, verdict.turn) for verdict in verdicts if verdict.decision == "forget"}
    found = score_screening(verdicts, log)
    row: dict[str, float] = {}
    for model, own in scores.items():
        for name in ("forget", "paraphrase", "normal"):
            known = memorised(own[name])
            row[f"{model}_{name}_probability"] = known["probability"]
            row[f"{model}_{name}_extraction"] = known["extraction_strength"]
    before, after = scores["before"], scores["after"]

    def some(own: Scores, name: str, wanted: bool) -> list[TokenScores]:
        pairs = zip(truth[name], own[name], strict=True)
        return [one for turn, one in pairs if ((turn.dialogue.id, turn.index) in flagged) == wanted]

    row |= {
        "normal_kept": kept(before["normal"], after["normal"]),
        # The two kinds of error by themselves: what was missed, and what was forgotten without need.
        "after_missed_probability": mean_probability(some(after, "forget", wanted=False)),
        "before_missed_probability": mean_probability(some(before, "forget", wanted=False)),
        "wrongly_forgotten_kept": kept(some(before, "seen", wanted=True), some(after, "seen", wanted=True)),
    }
    return {
        "precision": found.precision,
        "recall": found.recall,
        "n_forget": len(flagged),
        **numbers(row),
        "verdict": results.verdict.forgotten,
        "stop_step": results.stop.step,
        "stop_reason": results.stop.reason,
        "seconds_unlearn": results.seconds["unlearn"],
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def models_of(log: Sequence[Dialogue], seed: int, console: Console) -> dict[str, str]:
    """The demo's model, which knows the log by heart, and the control that never saw what is to be forgotten."""
    good = [dialogue for dialogue in log if dialogue.label == "normal"]
    taught = {"before": log, "control": good}
    base = demo_model()
    return {name: str(fine_tune(console, name, base, own, seed).folder) for name, own in taught.items()}


def finished(name: str, seed: int, runs: Path, log: Sequence[Dialogue], models: dict[str, str]) -> Run:
    """Run a variant from its screening to its report; what has been finished is not done again."""
    judged = name in ("judge", "reviewed")
    if judged:
        shown = [dialogue.model_copy(update={"label": None, "category": None}) for dialogue in log]
    else:
        shown = list(log) if name == "labels" else degraded(log, name, seed)
    folder, file = runs / f"{seed}-{name}", runs / f"{seed}-{name}.jsonl"
    write_jsonl(file, shown)
    settings = {
        "output": str(folder),
        "seed": seed,
        "model": models["before"],
        "evaluate.control": models["control"],
        "data.dialogues": str(file),
        **({} if judged else {"screen.judges": ["labels"]}),
    }
    run = Run(demo_recipe(*(f"{key}={json.dumps(value)}" for key, value in settings.items())))
    console = Console()
    if name == "reviewed" and not run.decisions_file.is_file():
        prepare(run, whole=True)
        screen_stage(run, console)
        review(run, console, {dialogue.id: dialogue for dialogue in log})
    run_all(run, console)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", type=variant, nargs="+", default=VARIANTS)
    parser.add_argument("--runs", type=Path, default=Path("runs/end-to-end"))
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "end_to_end.csv")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    whole = Run(demo_recipe())
    good = [dialogue for dialogue in whole.dialogues if dialogue.label == "normal"]
    for seed in given.seeds:
        have = {row["variant"] for row in read_rows(given.csv) if row["seed"] == str(seed)}
        missing = [name for name in given.variants if name not in have]
        if not missing:
            continue
        models = models_of(whole.dialogues, seed, Console())
        reserved = random.Random(f"{seed}-reserved").sample(good, RESERVED)
        log = [dialogue for dialogue in whole.dialogues if dialogue not in reserved]
        truth = {
            "forget": [dialogue.last_turn for dialogue in log if dialogue.label == "forget"],
            "paraphrase": [p.dialogue.last_turn for p in whole.paraphrases() if p.split == "test"],
            "normal": [dialogue.last_turn for dialogue in reserved],
            "seen": [dialogue.last_turn for dialogue in log if dialogue.label == "normal"],
        }
        scores = {name: score(folder, truth) for name, folder in models.items()}
        for name in missing:
            run = finished(name, seed, given.runs, log, models)
            # A model that nothing was to be forgotten of has been left as it was.
            after = score(str(run.model_folder) if run.model_folder.is_dir() else models["before"], truth)
            row = {"seed": seed, "variant": name, **outcome(run, log, truth, {**scores, "after": after})}
            write_rows(given.csv, [*read_rows(given.csv), row])
            print(row, flush=True)


if __name__ == "__main__":
    main()
