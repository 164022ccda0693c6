"""Dialogues as a trainer reads them: sequences of tokens to forget, to keep and to probe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from letheon.chat import Encoded, answers_apart, encode_dialogue, encode_reply, encode_turn
from letheon.errors import InputError
from letheon.expected import Target, tells
from letheon.models import Tokenizer
from letheon.objective import Objective
from letheon.records import Dialogue, Message, Turn
from letheon.train.dataset import Forget
from letheon.train.robust import asked_otherwise, ways_of
from letheon.train.rows import dialogue_of

MOST_EXPECTED = 3
"""Of so many expected answers to a question the stop rule asks whether one has taken the old one's place."""
GUARDS = 16
"""So many normal sequences the guards look at where they are given none."""


class Probed(NamedTuple):
    """An old answer of the stop rule's probe, and the expected ones that it waits for; there may be none."""

    old: Encoded
    expected: tuple[Encoded, ...] = ()


class Watched(NamedTuple):
    """What the stop rule looks at.

    Attributes:
        old: Old answers.
        normal: Normal dialogues of the log.
        rehearsed: What the model answered to everyday questions.
    """

    old: list[Probed]
    normal: list[Encoded]
    rehearsed: list[Encoded]


class Reader:
    """Makes the sequences of one training.

    Args:
        tokenizer: With a chat template.
        max_length: Most tokens of a sequence; a longer one is refused (robust mode's other ways are cut).
        objective: Says what is read of a dialogue.
        robust: Whether what is to be forgotten is asked in other ways, too.
        seed: Of those.
    """

    def __init__(
        self, tokenizer: Tokenizer, max_length: int | None, objective: Objective, *, robust: bool, seed: int
    ):
        self.tokenizer, self.max_length, self.objective = tokenizer, max_length, objective
        self.robust, self.seed = robust, seed

    def forget(self, targets: Sequence[Target]) -> list[Forget]:
        """What is to be forgotten, with what is expected instead where the objective reads it."""
        found = [self._forget(target, number) for number, target in enumerate(targets)]
        if self.objective.prefers and not all(item.expected for item in found):
            raise InputError(f"{type(self.objective.negative).__name__} needs an expected answer for each to forget")
        return found

    def kept(self, rows: Sequence[Any] | None, forget: Sequence[Forget]) -> list[Encoded]:
        """As `normal`; refuse none, and split dialogues where expected answers are to stand in an answer's place."""
        normal = self.normal(rows)
        if forget and self.objective.normal is not None and not normal:
            raise InputError("normal_dataset is empty: without normal dialogues the model's ability is not kept")
        return self._one_answer_each(normal, forget) if self.objective.rejects else normal

    def normal(self, rows: Sequence[Dialogue | Encoded | Mapping[str, Any]] | None) -> list[Encoded]:
        """Dialogues whose every answer is to be kept.

        Raises:
            InputError: A row does not fit, by its number and field.
        """
        return [
            row
            if isinstance(row, Encoded)
            else encode_dialogue(self.tokenizer, dialogue_of(row, number), self.max_length)
            for number, row in enumerate(rows or ())
        ]

    def watched(
        self,
        targets: Sequence[Target],
        probe: Sequence[Turn],
        guards: Sequence[Dialogue | Encoded | Mapping[str, Any]] | None,
        normal: Sequence[Encoded],
    ) -> Watched:
        """What the stop rule looks at.

        Args:
            targets: What is to be forgotten.
            probe: Turns with old answers; where there are none the targets themselves are probed.
            guards: Dialogues, and what was rehearsed; where there is nothing some of `normal` stand for them.
            normal: What is to be kept.
        """
        read = list(zip(guards or (), self.normal(guards), strict=True))
        own = [sequence for row, sequence in read if not isinstance(row, Encoded)]
        rehearsed = [sequence for row, sequence in read if isinstance(row, Encoded)]
        return Watched(self._probed(targets, probe), own if read else list(normal[:GUARDS]), rehearsed)

    def _probed(self, targets: Sequence[Target], turns: Sequence[Turn]) -> list[Probed]:
        """Old answers, with expected ones where there is a pull toward them and they state something; see `Probe`."""
        waits = self.objective.positive is not None and tells(targets)
        if turns:
            asked = [(turn, turn.expected[:MOST_EXPECTED]) for turn in turns]
        else:
            asked = [(target.turn, _heaviest(target)) for target in targets]
        found = [Probed(self._turn(turn), self._replies(turn, answers) if waits else ()) for turn, answers in asked]
        if self.robust:
            otherwise = asked_otherwise(self.tokenizer, [turn for turn, _ in asked], self.max_length)
            found += map(Probed, otherwise)
        return found

    def unasked(self, turns: Sequence[Turn]) -> list[Encoded]:
        """Old answers with the question left empty."""
        return [encode_reply(self.tokenizer, _without_question(t.prompt), t.answer, self.max_length) for t in turns]

    def _one_answer_each(self, normal: Sequence[Encoded], forget: Sequence[Forget]) -> list[Encoded]:
        """Normal answers apart from each other; refuse them where expected ones could not stand in their place."""
        if not forget or not all(item.expected for item in forget):
            raise InputError(f"{type(self.objective.normal).__name__} needs an expected answer for each to forget")
        apart = [one for dialogue in normal for one in answers_apart(dialogue)]
        prompt = max(one.answer_mask.index(True) for one in apart)
        answer = max(sum(expected.answer_mask) for item in forget for expected in item.expected)
        if self.max_length is not None and prompt + answer > self.max_length:
            raise InputError(
                f"normal_dataset: a prompt has {prompt} tokens and an expected answer {answer}, but at most "
                f"{self.max_length} fit, and the normal term reads the one after the other; shorten the longest "
                "prompt or raise the maximum length"
            )
        return apart

    def _forget(self, target: Target, number: int) -> Forget:
        expects = self.objective.reads_expected
        ways: tuple[Forget, ...] = ()
        if self.robust:
            ways = ways_of(self.tokenizer, target, number, self.max_length, self.seed, expects=expects)
        if not expects:
            return Forget(self._turn(target.turn), (), (), ways)
        return Forget(self._turn(target.turn), self._replies(target.turn, target.answers), target.weights, ways)

    def _turn(self, turn: Turn) -> Encoded:
        return encode_turn(self.tokenizer, turn, self.max_length)

    def _replies(self, turn: Turn, answers: Sequence[str]) -> tuple[Encoded, ...]:
        name = f"dialogue {turn.dialogue.id!r}: an expected answer"
        return tuple(encode_reply(self.tokenizer, turn.prompt, text, self.max_length, name=name) for text in answers)


def _heaviest(target: Target) -> tuple[str, ...]:
    """Those of its expected answers that are drawn most often."""
    return tuple(c.text for c in sorted(target.candidates, key=lambda c: -c.weight) if c.weight > 0)[:MOST_EXPECTED]


def _without_question(prompt: Sequence[Message]) -> tuple[Message, ...]:
    return (*prompt[:-1], Message(role=prompt[-1].role, content="")) if prompt else ()
