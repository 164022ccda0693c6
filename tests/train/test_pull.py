"""λ_pos, where nobody sets it, goes by what the expected answers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from letheon import Objective
from letheon.expected import Candidate, Target
from letheon.records import Dialogue, Message, Turn
from letheon.train.pull import ABSTAINING, TELLING, pull

FACT, ABSTENTION = "It is Canberra.", "I do not know."


def target(*answers: tuple[str, float]) -> Target:
    messages = (Message(role="user", content="Which?"), Message(role="assistant", content="Sydney."))
    turn: Turn = Dialogue(id="a", messages=messages).last_turn
    return Target(turn, tuple(Candidate(text, "data", weight=weight) for text, weight in answers), "data")


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ([target((FACT, 1.0))], TELLING),
        ([target((ABSTENTION, 1.0))], ABSTAINING),
        # A quarter, in targets and in what is drawn of one; and less.
        ([target((FACT, 1.0))] * 3 + [target((ABSTENTION, 1.0))], ABSTAINING),
        ([target((FACT, 1.0))] * 4 + [target((ABSTENTION, 1.0))], TELLING),
        ([target((FACT, 0.75), (ABSTENTION, 0.25))], ABSTAINING),
        ([target((FACT, 0.8), (ABSTENTION, 0.2))], TELLING),
        # What has no weight is not drawn; who expects nothing says nothing.
        ([target((FACT, 1.0), (ABSTENTION, 0.0))], TELLING),
        ([target((ABSTENTION, 1.0)), target(), target(), target(), target()], ABSTAINING),
        ([], TELLING),
    ],
)
def test_by_the_share_that_abstains(targets: list[Target], expected: float) -> None:
    assert pull(targets) == expected


@pytest.mark.parametrize(("answer", "expected"), [(FACT, TELLING), (ABSTENTION, ABSTAINING)])
def test_a_trainer_goes_by_it_unless_told(make_trainer: Callable[..., Any], answer: str, expected: float) -> None:
    messages = [{"role": "user", "content": "Which?"}, {"role": "assistant", "content": "Sydney."}]
    rows = [{"messages": messages, "expected": [answer]}] * 3
    assert make_trainer(forget_dataset=rows)._weights["positive"] == expected
    told = make_trainer(forget_dataset=rows, objective=Objective(weights=(1.0, 0.7, 2.5)))
    assert told._weights["positive"] == 0.7
