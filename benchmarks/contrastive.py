"""Whether contrastive tuning makes the embedding judge better than cross-entropy does.

    python benchmarks/contrastive.py --data ../shared/data

Draws, 2000 labels and 1000 test dialogues as in `screening.py`. The encoder of `fine_tune.py` is tuned by another
loss, on h̄ of question and answer read together; then a logistic regression on h̄ / ‖h̄‖, as SetFit has it, alone and
averaged with the kernel ridge on untuned states. What is there is not measured again, so a call that was cut off goes
on where it was, and --sets, --methods, --draws and --csv split the work. No text is printed or kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from screening import SETS, Remembering, divide, truth, without_rare
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from table import read_rows, write_rows

from letheon.embed import Embedder
from letheon.screen import fine_tune
from letheon.screen.embedding import EmbeddingJudge, everyday
from letheon.screen.features import Matrix, Pair
from letheon.screen.fine_tune import TunedEncoder
from letheon.screen.head import log_losses, softmax
from letheon.screen.thresholds import auroc, calibration_error

LABELS = 2000
USUAL = ["beavertails", "halueval", "truthfulqa"]
FIGURES = ("auroc", "average_precision", "calibration_error", "log_loss", "expected_auroc")
COLD = 0.1
"""Temperature of the supervised contrast."""
WIDTH = 384


def same_and_other(targets: Any) -> tuple[Any, Any]:
    """Which pairs of a batch are of one category, and which are not: (B, B) each, without an example with itself."""
    same = targets[:, None] == targets[None]
    own = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    return same & ~own, ~same


def cosine_pairs(states: Any, targets: Any) -> Any:
    """SetFit's loss on all pairs of a batch: (cos − 1)² where categories agree, cos² where they do not.

    Either kind counts half, as SetFit draws as many of one as of the other (arXiv 2209.11055).
    """
    unit = torch.nn.functional.normalize(states, dim=1)
    same, other = same_and_other(targets)
    cosine = unit @ unit.T
    near = ((cosine - 1).square() * same).sum() / same.sum().clamp(min=1)
    return near + (cosine.square() * other).sum() / other.sum().clamp(min=1)


def supervised_contrast(states: Any, targets: Any) -> Any:
    """−mean log exp(cos(i, p) / τ) / Σ_{a ≠ i} exp(cos(i, a) / τ), over the p of i's category.

    Khosla et al., arXiv 2004.11362, equation 2.
    """
    unit = torch.nn.functional.normalize(states, dim=1)
    same, other = same_and_other(targets)
    # Not −∞: an example alone in its batch would have no gradient that is a number.
    logits = (unit @ unit.T / COLD).masked_fill(~(same | other), -1e4)
    found, count = (logits.log_softmax(1) * same).sum(1), same.sum(1)
    return -(found / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


class Contrastive(TunedEncoder):
    """Tuned by a loss of pairs; its scores are log-probabilities of a regression on h̄ / ‖h̄‖ of what it was tuned on.

    Attributes:
        contrast: The loss.
    """

    contrast: Callable[[Any, Any], Any]

    def __init__(self, embedder: Embedder, categories: int):
        super().__init__(embedder, categories)
        self._known: dict[Pair, int] = {}
        self._fitted: Any = None

    @classmethod
    def fit(cls, embedder: Embedder, pairs: Sequence[Pair], targets: Any, *others: Any) -> Contrastive:
        """Tune, and keep what the regression is fitted on."""
        tuned = super().fit(embedder, pairs, targets, *others)
        assert isinstance(tuned, cls)
        tuned._known = dict(zip(pairs, targets.tolist(), strict=True))
        return tuned

    def loss(self, states: Any, targets: Any) -> Any:
        """That of pairs."""
        return type(self).contrast(states, targets)

    def towards(self, other: TunedEncoder, share: float) -> None:
        """The mean of weights has the examples of all; its regression is fitted anew."""
        super().towards(other, share)
        assert isinstance(other, Contrastive)
        self._known |= other._known
        self._fitted = None

    def scores(self, pairs: Sequence[Pair]) -> Matrix:
        """Log-probabilities (n, categories)."""
        if self._fitted is None:
            states = self._unit(list(self._known))
            self._fitted = LogisticRegression(max_iter=1000).fit(states, list(self._known.values()))
        found = np.zeros((len(pairs), self._head.out_features))
        found[:, self._fitted.classes_] = self._fitted.predict_proba(self._unit(pairs))
        return np.asarray(np.log(np.maximum(found, 1e-12)))

    def _unit(self, pairs: Sequence[Pair]) -> Matrix:
        return self._read(pairs, partial(torch.nn.functional.normalize, dim=1), WIDTH)


METHODS: dict[str, tuple[Callable[[Any, Any], Any], int, int]] = {
    "cosine pairs": (cosine_pairs, 16, 4),
    "supervised contrast": (supervised_contrast, 64, 8),
}
"""Loss, batch and epochs; rates and layers are the judge's. The supervised contrast wants many others in a batch."""


