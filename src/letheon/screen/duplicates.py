"""Turns that say the same are judged once: exact repetitions, and near ones.

Two turns are near if nine tenths of their word triples are common (Jaccard index, estimated by MinHash: Broder, "On
the resemblance and containment of documents", 1997) and all else is equal: numbers, symbols, label, category,
acceptable answers. In a text of sixty words that is one other word, so short texts share a verdict only where they
differ in case and punctuation. An inserted "not" in a long text is not seen.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from letheon.records import Turn, Verdict
from letheon.screen.words import plain_words, signs

SIMILAR = 0.9
"""Least Jaccard index of near duplicates."""
PERMUTATIONS = 64
WORDS = 3
REMEMBERED = 50_000
"""Turns that are remembered, the latest ones."""


@dataclass
class Judged:
    """A turn that stands for all like it.

    Attributes:
        exact: What is equal in exact repetitions alone.
        rest: What is equal in near ones.
        sketch: Of its words; None where near ones do not count.
        verdict: None until it has been judged.
    """

    exact: str
    rest: str
    sketch: Any
    verdict: Verdict | None = None

    def is_exactly(self, turn: Turn) -> bool:
        """Whether a turn repeats this one to the letter."""
        return _digests(turn)[0] == self.exact


class Duplicates:
    """Remembers turns.

    What is found depends on the turns that have been asked about and on their order alone, so that a screening that
    is taken up again decides as an unbroken one.

    Args:
        near: Whether near duplicates count too.
        remembered: How many turns at most.

    Attributes:
        shared: How many turns had another to stand for them.
    """

    def __init__(self, *, near: bool = True, remembered: int = REMEMBERED):
        self.shared = 0
        self._remembered = remembered
        self._turns: OrderedDict[int, Judged] = OrderedDict()
        self._numbers: dict[str, int] = {}
        self._next = 0
        self._sketch: Callable[[list[str]], Any] | None = None
        self._index: Any = None
        if near:
            self._sketch, self._index = _near_index()

    def of(self, turn: Turn) -> tuple[Judged, bool]:
        """The turn that stands for this one, and whether that is this one itself."""
        judged, itself = self._find(turn)
        self.shared += not itself
        return judged, itself

    def _find(self, turn: Turn) -> tuple[Judged, bool]:
        exact, rest = _digests(turn)
        if exact in self._numbers:
            return self._turns[self._numbers[exact]], False
        sketch = self._sketch(_words(turn)) if self._sketch else None
        if self._index is not None:
            for number in sorted(self._index.query(sketch)):
                known = self._turns[number]
                if known.rest == rest and known.sketch.jaccard(sketch) >= SIMILAR:
                    return known, False
        judged = Judged(exact, rest, sketch)
        self._remember(judged)
        return judged, True

    def _remember(self, judged: Judged) -> None:
        number, self._next = self._next, self._next + 1
        self._turns[number] = judged
        self._numbers[judged.exact] = number
        if self._index is not None:
            self._index.insert(number, judged.sketch)
        if len(self._turns) > self._remembered:
            oldest, forgotten = self._turns.popitem(last=False)
            del self._numbers[forgotten.exact]
            if self._index is not None:
                self._index.remove(oldest)


def _near_index() -> tuple[Callable[[list[str]], Any], Any]:
    """What makes a sketch of words, and an index of sketches."""
    import datasketch

    def sketch(words: list[str]) -> Any:
        made = datasketch.MinHash(num_perm=PERMUTATIONS)
        triples = range(max(len(words) - WORDS + 1, 1))
        made.update_batch([" ".join(words[place : place + WORDS]).encode() for place in triples])
        return made

    return sketch, datasketch.MinHashLSH(threshold=SIMILAR, num_perm=PERMUTATIONS)


def _digests(turn: Turn) -> tuple[str, str]:
    """Of all that a judge may look at, and of what must be equal in near duplicates: all but the words."""
    dialogue, last = turn.dialogue, turn.index == turn.dialogue.last_turn.index
    messages = dialogue.messages[: turn.index + 1]
    known = [dialogue.label, dialogue.category, *turn.expected] if last else []
    numbers = [re.findall(r"\d+", message.content) for message in messages]
    whole = [[(m.role, m.content) for m in messages], last, known]
    symbols = [signs(message.content) for message in messages]
    rest = [[m.role for m in messages], numbers, symbols, last, known]
    return _digest(whole), _digest(rest)


def _digest(what: Any) -> str:
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _words(turn: Turn) -> list[str]:
    return plain_words("\n".join(message.content for message in turn.dialogue.messages[: turn.index + 1]))
