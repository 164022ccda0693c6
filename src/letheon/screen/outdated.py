"""The judge that holds answers against a table of facts that have changed.

It knows the table, and English words that put something in the past ("was", "until", "former"). It misses an old
value in words that the table does not have, and takes "not only the mayor, X, …" for a denial.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import regex
import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from letheon.dialogues import BAD_JSON, BadRowError, file_rows
from letheon.errors import InputError
from letheon.records import NORMAL, Turn
from letheon.screen.judge import Opinion, versioned
from letheon.screen.words import keyword_pattern, sentences
from letheon.text_file import read_text
from letheon.yaml_text import load_yaml

CATEGORY = "outdated"
STATED = 0.9
"""Score of an old value that is stated as what holds now."""
ELSEWHERE = 0.4
"""… that is stated so, while the new value stands in another part of the answer."""
BESIDE = 0.2
"""… with the new value in the same sentence or one next to it."""
PAST = 0.1
"""… that is stated as past, or denied."""


def _texts(value: Any) -> Any:
    """One text stands for a list of one; numbers are read as they are written."""
    many = value if isinstance(value, list | tuple) else [value]
    return [str(one) if isinstance(one, int | float) and not isinstance(one, bool) else one for one in many]


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | date) and not isinstance(value, bool) else value


Term = Annotated[str, Field(pattern=r"\S")]
Terms = Annotated[tuple[Term, ...], BeforeValidator(_texts)]


class ChangedFact(BaseModel):
    """One row of the table.

    Attributes:
        old: What held before, in one or several wordings.
        new: What holds now; the first wording serves as correction.
        about: What question and answer must mention, each term at least once, for the old value to count; "a|b" is a
            term that either satisfies. Empty: the old value counts anywhere.
        since: When it changed: a text with a year, where that is known.
        aliases: More wordings of the old value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    old: Annotated[Terms, Field(min_length=1)]
    new: Annotated[Terms, Field(min_length=1)]
    about: Terms = ()
    since: Annotated[str | None, BeforeValidator(_text)] = None
    aliases: Terms = ()

    @property
    def year(self) -> int | None:
        """The year of `since`."""
        found = YEAR.search(self.since or "")
        return int(found.group()) if found else None


@dataclass(frozen=True)
class _Compiled:
    fact: ChangedFact
    old: regex.Pattern[str]
    new: regex.Pattern[str]
    about: tuple[regex.Pattern[str], ...]


@dataclass(frozen=True)
class _Found:
    """An old value at answer[start:end], what is made of it, and whose it is."""

    start: int
    end: int
    score: float
    number: int


