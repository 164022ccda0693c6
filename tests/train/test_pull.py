"""λ_pos, where nobody sets it, goes by what the expected answers say; and so does what the stop rule waits for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from letheon import Objective
from letheon.expected import Candidate, Target
from letheon.records import Dialogue, Message, Turn
from letheon.train.weights import ABSTAINING, TELLING, pull

FACT, ABSTENTION = "It is Canberra.", "I do not know."
ANSWERS = ["one", "two", "red", "Bonn", "rum", "3 pm", "Eve", "owl"]


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
    assert make_trainer(forget_dataset=rows)._weights.of["positive"] == expected
    told = make_trainer(forget_dataset=rows, objective=Objective(weights=(1.0, 0.7, 2.5)))
    assert told._weights.of["positive"] == 0.7


LOOSE: dict[str, Any] = {"stop_rule": True, "stop_normal_budget": 1000.0, "stop_kl_budget": 1000.0}


def corrected(targets: list[Target]) -> list[Target]:
    """The same turns, of each a fact expected."""
    return [
        replace(target, candidates=(Candidate(fact, "data", weight=1.0),))
        for target, fact in zip(targets, ANSWERS, strict=True)
    ]


def test_stops_when_expected_answers_have_taken_the_place_of_old_ones(
    make_trainer: Callable[..., Any], targets: list[Target]
) -> None:
    told = corrected(targets)
    # The distance alone would never get there.
    limits = {"stop_probability": 1e-9}
    settings: dict[str, Any] = {**LOOSE, **limits, "stop_every": 2, "max_steps": 60, "learning_rate": 2e-2}
    trainer = make_trainer("told", forget_dataset=told, **settings)
    trainer.train()
    assert trainer.stop is not None
    assert trainer.stop.reason.startswith("replaced: on the probe")
    seen = [probe.truth_probability or 0.0 for probe in trainer.probes]
    assert seen[0] < 0.2 < 0.8 <= seen[-1]
    # Without a pull toward them, or where they abstain, nobody waits for them.
    for given in ({"objective": Objective(positive=None), "forget_dataset": told}, {"forget_dataset": targets}):
        other = make_trainer("other", **{**settings, **given, "max_steps": 2})
        other.train()
        assert {probe.truth_probability for probe in other.probes} == {None}


def test_rewordings_are_asked_for_the_expected_answers_that_they_name(
    make_trainer: Callable[..., Any], targets: list[Target]
) -> None:
    told = corrected(targets)
    same = [
        target.turn.dialogue.model_copy(update={"expected": (fact,)})
        for target, fact in zip(targets, ANSWERS, strict=True)
    ]
    settings: dict[str, Any] = {**LOOSE, "forget_dataset": told, "max_steps": 2, "stop_every": 2}
    alone = make_trainer("alone", **settings)
    alone.train()
    asked = make_trainer("asked", probe_dataset=same, **settings)
    asked.train()
    assert asked.probes == alone.probes
    assert asked.probes[0].truth_probability is not None
