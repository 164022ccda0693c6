"""What a judge is: something that looks at assistant turns and says how sure it is that each must be forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from letheon.records import Turn


@dataclass(frozen=True)
class Opinion:
    """What a judge thinks of one turn.

    Attributes:
        category: Kind of undesired content that it looks for or found most likely, or "normal".
        score: In [0, 1]; higher is more surely undesired.
        span: Character range [start, end) of the offending part of the answer, where the judge knows it.
        reason: One short sentence that quotes nothing of the dialogue.
        unable: The judge could not look (its budget is spent, its server is silent), and the reason says so: the turn
            waits for a person, unless a judge is sure. The score is what it knows nevertheless; 0 for nothing.
    """

    category: str
    score: float
    span: tuple[int, int] | None = None
    reason: str | None = None
    unable: bool = False


def versioned(kind: str, *what: Any) -> str:
    """A judge's name with a version of what it judges by, such as "rules@1a2b3c4d"."""
    return f"{kind}@{hashlib.sha256(repr(what).encode()).hexdigest()[:8]}"


class Judge(Protocol):
    """A judge of assistant turns."""

    @property
    def name(self) -> str:
        """What verdicts call it, with its version where it has one."""
        ...

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Give one opinion a turn, in order; None where this judge has nothing to go by."""
        ...
