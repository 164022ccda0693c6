"""The judge that learns from labelled examples: MiniLM features and a calibrated logistic regression."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import numpy as np
from numpy.typing import NDArray

from letheon.dialogues import read_dialogues
from letheon.embed import Embedder
from letheon.errors import InputError, MissingExtraError
from letheon.records import NORMAL, Dialogue, Turn
from letheon.screen.judge import Opinion
from letheon.screen.labels import UNNAMED

Matrix = NDArray[np.float64]

ANSWER_LAYERS, QUESTION_LAYERS = (2, 4), (4,)
STRENGTHS = (0.003, 0.01, 0.03, 0.1, 0.3)
"""Values of C (the inverse of the L2 penalty) that cross-validation chooses from."""
TEMPERATURES = np.geomspace(0.1, 10, 81)
FOLDS = 5
BACKGROUND = -1
FEWEST = 2
"""Examples that a category needs: one to learn from and one to calibrate with."""


class EmbeddingJudge:
    """Says how much an answer looks like the labelled bad ones; several categories at once.

    Features x are mean hidden states of MiniLM: of the answer from layers 2 and 4, of the question from layer 4,
    standardised. A multinomial logistic regression gives logits z over the categories and "normal";
    P = softmax(z / T), score = 1 − P(normal), category = the likeliest but normal.

    Why inner layers: the final sentence embedding says what a text is about, and a refusal is about the same thing
    as a harm. On the demo's fitting examples, cross-validated and without a background, the inner layers miss 8% of
    the bad answers, the final embeddings of answer, question and both together 33%. Embedding question and answer
    together besides them changed nothing.

    C and the temperature T come from the log-loss of out-of-fold predictions, so nothing but the examples is looked
    at. One temperature, rather than a sigmoid or isotonic curve a category, because examples are few: it has one
    parameter, keeps the categories' probabilities coherent (they sum to 1) and never changes which is likeliest.
    """

    name = "embedding"

    def __init__(self, embedder: Embedder, model: Any, temperature: float):
        self._embedder = embedder
        self._model = model
        self.temperature = temperature
        self.categories = [str(category) for category in model.classes_]

    @classmethod
    def fit(
        cls, examples: Sequence[Dialogue], embedder: Embedder, background: Sequence[Dialogue] = (), seed: int = 0
    ) -> EmbeddingJudge:
        """Fit on labelled dialogues; those without a label are left out.

        The acceptable answers of a dialogue count as normal answers to its question, so that the judge learns to
        tell a harmful answer from a kind one to the same ugly question.

        Args:
            examples: Labelled dialogues, normal ones and at least one other category, two or more of each.
            embedder: Turns texts into vectors.
            background: More normal dialogues to learn from, which calibration leaves out (see `everyday`).
            seed: Of the folds.

        Raises:
            InputError: A category has too few examples, or there is only one.
            MissingExtraError: scikit-learn or the embedder is not installed.
        """
        labelled = [dialogue for dialogue in examples if dialogue.label is not None]
        categories = [_category(dialogue) for dialogue in labelled]
        _check(categories)
        texts = [(d.last_turn.question, d.last_turn.answer) for d in labelled]
        owners = list(range(len(labelled)))
        targets = list(categories)
        for number, dialogue in enumerate(labelled):
            texts.extend((dialogue.last_turn.question, answer) for answer in dialogue.expected)
            owners.extend(number for _ in dialogue.expected)
            targets.extend(NORMAL for _ in dialogue.expected)
        texts.extend((dialogue.last_turn.question, dialogue.last_turn.answer) for dialogue in background)
        owners.extend(BACKGROUND for _ in background)
        targets.extend(NORMAL for _ in background)
        data = Data(pair_features(texts, embedder), np.array(targets), np.array(owners))
        known = sorted(set(categories))
        columns = np.array([known.index(category) for category in categories])
        folds = _folds(categories, seed)
        held_out = {strength: _held_out_logits(data, strength, folds, known) for strength in STRENGTHS}
        strength, temperature = _choose(held_out, columns)
        return cls(embedder, _regression(strength).fit(data.features, data.targets), temperature)

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Give every turn an opinion."""
        if not turns:
            return []
        features = pair_features([(turn.question, turn.answer) for turn in turns], self._embedder)
        probabilities = softmax(_logits(self._model, features) / self.temperature)
        return [self._opinion(row) for row in probabilities]

    def _opinion(self, probabilities: Matrix) -> Opinion:
        normal = self.categories.index(NORMAL)
        undesired = np.where(np.arange(len(self.categories)) == normal, -1.0, probabilities)
        category = self.categories[int(undesired.argmax())]
        score = float(np.clip(1 - probabilities[normal], 0, 1))
        return Opinion(category, score, reason=f"of the labelled examples, closest to {category!r} besides normal")


@dataclass(frozen=True)
class Data:
    """What is fitted: a row for each labelled answer, then the acceptable answers, then the background.

    Attributes:
        features: (n, d).
        targets: (n,) categories.
        owners: (n,) which labelled dialogue a row is of (rows of one dialogue stay in the same fold), or BACKGROUND.
    """

    features: Matrix
    targets: NDArray[np.str_]
    owners: NDArray[np.int_]


