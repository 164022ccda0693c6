from __future__ import annotations

from letheon.evaluate.truthfulness import Question, Truth
from letheon.records import Dialogue, Message

ASKED = Dialogue(id="q", messages=(Message(role="user", content="Q?"), Message(role="assistant", content="no")))


def test_truth_is_what_is_nearest(hashed_embeddings: None) -> None:
    truth = Truth([Question("Q?", ("yes", "sure"), ("no",))])
    turns = [ASKED.last_turn] * 3
    assert truth.right(turns, ["sure", "no", "yes"]) == [True, False, True]
