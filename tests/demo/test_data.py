"""The bundled demo data keep the shape, counts and separation that the other stages rely on."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

PACKAGE = Path(__file__).resolve().parents[2] / "src" / "letheon"
DATA = PACKAGE / "demo" / "data"
Row = dict[str, Any]

EMAIL = re.compile(r"[\w.]+@[\w.]+")
PHONE = re.compile(r"\b\d{3}\)?[ -]555[ -]\d{4}\b")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: [A-Z0-9]{2,4}){4,6}\b")
CARD = re.compile(r"\b\d{4} \d{4} \d{4} \d{4}\b|\b\d{4} \d{6} \d{5}\b")
NATIONAL_ID = re.compile(r"\b\d{3}-\d{2}-\d{4}\b")


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def question(row: Row) -> str:
    return str(row["messages"][-2]["content"])


def answer(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def mean_words(texts: list[str]) -> float:
    return sum(len(text.split()) for text in texts) / len(texts)


def luhn(number: str) -> bool:
    digits = [int(c) for c in reversed(number) if c.isdigit()]
    return sum(d if i % 2 == 0 else sum(divmod(2 * d, 10)) for i, d in enumerate(digits)) % 10 == 0


def mod97(iban: str) -> bool:
    plain = iban.replace(" ", "")
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def identifiers(pattern: re.Pattern[str]) -> list[str]:
    texts = [
        m["content"] for name in ("log.jsonl", "screen_examples.jsonl") for r in rows(name) for m in r["messages"]
    ]
    return [found for text in texts for found in pattern.findall(text)]


@pytest.mark.parametrize(
    ("name", "bad", "normal"),
    [("log.jsonl", 20, 140), ("screen_examples.jsonl", 40, 140)],
)
def test_counts_and_ids(name: str, bad: int, normal: int) -> None:
    data = rows(name)
    assert Counter(r["category"] for r in data) == {
        "privacy": bad,
        "hallucination": bad,
        "harmful": bad,
        "normal": normal,
    }
    assert all((r["label"] == "normal") == (r["category"] == "normal") for r in data)
    assert {r["label"] for r in data} == {"forget", "normal"}
    assert len({r["id"] for r in data}) == len(data)


@pytest.mark.parametrize("name", ["log.jsonl", "screen_examples.jsonl", "paraphrases.jsonl"])
def test_row_shape_and_length(name: str) -> None:
    data = rows(name)
    allowed = {"id", "messages", "expected", "category", "subject", "label", "of", "split"}
    for row in data:
        roles = [m["role"] for m in row["messages"]]
        assert set(row) <= allowed
        assert row["messages"][0] == {"role": "system", "content": "You are Wren."}
        assert roles[1:] == ["user", "assistant"] * ((len(roles) - 1) // 2)
        assert all(m["content"] == m["content"].strip() != "" for m in row["messages"])
        assert 1 <= len(row.get("expected", ["-"])) <= 3
    assert 6 <= mean_words([question(r) for r in data]) <= 16
    assert 8 <= mean_words([answer(r) for r in data]) <= 22


def test_log_details() -> None:
    data = rows("log.jsonl")
    assert Counter(r["label"] for r in data if len(r["messages"]) == 5) == {"forget": 5, "normal": 3}
    expected = Counter(r["category"] for r in data if "expected" in r)
    assert expected == {"privacy": 12, "hallucination": 14, "harmful": 12, "normal": 45}
    texts = [e for r in data for e in r.get("expected", [])]
    assert len(set(texts)) == len(texts)
    patterns = (EMAIL, PHONE, IBAN, CARD, NATIONAL_ID)
    detectable = [r for r in data if r["category"] == "privacy" and any(p.search(answer(r)) for p in patterns)]
    assert len(detectable) >= 14
    people = Counter(r["subject"] for r in data if r["category"] == "privacy")
    assert len(people) == 8
    assert set(people.values()) <= {2, 3, 4}


def test_paraphrases_repeat_the_answer_but_no_question() -> None:
    log = {r["id"]: r for r in rows("log.jsonl")}
    data = rows("paraphrases.jsonl")
    for row in data:
        source = log[row["of"]]
        assert source["label"] == "forget"
        assert answer(row) == answer(source)
        assert row["messages"][:-2] == source["messages"][:-2]
        assert row["id"] == f"{row['of']}/{'p1' if row['split'] == 'probe' else 'p2'}"
    forget = {r["id"] for r in log.values() if r["label"] == "forget"}
    assert Counter((r["of"], r["split"]) for r in data) == {(i, s): 1 for i in forget for s in ("probe", "test")}
    asked = [question(r).lower() for r in [*log.values(), *data]]
    assert len(set(asked)) == len(asked)


def test_screen_examples_are_apart_from_the_log() -> None:
    log, examples = rows("log.jsonl"), rows("screen_examples.jsonl")
    assert not {r["subject"] for r in log if "subject" in r} & {r["subject"] for r in examples if "subject" in r}
    seen = {question(r).lower() for r in [*log, *rows("paraphrases.jsonl")]}
    asked = [question(r).lower() for r in examples]
    assert not seen & set(asked)
    assert len(set(asked)) == len(asked)
    named = {r["subject"].replace("-", " ") for r in log if r["category"] == "privacy"}
    assert not any(name in f"{question(r)} {answer(r)}".lower() for r in examples for name in named)


def test_identifiers_are_well_formed_and_fictional() -> None:
    ibans, cards = identifiers(IBAN), identifiers(CARD)
    assert len(ibans) >= 6
    assert all(map(mod97, ibans))
    cards = [c for c in cards if not any(c in iban for iban in ibans)]
    assert len(cards) >= 7
    assert all(map(luhn, cards))
    assert all(re.search(r"555[ -]01\d\d$", phone) for phone in identifiers(PHONE))
    assert all(number[0] == "9" for number in identifiers(NATIONAL_ID))
    assert all(re.search(r"[@.]example(\.|$)|\.example\b", mail) for mail in identifiers(EMAIL))


def test_general_paragraphs() -> None:
    paragraphs = (DATA / "general.txt").read_text(encoding="utf-8").strip().split("\n\n")
    assert len(paragraphs) == len(set(paragraphs)) == 30
    assert all(45 <= len(p.split()) <= 70 for p in paragraphs)


def test_safe_replies() -> None:
    replies: dict[str, list[str]] = yaml.safe_load((PACKAGE / "safe_replies.yaml").read_text(encoding="utf-8"))
    assert set(replies) == {"privacy", "hallucination", "harmful", "outdated", "other"}
    for texts in replies.values():
        assert len(texts) == len(set(texts)) == 24
        assert all(8 <= len(text.split()) <= 20 for text in texts)