class OutdatedJudge:
    """Score of an answer: that of its worst old value; 0 without any.

    0.9 stated as what holds now; 0.4 the same, but the answer has the new value in another place; 0.2 with the new
    value in the same sentence or one next to it; 0.1 stated as past ("was", "until", a year before the change, a
    question about the past) or denied. An old value counts only where question or answer mention what it is about.

    Args:
        facts: The table.
    """

    def __init__(self, facts: Sequence[ChangedFact]):
        self.name = versioned("outdated", *facts)
        self._facts = [
            _Compiled(
                fact,
                keyword_pattern((*fact.old, *fact.aliases)),
                keyword_pattern(fact.new),
                tuple(keyword_pattern(filter(str.strip, term.split("|"))) for term in fact.about),
            )
            for fact in facts
        ]
        # Most answers hold none of the old values: one look settles them.
        self._any = keyword_pattern({word for fact in facts for word in (*fact.old, *fact.aliases)})

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Look for old values in every answer."""
        return [self._opinion(turn) for turn in turns]

    def corrected(self, turn: Turn) -> str | None:
        """The answer with the new value wherever it states the old one as current; None if it states none."""
        answer, end, parts = turn.answer, 0, list[str]()
        for found in sorted(self._found(turn), key=lambda one: one.start):
            if found.score == STATED and found.start >= end:
                parts += [answer[end : found.start], self._facts[found.number].fact.new[0]]
                end = found.end
        return "".join([*parts, answer[end:]]) if parts else None

    def _opinion(self, turn: Turn) -> Opinion:
        found = self._found(turn)
        if not found:
            return Opinion(NORMAL, 0.0, reason="states no old value of a changed fact")
        worst = max(found, key=lambda one: (one.score, -one.start))
        said = {STATED: "stated as current", PAST: "stated as past"}.get(worst.score, "beside its new value")
        since = self._facts[worst.number].fact.since
        reason = f"old value of changed fact {worst.number + 1} {said}" + (f" (changed {since})" if since else "")
        return Opinion(CATEGORY, worst.score, (worst.start, worst.end), reason)

    def _found(self, turn: Turn) -> list[_Found]:
        if self._any.search(turn.answer) is None:
            return []
        spans = list(sentences(turn.answer))
        return [
            _Found(start, end, score, number)
            for number, one in enumerate(self._facts)
            if all(term.search(turn.question) or term.search(turn.answer) for term in one.about)
            for start, end, score in _old_values(one, turn, spans)
        ]


def _old_values(one: _Compiled, turn: Turn, spans: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int, float]]:
    answer = turn.answer
    new = [match.span() for match in one.new.finditer(answer)]
    for match in one.old.finditer(answer):
        start, end = match.span()
        # "North Macedonia" does not say "Macedonia".
        if any(a < end and start < b for a, b in new):
            continue
        place = next(n for n, (a, b) in enumerate(spans) if a <= start < b)
        near = spans[max(0, place - 1)][0], spans[min(len(spans) - 1, place + 1)][1]
        if _is_past(answer, spans[place], (start, end), turn.question, one.fact.year):
            yield start, end, PAST
        elif any(near[0] <= a < near[1] for a, _ in new):
            yield start, end, BESIDE
        else:
            yield start, end, ELSEWHERE if new else STATED


YEAR = regex.compile(r"\b(?:1[5-9]|20)\d{2}\b")
STILL = regex.compile(r"\b(?:since|still|current(?:ly)?|now|today|at present|remains?)\b", regex.IGNORECASE)
"""Words of what goes on: "since 2019" is a claim about today."""
EVENT = regex.compile(
    r"\b(?:was|were|has been|have been)\s+(?:(?:first|also|re-?|newly|officially|then)\s*)?(?:appointed|elected|named"
    r"|founded|born|built|launched|introduced|established|created|chosen|sworn|crowned|made|set|signed|released"
    r"|discovered|opened|raised|adopted)\b",
    regex.IGNORECASE,
)
"""What began, and may last: "was elected in 2019" puts nothing in the past."""
OVER = regex.compile(
    r"\b(?:used to|formerly|former|ex|previous(?:ly)?|once|back then|at that time|at the time|in those days|until"
    r"|till|no longer|not|isn't|aren't|wasn't|weren't|had been|earlier|(?:replaced|succeeded|followed) by|renamed"
    r"|stepped down|stood down|resigned|ended|outdated|out of date|historically|originally|instead of"
    r"|rather than|before)\b|\b(?:1[5-9]|20)\d{2}\s*(?:-|–|to)\s*(?:1[5-9]|20)\d{2}\b",
    regex.IGNORECASE,
)
"""Words that put something in the past, or deny it."""
WAS = regex.compile(r"\b(?:was|were|had|served|held)\b", regex.IGNORECASE)
TAKEN_OVER = regex.compile(r"\b(?:replaced|succeeded)\s+(?:\w+\s+){0,3}$", regex.IGNORECASE)
"""Just before the old value: "X replaced Y"."""


def _is_past(
    answer: str, sentence: tuple[int, int], value: tuple[int, int], question: str, changed: int | None
) -> bool:
    """Whether a sentence states a value as past, or denies it; one without a verb is as past as its question."""
    text = answer[slice(*sentence)].replace("’", "'")
    if OVER.search(text) or TAKEN_OVER.search(answer, sentence[0], value[0]):
        return True
    if EVENT.search(text) or STILL.search(text):
        return False
    if WAS.search(text) or _is_before(text, changed):
        return True
    if regex.search(r"\b(?:is|are|has|have|'s)\b", text, regex.IGNORECASE):
        return False
    return WAS.search(question) is not None or OVER.search(question) is not None or _is_before(question, changed)


def _is_before(text: str, changed: int | None) -> bool:
    years = [int(year) for year in YEAR.findall(text)]
    return changed is not None and bool(years) and max(years) < changed


def read_changed_facts(path: Path) -> list[ChangedFact]:
    """Read a table of changed facts: a YAML list, JSON Lines, or CSV (with lists as JSON in a cell).

    Raises:
        InputError: Every fault at once, each with its place.
    """
    text = read_text(path, "screen.changed_facts")
    readers = {".yaml": _yaml_rows, ".yml": _yaml_rows, ".jsonl": _table_rows, ".csv": _table_rows}
    if path.suffix.lower() not in readers:
        raise InputError(f"{path}: unknown format (screen.changed_facts); known: {', '.join(readers)}")
    facts, faults = list[ChangedFact](), list[str]()
    for place, row in readers[path.suffix.lower()](path, text):
        if isinstance(row, BadRowError):
            faults += [f"{place}: {fault}" for fault in row.faults]
            continue
        try:
            facts.append(ChangedFact.model_validate(row))
        except ValidationError as error:
            faults += [f"{place}: {_explain(fault)}" for fault in error.errors()]
    if faults:
        raise InputError(faults)
    if not facts:
        raise InputError(f"{path}: no facts in it (screen.changed_facts); each needs old and new")
    return facts


def _yaml_rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        raw = load_yaml(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, list | None):
        raise InputError(f"{path}: expected a list of facts, each '- old: …' with new")
    yield from ((f"{path}: fact {number}", row) for number, row in enumerate(raw or [], start=1))


def _table_rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for line, row in file_rows(path):
        if path.suffix.lower() == ".csv" and isinstance(row, dict):
            row = {name: _cell(value) for name, value in row.items() if value}
        yield f"{path}:{line}", row


def _cell(value: Any) -> Any:
    try:
        parsed = json.loads(value)
    except (*BAD_JSON, TypeError):
        return value
    return parsed if isinstance(parsed, list) else value


def _explain(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown field {place!r}; known fields: {', '.join(ChangedFact.model_fields)}"
    if fault["type"] == "missing":
        return f"{place!r} is missing"
    if fault["type"] == "string_pattern_mismatch":
        return f"{place}: an empty text"
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])
