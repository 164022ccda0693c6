"""Metrics of a generated text: its overlap with another text, and whether it is fluent rather than noise."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import Any

import regex

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORD = regex.compile(rf"[{UNSPACED}]|[[\p{{L}}\p{{M}}\p{{N}}]--[{UNSPACED}]]+", regex.V1)
"""A word of any script; where a script has no spaces between words, a character."""


def rouge_l(answer: str, reference: str) -> tuple[float, float]:
    """ROUGE-L of an answer against a reference: recall LCS/|reference| and F1, in [0, 1]; higher is more alike.

    Lin (2004), §3. No stemmer: an answer is forgotten word by word, and stems are English only; TOFU and
    open-unlearning stem, so their numbers may be a little higher. Words are those of the rouge-score package where a
    text is ASCII; of other letters it would keep none.
    """
    score = rouge_scorer().score(target=reference, prediction=answer)["rougeL"]
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


class _Words:
    """Words for the rouge-score package, whose own drop every letter that is not ASCII."""

    def __init__(self, stem: bool):
        from rouge_score.tokenizers import DefaultTokenizer

        self.ascii = DefaultTokenizer(stem)

    def tokenize(self, text: str) -> list[str]:
        words = WORD.findall(unicodedata.normalize("NFC", text.lower()))
        return [token for word in words for token in (self.ascii.tokenize(word) if word.isascii() else [word])]


@cache
def rouge_scorer(*, stem: bool = False) -> Any:
    """The rouge-score package's scorer of ROUGE-L, for words of any script."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words(stem))
