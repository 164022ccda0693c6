"""What the page is told: plain JSON, with the texts of only those dialogues that are shown next."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import Any

from letheon.review.audit import in_words
from letheon.review.learn import Learner
from letheon.review.session import Filters, Session, Tab

AHEAD = 3
"""Dialogues that the page holds in advance, so that the next one is there at once."""
ROWS = 50
"""Rows of the list of decided turns that are sent at a time."""


def state(session: Session, learner: Learner, tab: Tab, filters: Filters) -> dict[str, Any]:
    """All that is not a dialogue: progress, filters, what has been learnt, the audit."""
    with session.lock:
        tally = session.tally(tab)
        facets: dict[str, Counter[str]] = {name: Counter() for name in ("category", "decision", "judge")}
        for properties, number in sorted(tally.items()):
            for facet, value in zip(facets.values(), properties, strict=True):
                facet[value] += number
        audit = session.audit
        return {
            "counts": session.counts(),
            "fitting": sum(number for properties, number in tally.items() if filters.let(*properties)),
            "facets": facets,
            "categories": session.categories(),
            "can_undo": session.can_undo,
            "learning": learner.busy,
            "learned_from": session.learned_from,
            "note": learner.note,
            "audit": None
            if audit is None
            else {"asked": len(audit.sample), "labelled": audit.labelled, "words": in_words(audit)},
        }


def upcoming(session: Session, tab: Tab, filters: Filters) -> list[dict[str, Any]]:
    """The next dialogues of a queue, with their texts."""
    with session.lock:
        return [item(session, number) for number in islice(session.numbers(tab, filters), AHEAD)]


def rows(session: Session, filters: Filters, offset: int) -> list[dict[str, Any]]:
    """A part of the list of decided turns, without texts."""
    with session.lock:
        return [row(session, number) for number in islice(session.numbers("decided", filters), offset, offset + ROWS)]


def row(session: Session, number: int) -> dict[str, Any]:
    """One turn without its texts."""
    found, decision = session.items[number], session.decision_on(number)
    verdict = found.verdict
    return {
        "number": number,
        "id": verdict.id,
        "turn": verdict.turn,
        "category": session.category_for(number),
        "judged": {
            "decision": verdict.decision,
            "category": verdict.category,
            "score": verdict.score,
            "judge": verdict.judge,
            "reason": verdict.reason,
        },
        "score": found.score,
        "decided": None
        if decision is None
        else {
            "decision": decision.decision,
            "category": session.properties(number)[0],
            "when": decision.when.isoformat(),
        },
    }


def item(session: Session, number: int) -> dict[str, Any]:
    """One turn with its whole dialogue."""
    found = session.items[number]
    turn, span = found.turn, found.verdict.span
    return {
        **row(session, number),
        "messages": [{"role": message.role, "text": message.content} for message in turn.dialogue.messages],
        "span": None if span is None else [utf16(turn.answer, place) for place in span],
        "expected": list(turn.expected),
    }


def utf16(text: str, place: int) -> int:
    """A place in a text as JavaScript counts it: an emoji is one character here and two units there."""
    return len(text[:place].encode("utf-16-le")) // 2
