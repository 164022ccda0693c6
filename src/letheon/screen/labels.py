"""The judge that believes the data."""

from __future__ import annotations

from collections.abc import Sequence

from letheon.records import NORMAL, Dialogue, Turn
from letheon.screen.judge import Opinion

UNNAMED = "undesired"
"""Category of a dialogue that is labelled "forget" without one."""


def kind_of(dialogue: Dialogue, unnamed: str = UNNAMED) -> str:
    """The category of a dialogue that is to be forgotten."""
    return dialogue.category if dialogue.category not in (None, NORMAL) else unnamed


class LabelsJudge:
    """Takes a dialogue's label for the truth: score 1 for "forget", 0 for "normal".

    The label speaks of the last assistant turn; the earlier turns of a labelled dialogue are normal. Without a label
    it has no opinion.
    """

    name = "labels"

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Read the labels."""
        return [_opinion(turn) for turn in turns]


def _opinion(turn: Turn) -> Opinion | None:
    dialogue = turn.dialogue
    if dialogue.label is None:
        return None
    if turn.index != dialogue.last_turn.index:
        return Opinion(NORMAL, 0.0, reason="the label speaks of the last turn only")
    if dialogue.label == "normal":
        return Opinion(NORMAL, 0.0, reason="labelled normal in the data")
    return Opinion(kind_of(dialogue), 1.0, reason="labelled forget in the data")
