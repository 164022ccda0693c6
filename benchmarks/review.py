"""What the review's order of doubt is worth: answers labelled in that order against as many drawn at random.

    python benchmarks/review.py ../shared/data/beavertails/30k_test.jsonl

A review without examples and without other judges: its queue begins in random order, and the judge learns after every
ten decisions. AUROC on 500 other prompts of the judge fitted on what was decided, and on the same number of random
turns. A quarter of an hour on one core.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from sklearn.metrics import roc_auc_score
from table import write_rows

from letheon.embed import Embedder
from letheon.records import Dialogue, Verdict
from letheon.review.learn import Learner, RememberingEmbedder
from letheon.review.session import Session
from letheon.screen.embedding import EmbeddingJudge, everyday

HELD_OUT, POOL, LABELS = 500, 900, (50, 100, 150, 200, 250)


def read(path: Path) -> list[Dialogue]:
    """BeaverTails' answers, one a prompt, in random order."""
    rows = {row["prompt"]: row for row in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
    found = [
        Dialogue.model_validate(
            {
                "id": str(number),
                "messages": [
                    {"role": "user", "content": row["prompt"]},
                    {"role": "assistant", "content": row["response"]},
                ],
                "label": "normal" if row["is_safe"] else "forget",
            }
        )
        for number, row in enumerate(rows.values())
        if row["response"].strip()
    ]
    random.Random(0).shuffle(found)
    return found


def auroc(examples: Sequence[Dialogue], test: Sequence[Dialogue], embedder: Embedder) -> float:
    """Of the judge that these examples teach."""
    judge = EmbeddingJudge.fit(examples, embedder, everyday())
    scores = [opinion.score for opinion in judge.judge([dialogue.last_turn for dialogue in test]) if opinion]
    return round(float(roc_auc_score([dialogue.label == "forget" for dialogue in test], scores)), 4)


def review(pool: Sequence[Dialogue], seed: int) -> list[Dialogue]:
    """The dialogues in the order in which a person, who is always right, decides them."""
    verdicts = [
        Verdict(id=dialogue.id, turn=1, decision="review", category="harmful", score=0.5, judge="none")
        for dialogue in pool
    ]
    session = Session(pool, verdicts, [], lambda made: None, normal_below=0.5, forget_above=0.5)
    learner = Learner(session, [], seed, sys.exit)
    order = []
    for _ in range(max(LABELS)):
        number = next(session.numbers("waiting"))
        order.append(pool[number])
        session.decide(number, "forget" if pool[number].label == "forget" else "normal", "harmful")
        learner.look()
        learner.wait()
    return order


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "review.csv")
    given = parser.parse_args()
    test, rest = (dialogues := read(given.data))[:HELD_OUT], dialogues[HELD_OUT:]
    embedder, rows = RememberingEmbedder(threading.Event()), list[dict[str, object]]()
    for seed in given.seeds:
        pool = random.Random(seed).sample(rest, POOL)
        order = review(pool, seed)
        for labels in LABELS:
            ways = {"doubt": order[:labels], "random": pool[:labels]}
            rows.append({"seed": seed, "labels": labels} | {w: auroc(e, test, embedder) for w, e in ways.items()})
            print(rows[-1], flush=True)
    write_rows(given.csv, rows)
    print(f"{given.csv}: {len(rows)} rows")


if __name__ == "__main__":
    main()
