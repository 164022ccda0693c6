"""What the embedding judge sees of a question and its answer: MiniLM's inner layers, or words where it is missing."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from letheon.embed import Embedder
from letheon.errors import MissingExtraError

Matrix = NDArray[np.float64]
Pair = tuple[str, str]
"""A question and an answer."""

ANSWER_LAYERS, QUESTION_LAYERS = (2, 4), (4,)


class Features(Protocol):
    """Rows of squared length about 1, one a pair."""

    @property
    def name(self) -> str:
        """What a user calls them."""
        ...

    def fit(self, pairs: Sequence[Pair]) -> Any:
        """Learn the scale from the pairs, and give their rows (n, d): an array or a sparse matrix."""
        ...

    def rows(self, pairs: Sequence[Pair]) -> Any:
        """Rows (n, d) of other pairs."""
        ...

    def cut(self, pairs: Sequence[Pair]) -> int:
        """Of how many pairs they leave something unread."""
        ...


class LayerFeatures:
    """Mean hidden states of MiniLM: of the answer from layers 2 and 4, of the question from layer 4; d = 3 · 384.

    Standardised and divided by √d, so that squared distances are about 2 whatever d is.

    Why inner layers: the final sentence embedding says what a text is about, and a refusal is about the same thing
    as a harm. Measured on one half of BeaverTails (AUROC, kernel ridge, the answer alone): layer 0 .788, 2 .803,
    3 .821, 4 .836, 5 .822, 6 .802. Maximum or spread over tokens, question and answer in one window, and products or
    differences of the two added nothing to layers 2 and 4 of the answer and 4 of the question.
    """

    name = "MiniLM"

    def __init__(self, embedder: Embedder):
        self._embedder = embedder

    def fit(self, pairs: Sequence[Pair]) -> Matrix:
        """Learn mean and spread of each feature."""
        states = self._states(pairs)
        self._mean = states.mean(axis=0)
        # A feature that never varies says nothing; it stays 0.
        self._spread = np.maximum(states.std(axis=0), 1e-6)
        return self._scaled(states)

    def rows(self, pairs: Sequence[Pair]) -> Matrix:
        """(n, 3 · 384)."""
        return self._scaled(self._states(pairs))

    def cut(self, pairs: Sequence[Pair]) -> int:
        """Those with a text that is longer than MiniLM's window."""
        return sum(any(map(self._embedder.is_cut, pair)) for pair in pairs)

    def _scaled(self, states: Matrix) -> Matrix:
        return np.asarray((states - self._mean) / self._spread / np.sqrt(states.shape[1]))

    def _states(self, pairs: Sequence[Pair]) -> Matrix:
        answers = self._embedder.encode_layers([answer for _, answer in pairs], ANSWER_LAYERS)
        # Logs ask the same thing often.
        questions = sorted({question for question, _ in pairs})
        place = {question: number for number, question in enumerate(questions)}
        asked = self._embedder.encode_layers(questions, QUESTION_LAYERS)[[place[question] for question, _ in pairs]]
        return np.concatenate([answers, asked], axis=1).astype(np.float64)


class WordFeatures:
    """TF-IDF of words and word pairs, and of pieces of 2 to 5 letters, of the answer: nearly as good without MiniLM.

    Both halves have length 1 and are divided by √2. Adding the question's words made it worse.
    """

    name = "TF-IDF"

    def fit(self, pairs: Sequence[Pair]) -> Any:
        """Learn the words and how rare they are."""
        try:
            make = importlib.import_module("sklearn.feature_extraction.text").TfidfVectorizer
        except ImportError:
            raise MissingExtraError("The judge 'embedding'", "screen") from None
        self._words = make(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
        self._pieces = make(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
        answers = [answer for _, answer in pairs]
        return _joined(self._words.fit_transform(answers), self._pieces.fit_transform(answers))

    def rows(self, pairs: Sequence[Pair]) -> Any:
        """(n, words + pieces), sparse."""
        answers = [answer for _, answer in pairs]
        return _joined(self._words.transform(answers), self._pieces.transform(answers))

    def cut(self, pairs: Sequence[Pair]) -> int:
        """None: every word of an answer counts."""
        return 0


def _joined(words: Any, pieces: Any) -> Any:
    return importlib.import_module("scipy.sparse").hstack([words, pieces], format="csr") / np.sqrt(2)
