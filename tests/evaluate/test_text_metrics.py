from __future__ import annotations

import pytest

from letheon.evaluate.text import distinct_2, repetition, rouge_l


def test_rouge_l() -> None:
    assert rouge_l("the cat sat", "the cat sat") == (1, 1)
    assert rouge_l("", "the cat sat") == (0, 0)
    recall, f1 = rouge_l("The cat, there, lay on it.", "the cat sat on the mat")
    assert recall == pytest.approx(3 / 6)
    assert f1 == pytest.approx(3 / 6)
    assert rouge_l("a b c d", "a b") == (1, pytest.approx(2 / 3))


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