def measured(probabilities: Matrix, labels: Any) -> dict[str, float]:
    scores = 1 - probabilities[:, 0]
    return {
        "auroc": auroc(scores, labels),
        "average_precision": float(average_precision_score(labels, scores)),
        "calibration_error": calibration_error(scores, labels),
        "log_loss": float(log_losses(probabilities, labels).mean()),
    }


def figures_of(
    embedder: Embedder, data: Path, name: str, method: str, draw: int, most: int
) -> tuple[int, dict[str, dict[str, float]]]:
    """Labels, and the figures of a method on a draw's test dialogues: the encoder's alone, and with the ridge."""
    train, test = divide(SETS[name](data), draw)
    known, turns = train[:most], [row.last_turn for row in test]
    contrast, batch, epochs = METHODS[method]
    encoder = type("Tuned", (Contrastive,), {"contrast": staticmethod(contrast)})
    with patch.multiple(fine_tune, BATCH=batch, EPOCHS=epochs, TunedEncoder=encoder):
        judge = EmbeddingJudge.fit(without_rare(known), embedder, everyday(), draw, fine_tune=True)
        second = judge._second
        assert second is not None
        both = measured(judge._probabilities(turns), truth(test))
        pairs = [(turn.question, turn.answer) for turn in turns]
        alone = measured(softmax(second.encoder.scores(pairs) / second.own), truth(test))
    both["expected_auroc"] = auroc(np.array([opinion.score for opinion in judge.held_out]), truth(judge.labelled))
    own = f"{method}: logistic regression, mean of the folds' weights"
    return len(known), {own: alone, f"{own} + kernel ridge": both}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of public data sets")
    parser.add_argument("--sets", nargs="*", choices=USUAL, default=USUAL)
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--draws", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--labels", type=int, default=LABELS, help="at most so many, for a trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "contrastive.csv")
    given = parser.parse_args()
    rows = read_rows(given.csv)
    embedder = Remembering(None)
    embedder.encoder()[1].to(given.device)
    cores = f"{torch.get_num_threads()} threads of a CPU"
    same = {"layers": fine_tune.LAYERS, "rate": fine_tune.RATE, "decay": fine_tune.DECAY}
    for draw in given.draws:
        for name in given.sets:
            for method in given.methods:
                where = {"dialogues": f"odd: draw {draw}", "set": name}
                there = [row for row in rows if where.items() <= row.items()]
                if any(row["method"].startswith(method) for row in there):
                    continue
                labels, found = figures_of(embedder, given.data, name, method, draw, given.labels)
                for own, figures in found.items():
                    rounded = {key: round(figures[key], 4) if key in figures else "" for key in FIGURES}
                    card = cores if given.device == "cpu" else torch.cuda.get_device_name(given.device)
                    rows.append({**where, "labels": labels, "method": own, **same, **rounded, "card": card})
                    print(rows[-1], flush=True)
                write_rows(given.csv, rows)


if __name__ == "__main__":
    main()
