from __future__ import annotations

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from letheon.evaluate.text import distinct_2, repetition, rouge_l, rouge_scorer


def test_rouge_l() -> None:
    assert rouge_l("the cat sat", "the cat sat") == (1, 1)
    assert rouge_l("", "the cat sat") == (0, 0)
    recall, f1 = rouge_l("The cat, there, lay on it.", "the cat sat on the mat")
    assert recall == pytest.approx(3 / 6)
    assert f1 == pytest.approx(3 / 6)
    assert rouge_l("a b c d", "a b") == (1, pytest.approx(2 / 3))


def test_rouge_l_reads_every_script() -> None:
    assert rouge_l("Сергей живёт в Туле.", "сергей живёт в Туле") == (1, 1)
    assert rouge_l("Сергей живёт в Риге.", "Сергей живёт в Туле") == (0.75, 0.75)
    # Without spaces between words a character is one.
    assert rouge_l("我住在北京", "我住在上海")[0] == pytest.approx(3 / 5)
    assert rouge_l("cafe\u0301", "caf\u00e9") == (1, 1)


def test_words_of_ascii_are_those_of_the_package() -> None:
    draw = random.Random(0)
    for stem in (False, True):
        plain = RougeScorer(["rougeL"], use_stemmer=stem)
        for _ in range(200):
            one, other = ("".join(draw.choices("ab runs running 12.,-_'\n", k=40)) for _ in range(2))
            assert rouge_scorer(stem=stem).score(one, other) == plain.score(one, other)


def test_rouge_l_does_not_stem() -> None:
    assert rouge_l("walking", "walked")[0] == 0


def test_repetition() -> None:
    assert repetition("a b c d e") == 0
    assert repetition("a b") == repetition("") == 0
    assert repetition("no no no no no") == pytest.approx(2 / 3)
    assert repetition("a b c a b c") == pytest.approx(1 / 4)


def test_distinct_2() -> None:
    assert distinct_2("a b c") == distinct_2("a") == distinct_2("") == 1
    assert distinct_2("no no no") == pytest.approx(1 / 2)
