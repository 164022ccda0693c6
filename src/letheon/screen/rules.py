"""The judge that follows a file of rules: words and patterns that an answer, or its question, must not hold.

What it cannot do: understand. "How to kill a process" holds the word "kill"; give such a rule an `unless`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import regex
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from letheon.errors import InputError
from letheon.records import NORMAL, Turn
from letheon.screen.judge import Opinion, versioned
from letheon.screen.refusal import is_refusal
from letheon.screen.words import keyword_pattern
from letheon.text_file import read_text
from letheon.yaml_text import load_yaml

SECONDS = 1.0
"""How long a pattern may look at one text."""
PROBE_SECONDS = 0.2
"""How long it may look at one of the texts that it is tried on when the file is read."""

Name = Annotated[str, Field(min_length=1)]


class Rule(BaseModel):
    """One rule of the file.

    Attributes:
        name: What reasons of verdicts call it.
        category: Category of the turns that it hits.
        keywords: Whole words or phrases, in any case; one of `keywords` and `pattern` is given.
        pattern: A regular expression (of the `regex` library); write (?i) in front of it for any case.
        where: Which text is looked at: the answer, the question, or both (a hit in either is enough).
        score: Of a hit, in [0, 1].
        unless: A regular expression, for any case: where it is found in the same text, the rule is not heard.
        refusals: Whether a hit in an answer that does nothing but refuse is counted or skipped.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    category: Name
    keywords: list[Name] | None = Field(None, min_length=1)
    pattern: Name | None = None
    where: Literal["answer", "question", "both"] = "answer"
    score: float = Field(1.0, ge=0, le=1)
    unless: Name | None = None
    refusals: Literal["count", "skip"] = "count"

    @field_validator("category")
    @classmethod
    def _category_is_undesired(cls, category: str) -> str:
        if category == NORMAL:
            raise ValueError("a rule finds what is undesired; name another category than 'normal'")
        return category

    @field_validator("keywords")
    @classmethod
    def _keywords_are_words(cls, keywords: list[str] | None) -> list[str] | None:
        if any(not word.strip() for word in keywords or ()):
            raise ValueError("holds an empty word")
        return keywords

    @field_validator("pattern", "unless")
    @classmethod
    def _pattern_is_one(cls, pattern: str | None) -> str | None:
        if pattern is not None:
            _check_pattern(pattern)
        return pattern

    @model_validator(mode="after")
    def _looks_for_one_thing(self) -> Rule:
        if (self.keywords is None) == (self.pattern is None):
            raise ValueError("give either keywords or pattern")
        return self


@dataclass(frozen=True)
class _Compiled:
    rule: Rule
    find: regex.Pattern[str]
    unless: regex.Pattern[str] | None


class RulesJudge:
    """Score of a turn: that of the highest rule that hits it, the earlier one at a tie; 0 where none does.

    Args:
        rules: In order.
    """

    def __init__(self, rules: Sequence[Rule]):
        self.name = versioned("rules", *rules)
        self._rules = [
            _Compiled(
                rule,
                regex.compile(rule.pattern) if rule.pattern is not None else keyword_pattern(rule.keywords or ()),
                regex.compile(rule.unless, regex.IGNORECASE) if rule.unless is not None else None,
            )
            for rule in rules
        ]
        self._needs_refusals = any(rule.refusals == "skip" for rule in rules)

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Try every rule on every turn.

        Raises:
            InputError: A pattern takes longer than a second on one text.
        """
        return [self._opinion(turn) for turn in turns]

    def _opinion(self, turn: Turn) -> Opinion:
        refused = self._needs_refusals and is_refusal(turn.answer)
        best = Opinion(NORMAL, 0.0, reason="no rule hits")
        for one in self._rules:
            rule = one.rule
            if (refused and rule.refusals == "skip") or (best.category != NORMAL and rule.score <= best.score):
                continue
            hit, span = _hit(one, turn)
            if hit:
                best = Opinion(rule.category, rule.score, span, f"rule {rule.name!r}")
        return best


def read_rules(path: Path) -> list[Rule]:
    """Read a file of rules: a YAML list.

    Raises:
        InputError: Every fault at once, each with the rule's place in the list.
    """
    try:
        raw = load_yaml(read_text(path, "screen.rules"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, list) or not raw:
        raise InputError(f"{path}: expected a list of rules, each '- name: …' with category and keywords or pattern")
    rules, faults, first = list[Rule](), list[str](), dict[str, int]()
    for number, fields in enumerate(raw, start=1):
        place = f"{path}: rule {number}"
        if isinstance(fields, dict) and isinstance(fields.get("name"), str):
            place += f" ({fields['name']!r})"
            if fields["name"] in first:
                faults.append(f"{place}: rule {first[fields['name']]} has this name already")
            first.setdefault(fields["name"], number)
        try:
            rules.append(Rule.model_validate(fields))
        except ValidationError as error:
            faults += [f"{place}: {_explain(fault)}" for fault in error.errors()]
    if faults:
        raise InputError(faults)
    return rules


def _hit(one: _Compiled, turn: Turn) -> tuple[bool, tuple[int, int] | None]:
    """Whether a rule hits a turn, and where in the answer (None for a hit in the question)."""
    where = {"answer": (True,), "question": (False,), "both": (True, False)}[one.rule.where]
    try:
        for in_answer in where:
            text = turn.answer if in_answer else turn.question
            match = one.find.search(text, timeout=SECONDS)
            if match is not None and not (one.unless and one.unless.search(text, timeout=SECONDS)):
                return True, match.span() if in_answer else None
    except TimeoutError:
        raise InputError(
            f"screen.rules: rule {one.rule.name!r} looked at one text of dialogue {turn.dialogue.id!r} for "
            f"{SECONDS:g} second without an end; make its pattern or unless simpler (no repeat inside a repeat)"
        ) from None
    return False, None


def _check_pattern(pattern: str) -> None:
    """Refuse a pattern that is none, that finds nothing everywhere, or that never ends.

    One that backtracks without end cannot be told for certain from its text. It is tried on some long texts made of
    what it looks for; one that passes here and still stalls on a dialogue is stopped there, by the same clock.
    """
    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    if compiled.search("") is not None:
        raise ValueError("matches the empty text, and so every text; ask for at least one character")
    letters = dict.fromkeys(character for character in pattern if character.isalnum())
    units = dict.fromkeys([*letters, "a", "a ", "0", "ab", "".join(letters)])
    texts = [unit * 60 + end for unit in units if unit for end in ("!", "\n!")]
    try:
        for text in texts:
            compiled.search(text, timeout=PROBE_SECONDS)
    except TimeoutError:
        raise ValueError(
            f"looked at {len(text)} characters for {PROBE_SECONDS:g} seconds without an end; "
            "make it simpler (no repeat inside a repeat)"
        ) from None


def _explain(fault: Any) -> str:
    """One fault of a rule: field, what is wrong, what is allowed."""
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"unknown field {place!r}; known fields: {', '.join(Rule.model_fields)}"
    if fault["type"] == "missing":
        return f"{place!r} is missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{place}: {message}" if place else message
