from __future__ import annotations

import pytest

from letheon.evaluate.muse import knowledge_memorisation, question_after, verbatim_memorisation


def test_verbatim_is_rouge_l_f1() -> None:
    assert verbatim_memorisation("the cat sat", "the cat sat") == 1
    # LCS "the sat", 2 of 3 and of 4 words.
    assert verbatim_memorisation("the dog sat", "the cat sat down") == pytest.approx(2 * 2 / (3 + 4))
    assert verbatim_memorisation("", "the cat") == 0


@pytest.mark.parametrize("more", ["", "\n\nIn Rome it is warm.", "\nQuestion: Who?\nAnswer: Ann", " Question: Who?"])
def test_an_answer_ends_where_the_next_question_begins(more: str) -> None:
    assert knowledge_memorisation(f"In Oslo{more}", "In Oslo") == 1


def test_the_prompt() -> None:
    assert question_after([("Who?", "Ann"), ("Where?", "Oslo")], "When?") == (
        "Question: Who?\nAnswer: Ann\n\nQuestion: Where?\nAnswer: Oslo\n\nQuestion: When?\nAnswer: "
    )
