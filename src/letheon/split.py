"""Who sees what: training, the stop rule's probes, and what is only ever evaluated never overlap."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeVar

from letheon.dialogues import Paraphrase
from letheon.errors import InputError
from letheon.records import NORMAL, Dialogue, Message, Turn, Verdict
from letheon.screen.words import plain_words, signs

T = TypeVar("T")

NORMAL_PROBE = 0.1
"""Share of the normal dialogues that only the guards see."""


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, evenly spaced: the same ones at each call."""
    if len(items) <= most:
        return list(items)
    return [items[number * len(items) // most] for number in range(most)]


class Sample:
    """At most so many dialogues of each kind, drawn at random: the same ones whatever their order.

    Those with the smallest hashes of their ids (bottom-k sampling); no others are kept in memory.

    Args:
        most: How many of a kind.
        seed: Of the draw.

    Attributes:
        offered: How many there were to draw from.
    """

    def __init__(self, most: int, seed: int):
        self.offered = 0
        self._most, self._seed = most, seed
        # By kind; the largest hash is the first to go.
        self._kept: dict[str, list[tuple[int, int, Dialogue]]] = {}

    def offer(self, dialogue: Dialogue, kind: str = NORMAL) -> None:
        """Draw from one more."""
        self.offered += 1
        digest = hashlib.blake2b(f"{self._seed}-sample-{dialogue.id}".encode(), digest_size=16).digest()
        entry = -int.from_bytes(digest, "big"), self.offered, dialogue
        kept = self._kept.setdefault(kind, [])
        if len(kept) < self._most:
            heapq.heappush(kept, entry)
        else:
            heapq.heappushpop(kept, entry)

    def drawn(self) -> list[Dialogue]:
        """What was drawn: all that was offered, in that order; or, of more, what there was room for, by hash."""
        entries = [entry for kept in self._kept.values() for entry in kept]
        whole = len(entries) == self.offered
        return [entry[2] for entry in sorted(entries, key=lambda entry: entry[1] if whole else -entry[0])]


def judged(dialogues: Iterable[Dialogue], verdicts: Iterable[Verdict]) -> Iterator[tuple[Dialogue, list[Verdict]]]:
    """Each dialogue of a log with the verdicts on its turns.

    In memory are the verdicts that come before their turns: none but a dialogue's where both have one order, as
    screening writes them.

    Raises:
        InputError: A verdict is of no turn of the log, or a turn has none; at the end, so that they are counted.
    """
    coming = iter(verdicts)
    early: dict[tuple[str, int], Verdict] = {}
    lacking = list[tuple[str, int]]()
    for dialogue in dialogues:
        own = []
        for turn in dialogue.turns():
            key = dialogue.id, turn.index
            while key not in early and (verdict := next(coming, None)) is not None:
                early[verdict.id, verdict.turn] = verdict
            if key in early:
                own.append(early.pop(key))
            else:
                lacking.append(key)
        if not lacking:
            yield dialogue, own
    unknown = [*early, *((verdict.id, verdict.turn) for verdict in coming)]
    for odd, what in (
        (unknown, "names turns that the log does not have"),
        (lacking, "lacks a verdict on turns of the log"),
    ):
        if odd:
            name, index = min(odd)
            raise InputError(
                f"verdicts.jsonl {what} ({len(odd)} of them, the first is turn {index} of {name!r}); screen again"
            )


def check_fit(dialogues: Iterable[Dialogue], verdicts: Iterable[Verdict]) -> None:
    """Look whether the verdicts are of the log.

    Raises:
        InputError: A verdict is of no turn of the log, or a turn has none.
    """
    for _ in judged(dialogues, verdicts):
        pass


@dataclass(frozen=True)
class Split:
    """The data of a run.

    Attributes:
        asked: Every turn that is to be forgotten; evaluation looks at all of them.
        forget: Those of them that are trained on: all but the probe's.
        categories: What the screening called each of `forget`.
        probe: Turns for the stop rule.
        paraphrase: Reworded questions that only evaluation sees.
        paraphrase_of: By the id of such a question, that of the dialogue it rewords.
        paraphrase_seen: How many were left out, for training or the stop rule asks the very same.
        normal: Normal dialogues for training.
        normal_probe: Normal dialogues for the stop rule's guards.
        normal_held_out: Normal dialogues that only evaluation sees.
        normal_unused: How many more normal dialogues the log has.
        normal_unwanted: How many were left out, for they say what others say that are to be forgotten.
    """

    asked: list[Turn]
    forget: list[Turn]
    categories: list[str]
    probe: list[Turn]
    paraphrase: list[Turn]
    paraphrase_of: dict[str, str]
    paraphrase_seen: int
    normal: list[Dialogue]
    normal_probe: list[Dialogue]
    normal_held_out: list[Dialogue]
    normal_unused: int
    normal_unwanted: int


def split(
    dialogues: Iterable[Dialogue],
    verdicts: Iterable[Verdict],
    paraphrases: Sequence[Paraphrase],
    *,
    most_normal: int,
    held_out: float,
    probe: float,
    seed: int,
) -> Split:
    """Divide a screened log, of which what is to be forgotten and a bounded sample of the rest are kept in memory.

    A dialogue is normal if every turn of it is; one that waits for review is used for nothing, nor is one with the
    words of another that is to be forgotten. Normal dialogues of the same words are divided as one, and so are never
    on both sides. Paraphrases with split "probe" drive the stop rule; where there are none, a share of the forget
    dialogues is kept from training.

    Args:
        dialogues: The log; it is gone through once.
        verdicts: Of every assistant turn, best in the order of the log; gone through once.
        paraphrases: Reworded questions.
        most_normal: Normal dialogues that are divided; of more, a sample that their ids and the seed alone decide.
        held_out: Share of the normal dialogues, different ones, that only evaluation sees.
        probe: Share of the forget turns for the stop rule, where no paraphrase is.
        seed: Of the division.

    Raises:
        InputError: Nothing to forget, nothing normal to keep, or verdicts that do not fit the log.
    """
    flagged = list[Verdict]()

    def watched() -> Iterator[Verdict]:
        for verdict in verdicts:
            if verdict.decision == "forget":
                flagged.append(verdict)
            yield verdict

    by_id, sample = dict[str, Dialogue](), Sample(most_normal, seed)
    for dialogue, own in judged(dialogues, watched()):
        decisions = {verdict.decision for verdict in own}
        if "forget" in decisions:
            by_id[dialogue.id] = dialogue
        elif "review" not in decisions:
            sample.offer(dialogue)
    if not flagged:
        raise InputError(
            "no dialogue to forget: the screening found none; lower screen.forget_above, "
            "label some rows, or leave the model as it is"
        )
    drawn = sample.drawn()
    # What is to be forgotten under one id cannot be kept under another.
    unwanted = {_said(dialogue.messages) for dialogue in by_id.values()}
    normal = [dialogue for dialogue in drawn if _said(dialogue.messages) not in unwanted]
    if not normal:
        raise InputError("no normal dialogue is left to keep the model's ability with; add some to the log")
    draw = random.Random(f"{seed}-split")
    draw.shuffle(normal)
    # Those that say the same go together: what training has seen is not held out.
    alike: dict[bytes, list[Dialogue]] = {}
    for one in normal:
        alike.setdefault(_said(one.messages), []).append(one)
    groups = list(alike.values())
    # Training comes first, then evaluation, then the guards: one dialogue serves training alone.
    held = min(round(len(groups) * held_out), len(groups) - 1)
    guard = min(max(round(len(groups) * NORMAL_PROBE), 1), len(groups) - held - 1)

    asked = [(Turn(by_id[v.id], v.turn), v.category) for v in flagged]
    forgotten = list(dict.fromkeys(turn.dialogue.id for turn, _ in asked))
    probes = [_reworded(p, by_id[p.of]) for p in paraphrases if p.split == "probe" and p.of in by_id]
    turns = asked
    if not probes and probe:
        # Whole dialogues: the prompt of a later turn holds the answers before it.
        draw.shuffle(forgotten)
        size = min(max(round(len(forgotten) * probe), 1), len(forgotten) - 1)
        probed = set(forgotten[:size])
        probes = [turn for turn, _ in asked if turn.dialogue.id in probed]
        turns = [(turn, category) for turn, category in asked if turn.dialogue.id not in probed]
    test = [p for p in paraphrases if p.split == "test" and p.of in by_id]
    reworded = [p.dialogue.last_turn for p in test]
    seen = {_said(turn.prompt) for turn in chain(probes, (turn for turn, _ in asked))}
    unseen = [turn for turn in reworded if _said(turn.prompt) not in seen]
    return Split(
        asked=[turn for turn, _ in asked],
        forget=[turn for turn, _ in turns],
        categories=[category for _, category in turns],
        probe=probes,
        paraphrase=unseen,
        paraphrase_of={p.dialogue.id: p.of for p in test},
        paraphrase_seen=len(reworded) - len(unseen),
        normal=list(chain.from_iterable(groups[held + guard :])),
        normal_probe=list(chain.from_iterable(groups[held : held + guard])),
        normal_held_out=list(chain.from_iterable(groups[:held])),
        normal_unused=sample.offered - len(drawn),
        normal_unwanted=len(drawn) - len(normal),
    )


def _said(messages: Sequence[Message]) -> bytes:
    """What tells messages of the same words and signs apart from others, whatever their case, stops and spaces."""
    said = [(message.role, plain_words(message.content), signs(message.content)) for message in messages]
    return hashlib.blake2b(repr(said).encode(), digest_size=16).digest()


def _reworded(paraphrase: Paraphrase, dialogue: Dialogue) -> Turn:
    """The turn of a rewording: where it says nothing else, the answers that are expected of it are the dialogue's."""
    expected = paraphrase.dialogue.expected or dialogue.expected
    return paraphrase.dialogue.model_copy(update={"expected": expected}).last_turn
