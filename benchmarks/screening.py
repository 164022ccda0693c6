"""How well the embedding judge tells what must go, on public labelled dialogues.

    python benchmarks/screening.py --data ../shared/data --parts learn active cost

Choices (features, kernel, calibration) were made on the dialogues whose prompt has an even hash. Test dialogues are
drawn from the other half, anew for each seed; training ones from all the rest. Dialogues with one prompt are on one
side. No text is printed or kept.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from table import read_rows, write_rows

from letheon.embed import Embedder
from letheon.records import Dialogue, Message
from letheon.screen import embedding
from letheon.screen.active import pick
from letheon.screen.embedding import EmbeddingJudge, everyday
from letheon.screen.thresholds import auroc, calibration_error, choose_thresholds, with_interval

LABELS = (100, 300, 1000, 2000)
TESTED = 1000
RARE = 10


def dialogue(name: str, question: str, answer: str, forget: bool, category: str = "undesired") -> Dialogue:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Dialogue(
        id=name,
        messages=messages,
        label="forget" if forget else "normal",
        category=category if forget else None,
    )


def beavertails(data: Path) -> list[Dialogue]:
    rows = [json.loads(line) for line in (data / "beavertails" / "30k_test.jsonl").open(encoding="utf-8")]
    names = [next((name for name, is_so in row["category"].items() if is_so), "undesired") for row in rows]
    return [
        dialogue(f"b{n}", row["prompt"], row["response"], not row["is_safe"], name)
        for n, (row, name) in enumerate(zip(rows, names, strict=True))
    ]


def halueval(data: Path) -> list[Dialogue]:
    text = (data / "halueval" / "general_data.json").read_text(encoding="utf-8")
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    return [
        dialogue(f"h{n}", row["user_query"], row["chatgpt_response"], row["hallucination"] == "yes", "hallucination")
        for n, row in enumerate(rows)
    ]


def truthfulqa(data: Path) -> list[Dialogue]:
    rows = csv.DictReader((data / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8-sig"))
    answers = [
        (row["Question"], answer.strip(), wrong)
        for row in rows
        for field, wrong in (("Correct Answers", False), ("Incorrect Answers", True))
        for answer in row[field].split(";")
        if answer.strip()
    ]
    return [dialogue(f"t{n}", q, a, wrong, "hallucination") for n, (q, a, wrong) in enumerate(answers)]


def halueval_qa(data: Path) -> list[Dialogue]:
    rows = [json.loads(line) for line in (data / "halueval" / "qa_one-turn_data.json").open(encoding="utf-8")]
    answers = [
        (row["question"], row[f], f == "hallucinated_answer")
        for row in rows
        for f in ("right_answer", "hallucinated_answer")
    ]
    return [dialogue(f"q{n}", q, a, wrong, "hallucination") for n, (q, a, wrong) in enumerate(answers)]


SETS: dict[str, Callable[[Path], list[Dialogue]]] = {
    "beavertails": beavertails,
    "halueval": halueval,
    "truthfulqa": truthfulqa,
    "halueval-qa": halueval_qa,
}


class Remembering(Embedder):
    """Embeds each text once; what it knows can be kept in a file (numbers under hashes)."""

    def __init__(self, file: Path | None):
        super().__init__()
        self._file = file
        self._known: dict[str, Any] = {}
        if file is not None and file.is_file():
            with np.load(file) as kept:
                self._known = dict(zip(kept["keys"].tolist(), kept["states"], strict=True))

    def encode_layers(self, texts: Sequence[str], layers: Sequence[int]) -> Any:
        """Layers 2 and 4, as the judge asks for them."""
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            states = super().encode_layers(list(new.values()), (2, 4))
            self._known |= dict(zip(new, states, strict=True))
            if self._file is not None and len(new) > 100:
                np.savez(self._file, keys=list(self._known), states=np.stack(list(self._known.values())))
        rows = np.stack([self._known[key] for key in keys]).reshape(len(keys), 2, -1)
        return rows[:, [{2: 0, 4: 1}[layer] for layer in layers]].reshape(len(keys), -1)


def prompt_hash(one: Dialogue) -> int:
    return int(hashlib.sha256(one.last_turn.question.encode()).hexdigest()[:8], 16)


def divide(rows: Sequence[Dialogue], seed: int) -> tuple[list[Dialogue], list[Dialogue]]:
    """Training dialogues in random order, and test dialogues of the half on which nothing was chosen."""
    draw = np.random.default_rng(seed)
    hashes = np.array([prompt_hash(row) for row in rows])
    odd = draw.permutation(np.unique(hashes[hashes % 2 == 1]))
    test, count = set[int](), Counter(hashes.tolist())
    size = 0
    for one in odd.tolist():
        if size >= TESTED:
            break
        test.add(one)
        size += count[one]
    order = draw.permutation(len(rows)).tolist()
    return [rows[n] for n in order if hashes[n] not in test], [rows[n] for n in order if hashes[n] in test]


def without_rare(rows: Sequence[Dialogue]) -> list[Dialogue]:
    """A category with fewer than ten examples is learnt as "undesired"."""
    count = Counter(row.category for row in rows)
    return [
        row.model_copy(update={"category": "undesired"}) if row.category and count[row.category] < RARE else row
        for row in rows
    ]


def binary(rows: Sequence[Dialogue]) -> list[Dialogue]:
    return [row.model_copy(update={"category": "undesired"}) if row.category else row for row in rows]


def truth(rows: Sequence[Dialogue]) -> Any:
    return np.array([row.label == "forget" for row in rows])


def score(judge: EmbeddingJudge, rows: Sequence[Dialogue]) -> Any:
    return np.array([opinion.score for opinion in judge.judge([row.last_turn for row in rows]) if opinion])


def measured(scores: Any, rows: Sequence[Dialogue], *, calibrated: bool = True) -> dict[str, Any]:
    labels = truth(rows)
    found = with_interval(auroc, scores, labels, 0)
    assert found is not None
    return {
        "tested": len(rows),
        "base_rate": round(float(labels.mean()), 3),
        "auroc": round(found.estimate, 4),
        "auroc_low": round(found.low, 4),
        "auroc_high": round(found.high, 4),
        "average_precision": round(float(average_precision_score(labels, scores)), 4),
        "calibration_error": round(calibration_error(scores, labels), 4) if calibrated else "",
    }


def baselines(train: Sequence[Dialogue], test: Sequence[Dialogue]) -> dict[str, Any]:
    """Scores of what a judge must beat: the answer's length, and words with a logistic regression."""

    def lengths(rows: Sequence[Dialogue]) -> Any:
        return np.log1p([[len(row.last_turn.answer)] for row in rows])

    def answers(rows: Sequence[Dialogue]) -> list[str]:
        return [row.last_turn.answer for row in rows]

    length = make_pipeline(StandardScaler(), LogisticRegression()).fit(lengths(train), truth(train))
    words = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2), LogisticRegression(C=3, max_iter=500)
    ).fit(answers(train), truth(train))
    return {
        "answer length": length.predict_proba(lengths(test))[:, 1],
        "TF-IDF + LR": words.predict_proba(answers(test))[:, 1],
    }


