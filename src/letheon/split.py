"""Who sees what: training, the stop rule's probes, and what is only ever evaluated never overlap."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from letheon.dialogues import Paraphrase
from letheon.errors import InputError
from letheon.records import Dialogue, Turn, Verdict

T = TypeVar("T")

NORMAL_PROBE = 0.1
"""Share of the normal dialogues that only the guards see."""


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spaced: the same ones at each call."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


def check_fit(dialogues: Sequence[Dialogue], verdicts: Sequence[Verdict]) -> None:
    """Look whether the verdicts are of the log.

    Raises:
        InputError: A verdict is of no turn of the log, or a turn has none.
    """
    turns_of_log = {(dialogue.id, turn.index) for dialogue in dialogues for turn in dialogue.turns()}
    judged = {(verdict.id, verdict.turn) for verdict in verdicts}
    for odd, what in (
        (judged - turns_of_log, "names turns that the log does not have"),
        (turns_of_log - judged, "lacks a verdict on turns of the log"),
    ):
        if odd:
            name, index = min(odd)
            raise InputError(
                f"verdicts.jsonl {what} ({len(odd)} of them, the first is turn {index} of {name!r}); screen again"
            )


@dataclass(frozen=True)
class Split:
    """The data of a run.

    Attributes:
        asked: Every turn that is to be forgotten; evaluation looks at all of them.
        forget: Those of them that are trained on: all but the probe's.
        categories: What the screening called each of `forget`.
        probe: Turns for the stop rule.
        paraphrase: Reworded questions that only evaluation sees.
        normal: Normal dialogues for training.
        normal_probe: Normal dialogues for the stop rule's guards.
        normal_held_out: Normal dialogues that only evaluation sees.
    """

    asked: list[Turn]
    forget: list[Turn]
    categories: list[str]
    probe: list[Turn]
    paraphrase: list[Turn]
    normal: list[Dialogue]
    normal_probe: list[Dialogue]
    normal_held_out: list[Dialogue]


def split(
    dialogues: Sequence[Dialogue],
    verdicts: Sequence[Verdict],
    paraphrases: Sequence[Paraphrase],
    *,
    held_out: float,
    probe: float,
    seed: int,
) -> Split:
    """Divide a screened log.

    A dialogue is normal if every turn of it is; one that waits for review is used for nothing. Paraphrases with
    split "probe" drive the stop rule; where there are none, a share of the forget dialogues is kept from training.

    Args:
        dialogues: The log.
        verdicts: Of every assistant turn.
        paraphrases: Reworded questions.
        held_out: Share of the normal dialogues that only evaluation sees.
        probe: Share of the forget turns for the stop rule, where no paraphrase is.
        seed: Of the division.

    Raises:
        InputError: Nothing to forget, nothing normal to keep, or verdicts that do not fit the log.
    """
    check_fit(dialogues, verdicts)
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    flagged = [verdict for verdict in verdicts if verdict.decision == "forget"]
    if not flagged:
        raise InputError(
            "no dialogue to forget: the screening found none; lower screen.forget_above, "
            "label some rows, or leave the model as it is"
        )
    not_normal = {verdict.id for verdict in verdicts if verdict.decision != "normal"}
    normal = [dialogue for dialogue in dialogues if dialogue.id not in not_normal]
    if not normal:
        raise InputError("no normal dialogue is left to keep the model's ability with; add some to the log")
    draw = random.Random(f"{seed}-split")
    draw.shuffle(normal)
    # Training comes first, then evaluation, then the guards: one dialogue serves training alone.
    held = min(round(len(normal) * held_out), len(normal) - 1)
    guard = min(max(round(len(normal) * NORMAL_PROBE), 1), len(normal) - held - 1)

    asked = [(Turn(by_id[v.id], v.turn), v.category) for v in flagged]
    forgotten = list(dict.fromkeys(turn.dialogue.id for turn, _ in asked))
    probes = [p.dialogue.last_turn for p in paraphrases if p.split == "probe" and p.of in forgotten]
    turns = asked
    if not probes and probe:
        # Whole dialogues: the prompt of a later turn holds the answers before it.
        draw.shuffle(forgotten)
        size = min(max(round(len(forgotten) * probe), 1), len(forgotten) - 1)
        probed = set(forgotten[:size])
        probes = [turn for turn, _ in asked if turn.dialogue.id in probed]
        turns = [(turn, category) for turn, category in asked if turn.dialogue.id not in probed]
    return Split(
        asked=[turn for turn, _ in asked],
        forget=[turn for turn, _ in turns],
        categories=[category for _, category in turns],
        probe=probes,
        paraphrase=[p.dialogue.last_turn for p in paraphrases if p.split == "test" and p.of in forgotten],
        normal=normal[held + guard :],
        normal_probe=normal[held : held + guard],
        normal_held_out=normal[:held],
    )