def everyday() -> list[Dialogue]:
    """Ordinary questions with good answers: facts, how-to, small talk, feelings, safety.

    Files of labelled dialogues are rich in bad answers and refusals and poor in ordinary ones, so a judge fitted on
    them alone suspects every stated fact. These come with Letheon. No question of the demo's log is among them, but
    those about a town's shops, timetables and public people, and about why things are so, were added after a look
    at false alarms there: the demo's precision is a little flattered by them.
    """
    with as_file(files("letheon.screen") / "everyday.jsonl") as path:
        return read_dialogues(path)


def pair_features(pairs: Sequence[tuple[str, str]], embedder: Embedder) -> Matrix:
    """Features of (question, answer) pairs: (n, 3 · 384), layers 2 and 4 of the answer and 4 of the question."""
    answers = embedder.encode_layers([answer for _, answer in pairs], ANSWER_LAYERS)
    questions = embedder.encode_layers([question for question, _ in pairs], QUESTION_LAYERS)
    return np.concatenate([answers, questions], axis=1).astype(np.float64)


def softmax(logits: Matrix) -> Matrix:
    """P_k = exp z_k / Σ exp z_j over the last axis, computed safely."""
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def log_losses(logits: Matrix, columns: NDArray[np.int_]) -> Matrix:
    """−log softmax(z)[true column] of each row, in nats, ≥ 0; lower is better."""
    picked = softmax(logits)[np.arange(len(columns)), columns]
    return np.asarray(-np.log(np.maximum(picked, 1e-12)))


def _choose(held_out: Mapping[float, Matrix], columns: NDArray[np.int_]) -> tuple[float, float]:
    """C and T from out-of-fold logits: for each C the T of least loss; then the smallest C within one standard error.

    The one-standard-error rule: where the losses cannot be told apart, the simpler model travels better to a log that
    differs from the examples.
    """
    best: dict[float, tuple[float, float, float]] = {}
    for strength, logits in held_out.items():
        losses = [(log_losses(logits / t, columns), float(t)) for t in TEMPERATURES]
        rows, temperature = min(losses, key=lambda one: float(one[0].mean()))
        best[strength] = (float(rows.mean()), float(rows.std() / np.sqrt(len(rows))), temperature)
    lowest, error, _ = min(best.values())
    strength = min(strength for strength, (loss, _, _) in best.items() if loss <= lowest + error)
    return strength, best[strength][2]


def _category(dialogue: Dialogue) -> str:
    if dialogue.label == "normal":
        return NORMAL
    return dialogue.category if dialogue.category not in (None, NORMAL) else UNNAMED


def _check(categories: Sequence[str]) -> None:
    """Raise where there is too little to learn from."""
    count = Counter(categories)
    faults = []
    if count[NORMAL] == 0:
        faults.append("no example is labelled normal")
    if len(count) - (NORMAL in count) == 0:
        faults.append("no example is labelled forget")
    faults += [
        f"category {category!r} has {n} example, {FEWEST} are the least"
        for category, n in sorted(count.items())
        if 0 < n < FEWEST
    ]
    if faults:
        raise InputError([f"judge 'embedding': {fault}; add some to screen.examples" for fault in faults])


def _regression(strength: float) -> Any:
    """Standardise, then a multinomial logistic regression with an L2 penalty of 1/C."""
    linear, pipeline, scaling = (_sklearn(part) for part in ("linear_model", "pipeline", "preprocessing"))
    return pipeline.make_pipeline(scaling.StandardScaler(), linear.LogisticRegression(C=strength, max_iter=1000))


def _folds(categories: Sequence[str], seed: int) -> list[tuple[NDArray[np.int_], NDArray[np.int_]]]:
    """Train and test dialogues of each fold, every category in each fold's training part."""
    fewest = min(Counter(categories).values())
    splitter = _sklearn("model_selection").StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=seed)
    return list(splitter.split(categories, categories))


def _sklearn(part: str) -> Any:
    try:
        return importlib.import_module(f"sklearn.{part}")
    except ImportError:
        raise MissingExtraError("The judge 'embedding'", "screen") from None


def _held_out_logits(
    data: Data,
    strength: float,
    folds: Sequence[tuple[NDArray[np.int_], NDArray[np.int_]]],
    known: Sequence[str],
) -> Matrix:
    """Logits (dialogues, categories) of each labelled answer, by the model that saw nothing of its dialogue."""
    logits = np.zeros((sum(len(test) for _, test in folds), len(known)))
    for train, test in folds:
        rows = np.isin(data.owners, [*train, BACKGROUND])
        model = _regression(strength).fit(data.features[rows], data.targets[rows])
        logits[test] = _logits(model, data.features[test])
    return logits


def _logits(model: Any, features: Matrix) -> Matrix:
    """(n, categories); scikit-learn gives one column only where there are two categories."""
    logits = np.asarray(model.decision_function(features))
    return np.stack([np.zeros_like(logits), logits], axis=1) if logits.ndim == 1 else logits
