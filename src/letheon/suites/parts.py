"""What several suites do with their rows, and read off a model's answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from letheon.evaluate.evaluate import given_scores, unless_broken, written_scores
from letheon.evaluate.look import Item
from letheon.evaluate.teacher_forced import TokenScores
from letheon.split import spread

T = TypeVar("T")


def thinned(rows: Sequence[T], limit: int | None) -> list[T]:
    """At most so many rows, evenly spaced."""
    return list(rows) if limit is None else spread(rows, limit)


def grouped(flat: Sequence[T], sizes: Iterable[int]) -> list[list[T]]:
    """Cut what stands in one line into groups of these sizes."""
    rest = iter(flat)
    return [[next(rest) for _ in range(size)] for size in sizes]


def answered(scores: Sequence[TokenScores], answers: Sequence[str], items: Sequence[Item]) -> list[dict[str, float]]:
    """How well the given answers are known, and how near the model's own come to them."""
    return [
        unless_broken(given_scores(tokens) | written_scores(answer, item.answer), tokens)
        for tokens, answer, item in zip(scores, answers, items, strict=True)
    ]
