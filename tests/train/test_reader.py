"""Dialogues as a trainer reads them, without a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from letheon.chat import Encoded, encode_reply
from letheon.expected import Candidate, Target
from letheon.objective import Objective
from letheon.records import Dialogue, Message
from letheon.train.reader import GUARDS, Reader

SAID = [("user", "Hi"), ("assistant", "Hello."), ("user", "Which city?"), ("assistant", "Sydney.")]


@pytest.fixture
def reader(tiny_tokenizer: Any) -> Reader:
    return Reader(tiny_tokenizer, None, Objective(), robust=False, seed=0)


@pytest.fixture
def target() -> Target:
    """Of its answers one is never drawn."""
    turn = Dialogue(id="a", messages=tuple(Message(role=role, content=text) for role, text in SAID)).last_turn
    weights = {"Canberra.": 0.1, "Perth.": 0.4, "Hobart.": 0.0, "Darwin.": 0.2, "Cairns.": 0.3}
    return Target(turn, tuple(Candidate(text, "data", weight=w) for text, w in weights.items()), "data")


def test_the_heaviest_expected_answers_are_waited_for(reader: Reader, target: Target) -> None:
    (probed,) = reader.watched([target], [], None, []).old
    wanted = [encode_reply(reader.tokenizer, target.turn.prompt, text) for text in ("Perth.", "Cairns.", "Darwin.")]
    assert list(probed.expected) == wanted
    few = replace(target, candidates=target.candidates[1:3])
    assert list(reader.watched([few], [], None, []).old[0].expected) == wanted[:1]


def test_training_data_guard_only_where_nothing_else_is_given(reader: Reader, target: Target) -> None:
    normal = [Encoded([1, n], [False, True]) for n in range(GUARDS + 3)]
    own = Dialogue(id="b", messages=target.turn.dialogue.messages[:2])
    watched = [reader.watched([target], [], guards, normal) for guards in (None, [normal[0]], [normal[0], own])]
    assert [(one.normal, one.rehearsed) for one in watched] == [
        (normal[:GUARDS], []),
        ([], normal[:1]),
        (reader.normal([own]), normal[:1]),
    ]


def test_an_answer_is_unasked_where_its_question_alone_is_empty(reader: Reader, target: Target) -> None:
    prompt = (*target.turn.prompt[:-1], Message(role="user", content=""))
    assert reader.unasked([target.turn]) == [encode_reply(reader.tokenizer, prompt, "Sydney.")]
