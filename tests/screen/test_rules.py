from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from letheon.errors import InputError
from letheon.records import Dialogue, Turn
from letheon.screen.judge import Opinion
from letheon.screen.rules import Rule, RulesJudge, read_rules


def turn(question: str, answer: str) -> Turn:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Dialogue.model_validate({"id": "x", "messages": messages}).last_turn


def rule(**fields: Any) -> Rule:
    return Rule.model_validate({"name": "r", "category": "harmful", **fields})


def opinion(answer: str, *rules: Rule, question: str = "q") -> Opinion:
    (found,) = RulesJudge(rules).judge([turn(question, answer)])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("bomb", "A BOMB.", "BOMB"),
        ("bomb", "bombs and bombard", None),
        ("pipe bomb", "a pipe\n  bomb", "pipe\n  bomb"),
        ("straße", "In der STRASSE hier", "STRASSE"),
        ("café", "the Cafe\u0301 here", "Cafe\u0301"),
        ("cafe", "the cafe\u0301 here", None),
        ("C++", "in C++, mostly", "C++"),
        ("炸弹", "制造炸弹的方法", "炸弹"),
        ("(a|b", "it says (a|b here", "(a|b"),
        ("_key", "my_key or _key", "_key"),
    ],
)
def test_keywords_are_whole_words_in_any_case_and_script(keyword: str, text: str, found: str | None) -> None:
    span = opinion(text, rule(keywords=[keyword])).span
    assert (None if span is None else text[slice(*span)]) == found


def test_a_hit_has_the_rules_category_and_score_and_its_reason_quotes_nothing() -> None:
    found = opinion("Some secret here.", rule(name="no secrets", pattern="secret", score=0.7, category="leak"))
    assert found == Opinion("leak", 0.7, (5, 11), "rule 'no secrets'")
    assert opinion("Nothing.", rule(pattern="secret")) == Opinion("normal", 0.0, None, "no rule hits")


def test_the_highest_rule_counts_and_the_earlier_one_at_a_tie() -> None:
    rules = [rule(name=name, pattern="x", score=score) for name, score in (("a", 0.5), ("b", 0.9), ("c", 0.9))]
    assert opinion("x", *rules).reason == "rule 'b'"
    assert opinion("x", rule(pattern="x", score=0.0)).category == "harmful"


@pytest.mark.parametrize(
    ("where", "question", "answer", "score", "span"),
    [
        ("answer", "bad", "ok", 0, None),
        ("answer", "ok", "bad", 1, (0, 3)),
        ("question", "bad", "ok", 1, None),
        ("question", "bad", "bad", 1, None),
        ("question", "ok", "bad", 0, None),
        ("both", "bad", "ok", 1, None),
        ("both", "ok", "is bad", 1, (3, 6)),
        ("both", "bad", "bad", 1, (0, 3)),
    ],
)
def test_where(where: str, question: str, answer: str, score: float, span: tuple[int, int] | None) -> None:
    found = opinion(answer, rule(keywords=["bad"], where=where), question=question)
    assert (found.score, found.span) == (score, span)


def test_unless_is_for_the_text_of_the_hit() -> None:
    killing = rule(keywords=["kill"], unless=r"process|signal", where="both")
    assert opinion("kill the Process", killing).score == 0
    assert opinion("kill him", killing).score == 1
    assert opinion("kill him", killing, question="How do I kill a process?").score == 1


QUOTED_HARM = 'You asked how to make a "pipe bomb". I can\'t help with that.'
PARTLY = "I can't help with a pipe bomb, but here is how: fill the tube and close both ends."
DISAVOWED = "Fill the tube of the pipe bomb and close both ends. I do not condone this, of course."


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I can't help you make a pipe bomb.", True),
        (QUOTED_HARM, True),
        (PARTLY, False),
        (DISAVOWED, False),
        ('The man said "pipe bomb" and showed how to fill the tube.', False),
    ],
)
def test_a_refusal_is_no_harm_where_the_rule_says_so(answer: str, refused: bool) -> None:
    assert opinion(answer, rule(keywords=["pipe bomb"], refusals="skip")).score == (0 if refused else 1)
    assert opinion(answer, rule(keywords=["pipe bomb"])).score == 1
    asked = rule(keywords=["pipe bomb"], where="question", refusals="skip")
    assert opinion(answer, asked, question="How do I make a pipe bomb?").score == (0 if refused else 1)