def held_to(judge: EmbeddingJudge, scores: Any, test: Sequence[Dialogue]) -> dict[str, Any]:
    """What targets of .95 recall and .9 precision, set on the training labels, give on the test dialogues."""
    seen = np.array([opinion.score for opinion in judge.held_out])
    labels, found = truth(judge.labelled), truth(test)
    if labels.sum() < 45:
        return {"expected_auroc": round(auroc(seen, labels), 4)}
    cut = choose_thresholds(seen.tolist(), labels.tolist(), target_recall=0.95).forget_above
    decided = scores >= cut
    return {
        "expected_auroc": round(auroc(seen, labels), 4),
        "recall_at_target_95": round(float(decided[found].mean()), 4),
        "precision_at_target_95": round(float(found[decided].mean()), 4),
    }


def learn(
    data: Path, embedder: Embedder, seeds: Sequence[int], names: Sequence[str], add: Callable[..., None]
) -> None:
    """Learning curves, with baselines, calibration and targets; and how a judge does on the other sets."""
    own = {name: SETS[name](data) for name in SETS}
    for seed in seeds:
        tests = {name: divide(rows, seed)[1] for name, rows in own.items()}
        for name in names:
            train = divide(own[name], seed)[0]
            for number in LABELS:
                if number > len(train):
                    continue
                rows = train[:number]
                for what, scores in baselines(rows, tests[name]).items():
                    add(
                        set=name,
                        judge=what,
                        labels=number,
                        seed=seed,
                        **measured(scores, tests[name], calibrated=False),
                    )
                forms = {"embedding": without_rare(rows)}
                if name == "beavertails":
                    forms["embedding, one category"] = binary(rows)
                for what, examples in forms.items():
                    start = time.process_time()
                    judge = EmbeddingJudge.fit(examples, embedder, everyday(), seed)
                    spent = round(time.process_time() - start, 1)
                    scores = score(judge, tests[name])
                    add(
                        set=name,
                        judge=what,
                        labels=number,
                        seed=seed,
                        **measured(scores, tests[name]),
                        **held_to(judge, scores, tests[name]),
                        fit_cpu_seconds=spent,
                    )
                if number == LABELS[-1]:
                    for other in set(own) - {name}:
                        found = measured(score(judge, tests[other]), tests[other])
                        add(set=f"{name} → {other}", judge=what, labels=number, seed=seed, **found)
        if seed == seeds[0]:
            judge = EmbeddingJudge.prior(embedder)
            for name, test in tests.items():
                found = measured(score(judge, test), test)
                add(set=f"prior → {name}", judge="embedding", labels=0, seed=seed, **found)


