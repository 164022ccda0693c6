"""What has been decided and what waits, in memory; each change is on the disk before it counts."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from letheon.errors import InputError
from letheon.records import NORMAL, Audit, Choice, Dialogue, PersonDecision, Turn, Verdict
from letheon.review.audit import scored
from letheon.review.decisions import TurnKey, category_of, decision_now, standing
from letheon.review.doubt import doubt
from letheon.screen.labels import UNNAMED

Tab = Literal["waiting", "decided", "audit"]
Properties = tuple[str, str, str]
"""Category, decision, judge."""
LONGEST_CATEGORY = 60
USUAL_CATEGORIES = ("harmful", "privacy", "hallucination", "outdated")


@dataclass
class Item:
    """One assistant turn of the log.

    Attributes:
        turn: The turn.
        verdict: What the judges said.
        score: In [0, 1]: the judges', or what has been learnt since.
    """

    turn: Turn
    verdict: Verdict
    score: float


@dataclass(frozen=True)
class Filters:
    """Which turns to show; None lets all through."""

    category: str | None = None
    decision: str | None = None
    judge: str | None = None

    def let(self, category: str, decision: str, judge: str) -> bool:
        """Whether a turn with these properties is shown."""
        return self.category in (None, category) and self.decision in (None, decision) and self.judge in (None, judge)


@dataclass(frozen=True)
class _Step:
    """What undo takes back: a decision, before which this one stood, or a skip, before which these did."""

    number: int
    before: PersonDecision | None
    skipped: tuple[int, ...] | None = None


class Session:
    """A review. A turn is named by its number, its place among the verdicts.

    Args:
        dialogues: The log.
        verdicts: Of every assistant turn; what a person decided earlier may be in them.
        decisions: What a person decided earlier.
        save: Puts a decision on the disk; what it raises leaves the session as it was.
        normal_below: Score under which the screening called a turn normal.
        forget_above: Score from which it was to be forgotten.
        audit: The sample that is to be labelled, where there is one.
        save_audit: Puts the audit on the disk.
    """

    def __init__(
        self,
        dialogues: Sequence[Dialogue],
        verdicts: Sequence[Verdict],
        decisions: Sequence[PersonDecision],
        save: Callable[[PersonDecision], None],
        *,
        normal_below: float,
        forget_above: float,
        audit: Audit | None = None,
        save_audit: Callable[[Audit], None] = lambda audit: None,
    ):
        by_id = {dialogue.id: dialogue for dialogue in dialogues}
        judged = [verdict.judged or verdict for verdict in verdicts]
        self.items = [Item(Turn(by_id[v.id], v.turn), v, v.score) for v in judged]
        self.normal_below, self.forget_above = normal_below, forget_above
        self.learned_from = 0
        self._band = {number for number, verdict in enumerate(judged) if verdict.decision == "review"}
        self.lock = threading.RLock()
        number_of = {(v.id, v.turn): number for number, v in enumerate(judged)}
        self._decided = {number_of[key]: decision for key, decision in standing(decisions).items()}
        self._tally: Counter[Properties] = Counter((v.category, v.decision, v.judge) for v in judged)
        self._skipped: dict[int, None] = {}
        self._steps: list[_Step] = []
        self._save, self._save_audit = save, save_audit
        self._audit = audit
        self._sample = [number_of[turn.id, turn.turn] for turn in audit.sample] if audit else []
        self._order = self._by_doubt()
        self._keep_audit()

    # -- what there is -----------------------------------------------------------------------------------------------

    def decision_on(self, number: int) -> PersonDecision | None:
        """What a person has decided about a turn."""
        return self._decided.get(number)

    def numbers(self, tab: Tab, filters: Filters | None = None) -> Iterator[int]:
        """The turns of a tab that the filters let through.

        "waiting": undecided ones, the most doubtful first, skipped ones last. "decided": the latest first. "audit":
        those of the sample that are undecided, in random order.
        """
        for number in self._all(tab):
            if filters is None or filters.let(*self.properties(number)):
                yield number

    def _all(self, tab: Tab) -> Iterator[int]:
        if tab == "decided":
            yield from reversed(list(self._decided))
            return
        order = self._sample if tab == "audit" else self._order
        yield from (number for number in order if number not in self._decided and number not in self._skipped)
        yield from (number for number in self._skipped if tab == "waiting" or number in self._sample)

    def properties(self, number: int) -> Properties:
        """Category, decision and judge that filters go by; a person's come before the judges'."""
        verdict, decision = self.items[number].verdict, self._decided.get(number)
        if decision is None:
            return verdict.category, verdict.decision, verdict.judge
        category = NORMAL if decision.decision == "normal" else self.category_for(number)
        return category, decision.decision, verdict.judge

    def tally(self, tab: Tab) -> Counter[Properties]:
        """How many turns of a tab have the same properties."""
        if tab == "waiting":
            judged = ((v.category, v.decision, v.judge) for v in (self.items[n].verdict for n in self._decided))
            # Not over all that waits, at each key press.
            return self._tally - Counter(judged)
        return Counter(self.properties(number) for number in self._all(tab))

    def category_for(self, number: int) -> str:
        """The category that a "forget" would have if the person named no other."""
        item, decision = self.items[number], self._decided.get(number)
        person = decision.category if decision is not None else None
        return category_of(person, item.verdict.category, item.turn.dialogue.category)

    def categories(self) -> list[str]:
        """The categories to choose from: the usual ones, the judges', and those that the person has named."""
        named = {category for category, _, _ in self._tally} - {NORMAL}
        named |= {decision.category for decision in self._decided.values() if decision.category}
        return [*USUAL_CATEGORIES, *sorted(named - {*USUAL_CATEGORIES, UNNAMED}), UNNAMED]

    def counts(self) -> Mapping[str, int]:
        """How far it is: turns by what has become of them; "band" are those that the judges left to a person."""
        made = Counter(decision.decision for decision in self._decided.values())
        return {
            "forget": made["forget"],
            "normal": made["normal"],
            "decided": len(self._decided),
            "waiting": len(self.items) - len(self._decided),
            "band": len(self._band),
            "band_decided": len(self._band & self._decided.keys()),
        }

    @property
    def decided(self) -> int:
        """How many turns a person has decided."""
        return len(self._decided)

    @property
    def audit(self) -> Audit | None:
        """The audit with what has been decided so far."""
        if self._audit is None:
            return None
        decided: dict[TurnKey, PersonDecision] = {(d.id, d.turn): d for d in self._decided.values()}
        return scored(self._audit, decided)

    @property
    def can_undo(self) -> bool:
        """Whether this session has something to take back."""
        return bool(self._steps)

    # -- changes -----------------------------------------------------------------------------------------------------

    def decide(self, number: int, decision: Choice, category: str | None = None) -> None:
        """Decide a turn, change a decision, or take it back.

        Raises:
            InputError: The category cannot be one.
            OSError: It could not be saved; it does not count then.
        """
        with self.lock:
            before = self._decided.get(number)
            if decision == "undone" and before is None:
                return
            named = None if category is None or decision != "forget" else checked_category(category)
            made = decision_now(self.items[number].turn, decision, named)
            if before is not None and (before.decision, before.category) == (made.decision, made.category):
                return
            self._put(number, made)
            self._steps.append(_Step(number, before))

    def skip(self, number: int) -> None:
        """Put a turn behind all others, for this session."""
        with self.lock:
            if number in self._decided:
                return
            self._steps.append(_Step(number, None, skipped=tuple(self._skipped)))
            self._skipped.pop(number, None)
            self._skipped[number] = None

    def undo(self) -> int | None:
        """Take back the latest change of this session; returns its turn."""
        with self.lock:
            if not self._steps:
                return None
            step = self._steps[-1]
            if step.skipped is not None:
                self._skipped = dict.fromkeys(step.skipped)
            elif step.before is not None:
                again = step.before
                self._put(step.number, decision_now(self.items[step.number].turn, again.decision, again.category))
            else:
                self._put(step.number, decision_now(self.items[step.number].turn, "undone"))
            self._steps.pop()
            return step.number

    def rescore(self, scores: Mapping[int, float], learned_from: int) -> None:
        """Take newer scores of undecided turns, and order the queue by them. Decisions stay as they are."""
        with self.lock:
            for number, score in scores.items():
                self.items[number].score = score
            self.learned_from = learned_from
            self._order = self._by_doubt()

    def _put(self, number: int, made: PersonDecision) -> None:
        self._save(made)
        self._decided.pop(number, None)
        if made.decision != "undone":
            self._decided[number] = made
            self._skipped.pop(number, None)
        self._keep_audit()

    def _keep_audit(self) -> None:
        audit = self.audit
        if audit is not None:
            self._save_audit(audit)

    def _by_doubt(self) -> list[int]:
        def key(number: int) -> tuple[bool, float, float]:
            item = self.items[number]
            return doubt(item.verdict.decision, item.score, self.normal_below, self.forget_above)

        return sorted(range(len(self.items)), key=key)


def checked_category(category: str) -> str:
    """A category as a person typed it, stripped.

    Raises:
        InputError: It is empty, too long, of more than one line, or "normal".
    """
    name = category.strip()
    if not name or len(name) > LONGEST_CATEGORY or not name.isprintable() or name == NORMAL:
        raise InputError(
            f"category: give one line of 1 to {LONGEST_CATEGORY} characters, other than {NORMAL!r}, "
            "or leave it out to keep the judges' own"
        )
    return name