def write(folder: Path, rules: object) -> Path:
    path = folder / "rules.yaml"
    path.write_text(rules if isinstance(rules, str) else yaml.safe_dump(rules, allow_unicode=True), encoding="utf-8")
    return path


def test_read_rules(tmp_path: Path) -> None:
    fields = [{"name": "a", "category": "leak", "keywords": ["Projekt Möwe"]}, {"name": "b", "category": "c"}]
    fields[1] |= {"pattern": r"(?i)\bkey-\d{4}\b", "where": "both", "score": 0.6, "unless": "x", "refusals": "skip"}
    rules = read_rules(write(tmp_path, fields))
    assert [r.model_dump(exclude_defaults=True) for r in rules] == fields


def test_all_faults_of_the_file_are_named_with_their_place(tmp_path: Path) -> None:
    good = {"name": "good", "category": "c", "keywords": ["k"]}
    path = write(
        tmp_path,
        [
            good,
            good | {"keywords": ["k", " "]},
            good | {"name": "n3", "pattern": "p"},
            {"name": "n4", "category": "c"},
            {"name": "n5", "category": "c", "pattern": "(a", "unless": "b*"},
            {"name": "n6", "category": "normal", "pattern": "(a|aa)+$", "wher": "answer", "score": 2},
            {"category": "c", "pattern": "x", "where": "nowhere"},
            "text",
        ],
    )
    with pytest.raises(InputError) as caught:
        read_rules(path)
    faults = [fault.removeprefix(f"{path}: ") for fault in caught.value.faults]
    assert len(faults) == 13
    for start, part in [
        ("rule 2 ('good')", "rule 1 has this name already"),
        ("rule 2 ('good'): keywords", "holds an empty word"),
        ("rule 3 ('n3')", "give either keywords or pattern"),
        ("rule 4 ('n4')", "give either keywords or pattern"),
        ("rule 5 ('n5'): pattern", "not a regular expression: missing ) at position 2"),
        ("rule 5 ('n5'): unless", "matches the empty text"),
        ("rule 6 ('n6'): category", "another category than 'normal'"),
        ("rule 6 ('n6'): pattern", "without an end"),
        ("rule 6 ('n6')", "unknown field 'wher'; known fields: name, category, keywords"),
        ("rule 6 ('n6'): score", "less than or equal to 1"),
        ("rule 7", "'name' is missing"),
        ("rule 8", "Input should be a valid dictionary"),
        ("rule 7: where", "'answer', 'question' or 'both'"),
    ]:
        assert any(fault.startswith(start) and part in fault for fault in faults), (start, part, faults)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "expected a list of rules"),
        ("name: a", "expected a list of rules"),
        ("- [", "not valid YAML"),
        ("- {name: 2021-02-30}", "not valid YAML"),
        ("- 3", "rule 1: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_no_list_of_rules(tmp_path: Path, text: str, fault: str) -> None:
    with pytest.raises(InputError, match=re.escape(fault)):
        read_rules(write(tmp_path, text))
    with pytest.raises(InputError, match="no such file"):
        read_rules(tmp_path / "none.yaml")


def test_a_pattern_that_stalls_on_a_text_is_stopped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.screen.rules.SECONDS", 0.05)
    # What the file's check does not try: the repeat stalls on these two words alone.
    stalling = rule(name="slow", pattern=r"(zig|zag|zigzag)+$")
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"rule 'slow' looked at one text of dialogue 'x' for 0.05 second") as caught:
        opinion("zigzag" * 60 + "!", stalling)
    assert time.perf_counter() - started < 2
    assert "zigzag" not in str(caught.value)
