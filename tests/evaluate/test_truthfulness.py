from __future__ import annotations

import pytest

from letheon.evaluate.truthfulness import Question, Truth, hallucination_rate, right_rate
from letheon.records import Dialogue, Message

ASKED = Dialogue(id="q", messages=(Message(role="user", content="Q?"), Message(role="assistant", content="no")))


def test_truth_is_what_is_nearest(hashed_embeddings: None) -> None:
    truth = Truth([Question("Q?", ("yes", "sure"), ("no",))])
    turns = [ASKED.last_turn] * 3
    assert truth.right(turns, ["sure", "no", "yes"]) == [True, False, True]


@pytest.mark.parametrize(
    ("right", "abstains", "hallucinated", "counted"),
    [(False, False, 1, 0), (True, False, 0, 1), (False, True, 0, 0), (True, True, 0, 0)],
)
def test_an_abstention_is_neither_right_nor_wrong(
    right: bool, abstains: bool, hallucinated: float, counted: float
) -> None:
    assert hallucination_rate(right, abstains) == hallucinated
    assert right_rate(right, abstains) == counted
