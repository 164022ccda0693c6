"""Metrics of a generated text: its overlap with another text, and whether it is fluent rather than noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


def rouge_l(answer: str, reference: str) -> tuple[float, float]:
    """ROUGE-L of an answer against a reference: recall LCS/|reference| and F1, in [0, 1]; higher is more alike.

    Lin (2004), §3. No stemmer: an answer is forgotten word by word, and stems are English only; TOFU and
    open-unlearning stem, so their numbers may be a little higher. The rouge-score package keeps Latin letters and
    digits only, so texts in another script score 0.
    """
    score = _scorer().score(target=reference, prediction=answer)["rougeL"]
    return float(score.recall), float(score.fmeasure)


def repetition(text: str) -> float:
    """1 − |distinct 3-grams| / |3-grams| of words: the share that repeats an earlier one, in [0, 1); lower is better.

    Welleck et al. (arXiv 1908.04319), "seq-rep-n". 0 for texts under three words.
    """
    return 1 - _distinct(text, 3)


def distinct_2(text: str) -> float:
    """|distinct 2-grams| / |2-grams| of words, in (0, 1]; higher is more varied. 1 for texts under two words.

    Li et al. (arXiv 1510.03055), "distinct-2", here within one answer.
    """
    return _distinct(text, 2)


def _distinct(text: str, n: int) -> float:
    """Share of distinct word n-grams; 1 where there are none."""
    words: Sequence[str] = text.lower().split()
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=False)