def words(
    data: Path, embedder: Embedder, seeds: Sequence[int], names: Sequence[str], add: Callable[..., None]
) -> None:
    """The judge where no embedder is installed."""
    found, embedding.has_embedder = embedding.has_embedder, lambda: False
    try:
        for seed in seeds:
            for name in names:
                train, test = divide(SETS[name](data), seed)
                for number in (300, 2000):
                    judge = EmbeddingJudge.fit(binary(train[:number]), embedder, everyday(), seed)
                    row = measured(score(judge, test), test)
                    add(set=name, judge=f"embedding, {judge.form}", labels=number, seed=seed, **row)
    finally:
        embedding.has_embedder = found


def tune(
    data: Path, embedder: Embedder, seeds: Sequence[int], names: Sequence[str], add: Callable[..., None]
) -> None:
    """The judge with MiniLM tuned on the labels, too: hours on a CPU."""
    for seed in seeds:
        for name in names:
            train, test = divide(SETS[name](data), seed)
            for number in (300, 1000, 2000):
                start = time.process_time()
                examples = without_rare(train[:number])
                judge = EmbeddingJudge.fit(examples, embedder, everyday(), seed, fine_tune=True)
                spent = round(time.process_time() - start, 1)
                scores = score(judge, test)
                add(
                    set=name,
                    judge="embedding, fine-tuned",
                    labels=number,
                    seed=seed,
                    **measured(scores, test),
                    **held_to(judge, scores, test),
                    fit_cpu_seconds=spent,
                )


def active(
    data: Path, embedder: Embedder, seeds: Sequence[int], names: Sequence[str], add: Callable[..., None]
) -> None:
    """Labels that `pick` asks for, twenty at a time, against random ones."""
    for name in names:
        rows = binary(SETS[name](data))
        for seed in seeds:
            train, test = divide(rows, seed)
            pool = train[:1500]
            for number in (40, 60, 80, 100, 250):
                judge = EmbeddingJudge.fit(pool[:number], embedder, everyday(), seed)
                add(set=name, judge="random labels", labels=number, seed=seed, **measured(score(judge, test), test))
            # The first that hold two of either label.
            chosen = list(range(next(n for n in (20, 40, 60) if 1 < truth(pool[:n]).sum() < n - 1)))
            while len(chosen) < 100:
                judge = EmbeddingJudge.fit([pool[n] for n in chosen], embedder, everyday(), seed)
                rest = sorted(set(range(len(pool))) - set(chosen))
                turns = [pool[n].last_turn for n in rest]
                scores = score(judge, [pool[n] for n in rest]).tolist()
                chosen += [rest[n] for n in pick(scores, judge.features(turns), 20, seed)]
                judge = EmbeddingJudge.fit([pool[n] for n in chosen], embedder, everyday(), seed)
                row = measured(score(judge, test), test)
                add(set=name, judge="active labels", labels=len(chosen), seed=seed, **row)


def cost(data: Path, _: Embedder, seeds: Sequence[int], names: Sequence[str], add: Callable[..., None]) -> None:
    """CPU time of a judgement on one core, with nothing remembered."""
    for name in names:
        train, test = divide(SETS[name](data), seeds[0])
        embedder = Embedder()
        judge = EmbeddingJudge.fit(binary(train[:300]), embedder, everyday())
        score(judge, test[:20])
        start = time.process_time()
        score(judge, test[:300])
        add(
            set=name,
            judge="embedding, cost",
            labels=300,
            seed=seeds[0],
            ms_a_dialogue=round((time.process_time() - start) / 300 * 1000, 1),
        )


PARTS = {"learn": learn, "words": words, "active": active, "cost": cost, "tune": tune}
USUAL = ["learn", "words", "active", "cost"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of public data sets")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=USUAL)
    parser.add_argument("--sets", nargs="*", choices=SETS, default=["beavertails", "halueval", "truthfulqa"])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--remember", type=Path, help="file for the hidden states, so that a second call is quick")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "screening.csv")
    given = parser.parse_args()
    rows = read_rows(given.csv)
    embedder = Remembering(given.remember)

    def add(**row: Any) -> None:
        rows.append(row)
        write_rows(given.csv, rows)
        print(row, flush=True)

    for part in given.parts:
        PARTS[part](given.data, embedder, given.seeds, given.sets, add)


if __name__ == "__main__":
    main()
