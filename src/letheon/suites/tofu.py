"""TOFU (Maini et al., arXiv 2401.06121): model utility, forget quality and all that they are made of.

The reductions agree with the authors' published logs; the prompts are in the model's own chat template, and ROUGE-L
is without a stemmer, so that a model's numbers may differ a little from those of another harness.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from letheon.errors import InputError
from letheon.evaluate.forget_quality import forget_quality
from letheon.evaluate.look import Item
from letheon.evaluate.memorisation import probability
from letheon.evaluate.model_utility import SETS, model_utility
from letheon.evaluate.multiple_choice import probability_among
from letheon.evaluate.non_members import check_non_members
from letheon.evaluate.teacher_forced import TokenScores
from letheon.evaluate.truth_ratio import forgotten_truth, kept_truth, truth_probability, truth_ratio
from letheon.json_rows import check_files, read_rows
from letheon.records import Dialogue, Estimate, Message, NotComputed, Turn
from letheon.suites.options import Options
from letheon.suites.parts import answered, grouped, thinned
from letheon.suites.suite import Findings, Seen, Suite
from letheon.suites.trained_on import logs_of

WITH_OPTIONS = ("real_authors", "world_facts")
"""Sets whose answers are a word or two: their wrong answers are options, and nothing is reworded."""
HOLDOUT, FULL = "holdout.jsonl", "full.jsonl"


def read(folder: Path, options: Options) -> Suite:
    """Read a forget split and the three sets to be kept, each with reworded and wrong answers (`*_perturbed.jsonl`).

    `holdout.jsonl` holds questions and answers that the model was never trained on, for membership.

    Raises:
        InputError: A file is missing or faulty, or the holdout was trained on.
    """
    files = {"forget": f"{options.split}_perturbed.jsonl"} | {name: f"{name}_perturbed.jsonl" for name in SETS}
    check_files(folder, list(files.values()))
    rows = {name: thinned(_rows(folder / file, name), options.limit) for name, file in files.items()}
    given: dict[str, list[Item]] = {}
    for name, own in rows.items():
        given[name] = [_turn(row, row["answer"]) for row in own]
        given[f"{name}: wrong"] = [_turn(row, wrong) for row in own for wrong in row["perturbed_answer"]]
        if name not in WITH_OPTIONS:
            given[f"{name}: reworded"] = [_turn(row, row["paraphrased_answer"]) for row in own]
    asked = {name: given[name] for name in rows}
    named = [folder / file for file in files.values()]
    if (folder / HOLDOUT).is_file():
        given["holdout"] = _holdout(folder, [files["forget"], files["retain"]], options)
        named.append(folder / HOLDOUT)

    def measure(seen: Seen, control: Seen | str) -> Findings:
        findings = Findings()
        for name, own in rows.items():
            findings.add(name, answered(seen.scores[name], seen.answers[name], asked[name]))
            findings.add(name, _truth(name, own, seen))
        ours = findings.column("forget", "truth_ratio")
        if isinstance(control, Seen):
            theirs = [row["truth_ratio"] for row in _truth("forget", rows["forget"], control)]
            found = forget_quality(ours, theirs)
            for metric, value in (("forget_quality", found.p_value), ("ks_distance", found.distance)):
                broken = NotComputed(not_computed="a truth ratio is not a number: the model is broken")
                given_value = Estimate(mean=value, stderr=None, n=len(ours))
                findings.set("forget", metric, broken if value != value else given_value)
        else:
            findings.lacks("forget", ["forget_quality", "ks_distance"], control)
        columns = {
            name: {
                "probability": findings.column(name, "option_probability" if name in WITH_OPTIONS else "probability"),
                "rouge_l": findings.column(name, "rouge_l"),
                "kept_truth": findings.column(name, "kept_truth"),
            }
            for name in SETS
        }
        findings.set("overall", "model_utility", model_utility(columns))
        return findings

    no_others = f"there is no {HOLDOUT}: questions and answers that the model was never trained on"
    return Suite(
        files=named,
        measure=measure,
        given=given,
        asked=asked,
        drawn=["forget"],
        members=("forget", "holdout") if "holdout" in given else no_others,
        kept={name: given[name] for name in SETS},
        notes=[f"forget set: {options.split}; prompts in the model's chat template; ROUGE-L without a stemmer"],
    )


def _truth(name: str, rows: Sequence[dict[str, Any]], seen: Seen) -> list[dict[str, float]]:
    """Of each question the truth ratio in its forms, and what else its reworded and wrong answers say."""
    own = seen.scores[name]
    reworded = own if name in WITH_OPTIONS else seen.scores[f"{name}: reworded"]
    wrong = grouped(seen.scores[f"{name}: wrong"], [len(row["perturbed_answer"]) for row in rows])
    found = []
    for one, other, several in zip(own, reworded, wrong, strict=True):
        losses = [tokens.loss for tokens in several]
        ratio = truth_ratio(other.loss, losses)
        scores = {"truth_ratio": ratio, "truth_probability": truth_probability(ratio)}
        if name == "forget":
            scores |= {"forgotten_truth": forgotten_truth(ratio)}
        else:
            scores |= {"kept_truth": kept_truth(ratio)}
        if name in WITH_OPTIONS:
            scores |= {"option_probability": probability_among(one.loss, losses)}
        else:
            scores |= {"paraphrased_probability": _probability(other)}
        found.append(scores)
    return found


def _probability(tokens: TokenScores) -> float:
    return probability(tokens.log_probs)


def _rows(path: Path, name: str) -> list[dict[str, Any]]:
    needed = ["question", "answer", "perturbed_answer"] + ([] if name in WITH_OPTIONS else ["paraphrased_answer"])
    rows = read_rows(path, *needed)
    for number, row in enumerate(rows, start=1):
        wrong = row["perturbed_answer"]
        texts = [row[field] for field in needed if field != "perturbed_answer"]
        texts += wrong if isinstance(wrong, list) and wrong else [None]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise InputError(
                f"{path}: row {number}: {', '.join(needed)} have to be texts, and perturbed_answer a list of them"
            )
    return [{**row, "id": f"row {number}"} for number, row in enumerate(rows, start=1)]


def _holdout(folder: Path, learnt: Sequence[str], options: Options) -> list[Item]:
    """The non-members, of which none may be in the full set, from which TOFU's models learn, or in parts of it."""
    known = [FULL] if (folder / FULL).is_file() else []
    pairs = {
        name: [(row["question"], row["answer"]) for row in read_rows(folder / name, "question", "answer", texts=True)]
        for name in (*known, *learnt, HOLDOUT)
    }
    others = pairs.pop(HOLDOUT)
    check_non_members(str(folder / HOLDOUT), others, {**pairs, **logs_of(options)})
    rows = [{"id": f"row {number}", "question": q, "answer": a} for number, (q, a) in enumerate(others, 1)]
    return [_turn(row, row["answer"]) for row in thinned(rows, options.limit)]


def _turn(row: dict[str, Any], answer: str) -> Turn:
    messages = (Message(role="user", content=row["question"]), Message(role="assistant", content=answer))
    return Dialogue(id=row["id"], messages=messages).last_turn
