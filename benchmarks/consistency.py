"""Does a model say different things when it makes things up? The consistency judge on SmolLM2's own answers.

    python benchmarks/consistency.py path/to/tofu

Every other question of TOFU's on the world and on real authors (109) is answered greedily. An answer is wrong if the
true one does not occur in it. The CSV has the AUROC of the judge's score against that, with a bootstrap interval of
95%, beside the one of the answer's length.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from table import write_rows

from letheon.demo.weights import demo_model
from letheon.embed import Embedder
from letheon.evaluate import greedy_answers
from letheon.models import load_model, load_tokenizer
from letheon.recipe import Consistency
from letheon.records import Dialogue, Message
from letheon.screen.consistency import ConsistencyJudge

FILES = ("world_facts_perturbed.jsonl", "real_authors_perturbed.jsonl")
TOKENS = 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tofu", type=Path, help="folder with TOFU's files")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "consistency.csv")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    lines = [line for name in FILES for line in (given.tofu / name).read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in lines][::2]
    name = str(demo_model())
    prompts = [[Message(role="user", content=row["question"])] for row in rows]
    answers = greedy_answers(load_model(name), load_tokenizer(name), prompts, max_new_tokens=TOKENS)
    wrong = np.array(
        [row["answer"].rstrip(".").lower() not in answer.lower() for row, answer in zip(rows, answers, strict=True)]
    )
    turns = [
        Dialogue(id=str(number), messages=(*prompt, Message(role="assistant", content=answer or "."))).last_turn
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True))
    ]
    opinions = ConsistencyJudge(Consistency(max_new_tokens=TOKENS), Embedder(), name).judge(turns)
    by_score = np.array([0.5 if opinion is None else opinion.score for opinion in opinions])
    by_length = np.array([float(len(answer)) for answer in answers])
    found = [
        {"by": "consistency", **auroc(wrong, by_score)},
        {"by": "answer length", **auroc(wrong, by_length)},
    ]
    for row in found:
        print(row)
    write_rows(given.csv, found)


def auroc(wrong: NDArray[np.bool_], scores: NDArray[np.float64], draws: int = 2000) -> dict[str, Any]:
    """AUROC, its interval over resampled questions, how many there are, and the share of wrong answers."""
    rng = np.random.default_rng(0)
    resampled = (rng.integers(0, len(wrong), len(wrong)) for _ in range(draws))
    values = [roc_auc_score(wrong[chosen], scores[chosen]) for chosen in resampled if len(set(wrong[chosen])) == 2]
    low, high = np.quantile(values, [0.025, 0.975])
    return {
        "auroc": round(float(roc_auc_score(wrong, scores)), 3),
        "low": round(float(low), 3),
        "high": round(float(high), 3),
        "n": len(wrong),
        "wrong": round(float(wrong.mean()), 3),
    }


if __name__ == "__main__":
    main()
