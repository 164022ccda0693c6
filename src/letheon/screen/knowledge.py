"""The knowledge text: which of its sentences an answer can be held against."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from letheon.embed import Embedder, Vectors
from letheon.records import Turn

SENTENCES = 3
"""Sentences of the knowledge text that an answer is held against."""
RELATED = 0.5
"""Cosine of question and answer to the best sentence from which the knowledge text speaks of the same thing."""


@dataclass(frozen=True)
class Near:
    """What the knowledge text says on a question and its answer.

    Attributes:
        sentences: The nearest ones, the nearest first.
        cosine: Of the nearest one, in [0.5, 1]; higher is nearer.
    """

    sentences: tuple[str, ...]
    cosine: float


class Knowledge:
    """A text of facts, by its sentences; an empty one knows nothing."""

    def __init__(self, embedder: Embedder, text: str):
        self._embedder = embedder
        self._sentences = [s.strip() for s in re.split(r"(?<=[.!?])\s+|\n+", text) if s.strip()]
        self._vectors: Vectors | None = None

    def near(self, turns: Sequence[Turn]) -> list[Near | None]:
        """The three sentences that lie closest to question and answer; None where the closest is not related."""
        if not self._sentences or not turns:
            return [None] * len(turns)
        if self._vectors is None:
            self._vectors = self._embedder.encode(self._sentences)
        asked = self._embedder.encode([f"{turn.question}\n{turn.answer}" for turn in turns])
        return [self._nearest(cosines) for cosines in asked @ self._vectors.T]

    def _nearest(self, cosines: Vectors) -> Near | None:
        best = np.argsort(-cosines, kind="stable")[:SENTENCES]
        cosine = float(cosines[best[0]])
        return Near(tuple(self._sentences[n] for n in best), cosine) if cosine >= RELATED else None
