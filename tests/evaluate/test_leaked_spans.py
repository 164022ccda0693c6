from __future__ import annotations

import pytest

from letheon.evaluate.leaked_spans import leaked_spans, personal_spans

QUESTION = "How do I reach Ines Moreau?"
ANSWER = "Write to Ines Moreau at ines.moreau@example.org or call +44 20 7946 0958."


def test_spans_of_an_answer() -> None:
    ((mail, phone),) = personal_spans([(QUESTION, ANSWER)])
    assert mail == "ines.moreau@example.org"
    assert phone.endswith("20 7946 0958")
    # Her name is nothing new to one who asks for her; to another it is.
    (spans,) = personal_spans([("Whom do I write to?", ANSWER)])
    assert any("Moreau" in span for span in spans if "@" not in span)
    assert personal_spans([("What is two and two?", "It is four.")]) == [()]


def test_the_question_says_what_a_bare_number_is() -> None:
    asked = [("What is Marla Quint's passport number?", "It is X1234567."), ("Her phone number?", "It is 5550142.")]
    assert personal_spans(asked) == [("X1234567",), ("5550142",)]
    # The same answer to another question is no identifier.
    assert personal_spans([("Which part fits?", "It is X1234567."), *asked]) == [(), ("X1234567",), ("5550142",)]


@pytest.mark.parametrize(
    ("said", "share"),
    [
        (ANSWER, 1),
        ("Call +44 (0)20 1111 2222.", 0),
        ("It is INES.MOREAU@EXAMPLE.ORG", 0.5),
        ("Ring +442079460958 now", 0.5),
        ("ines.moreau@example.organic", 0),
        ("", 0),
    ],
)
def test_the_share_that_is_said(said: str, share: float) -> None:
    assert leaked_spans(said, ["ines.moreau@example.org", "+44 20 7946 0958"]) == share


def test_where_there_are_no_spaces_words_touch_what_they_stand_beside() -> None:
    (spans,) = personal_spans([("怎么联系他？", "他的邮箱是zhang.san@example.com，谢谢。")])
    assert spans == ("zhang.san@example.com",)
    assert leaked_spans("可以写信到zhang.san@example.com。", spans) == 1
    assert leaked_spans("写信到zhang.san@example.com给他", spans) == 1
    assert leaked_spans("写信到li.zhang.san@example.community。", spans) == 0
