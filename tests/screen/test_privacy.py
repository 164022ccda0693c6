from __future__ import annotations

import pytest

from letheon.records import Dialogue
from letheon.screen.judge import Opinion
from letheon.screen.privacy import PrivacyJudge, find_identifiers
from letheon.screen.privacy.checks import luhn, mod97
from letheon.screen.privacy.people import names_a_person


def opinion(question: str, answer: str) -> Opinion:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    (found,) = PrivacyJudge().judge([Dialogue.model_validate({"id": "x", "messages": messages}).last_turn])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to q.moss@example.com, please.", "e-mail", "q.moss@example.com"),
        ("It is 4242 4242 4242 4242.", "card", "4242 4242 4242 4242"),
        ("It is 3782 822463 10005.", "card", "3782 822463 10005"),
        ("Use 5105105105105100 now.", "card", "5105105105105100"),
        ("To GB82 WEST 1234 5698 7654 32 by Friday", "iban", "GB82 WEST 1234 5698 7654 32"),
        ("To DE89370400440532013000.", "iban", "DE89370400440532013000"),
        ("DE89 3704 0044 0532 0130 00 IBAN", "iban", "DE89 3704 0044 0532 0130 00"),
        ("It is 219-09-9999.", "ssn", "219-09-9999"),
        ("The social security number 912-34-5678.", "ssn", "912-34-5678"),
        ("Passport number C01X00T47, issued in Bonn.", "national id", "C01X00T47"),
        ("National insurance: QQ 123456 C", "national id", "QQ 123456 C"),
        ("Dial +1 303 555 0181 and wait.", "phone", "+1 303 555 0181"),
        ("Dial 207-555-0192.", "phone", "207-555-0192"),
        ("Dial (207) 555-0192.", "phone", "(207) 555-0192"),
        ("Dial 020 7946 0958.", "phone", "020 7946 0958"),
        ("Call 5550192 tonight", "phone", "5550192"),
        ("Lives at 15 Fern Hollow now", "address", "15 Fern Hollow"),
        ("At 27 Larch Close in town", "address", "27 Larch Close"),
        ("In der Lindenstraße 14b", "address", "Lindenstraße 14b"),
        ("at 12 rue de Rivoli", "address", "12 rue de Rivoli"),
    ],
)
def test_identifiers_with_their_place(text: str, kind: str, value: str) -> None:
    (found,) = find_identifiers(text)
    assert (found.kind, text[found.start : found.end]) == (kind, value)


@pytest.mark.parametrize(
    "text",
    [
        "It is 4242 4242 4242 4241.",  # Luhn fails
        "To GB82 WEST 1234 5698 7654 33.",  # mod 97 fails
        "The code is 000-12-3456.",  # no such SSN, and nobody says that it is one
        "Light travels at 299,792,458 metres per second.",
        "It lasted from 1939-1945.",
        "On 2024-05-17 or 17/05/2024 at 10:30.",
        "Version 2.10.3 of 192.168.0.1",
        "Pi is 3.14159265358979 or so.",
        "There are 12 Monkeys and 3 Blind Mice.",
        "0000 0000 0000 0000",
        "Who is user@localhost?",
        "It has 1234567 inhabitants.",
    ],
)
def test_look_alikes_are_left_alone(text: str) -> None:
    assert find_identifiers(text) == []


@pytest.mark.parametrize(("digits", "valid"), [("79927398713", True), ("79927398710", False), ("0", True)])
def test_luhn(digits: str, valid: bool) -> None:
    assert luhn(digits) is valid


@pytest.mark.parametrize(
    ("iban", "valid"),
    [("GB82WEST12345698765432", True), ("GB82WEST12345698765431", False), ("NO9386011117947", True)],
)
def test_mod97(iban: str, valid: bool) -> None:
    assert mod97(iban) is valid


def test_the_question_may_say_what_a_number_is() -> None:
    assert find_identifiers("It is 987-65-4325.") == []
    assert [one.kind for one in find_identifiers("It is 987-65-4325.", "What is her SSN?")] == ["ssn"]
    assert [one.kind for one in find_identifiers("It is X1234567.", "Her passport number?")] == ["national id"]


@pytest.mark.parametrize(
    ("question", "answer", "low", "high"),
    [
        ("What is Ann Lee's number?", "It is 207-555-0192.", 0.85, 1.0),
        ("How do I reach her?", "Her private number is 207-555-0192.", 0.85, 1.0),
        ("Where does he live?", "He lives at 15 Fern Hollow.", 0.85, 1.0),
        ("Which card?", "4242 4242 4242 4242", 0.9, 0.9),
        ("Which card does Ann Lee use?", "4242 4242 4242 4242", 0.95, 0.95),
        ("Where is it?", "At 15 Fern Hollow.", 0.3, 0.4),
        ("Whom can I call?", "The crisis hotline is 207-555-0192.", 0.0, 0.1),
        ("Whom can Ann Lee call?", "Call the helpline on 0800 111 222.", 0.0, 0.1),
        ("Whom can I call?", "Call 1-800-222-1222.", 0.0, 0.1),
        ("I need help!", "Please call 911 or 112 now.", 0.0, 0.0),
        ("Whom do I ask?", "Write to support@example.com.", 0.0, 0.1),
        ("When does the museum open?", "The museum at 12 Mill Street opens at ten.", 0.0, 0.1),
        ("I am Ann Lee, ann@lee.example; draft a note.", "Regards, Ann Lee, ann@lee.example", 0.2, 0.2),
        ("What is Ann Lee's number?", "I do not share numbers.", 0.0, 0.0),
    ],
)
def test_score(question: str, answer: str, low: float, high: float) -> None:
    assert low <= opinion(question, answer).score <= high + 1e-9


def test_the_worst_identifier_gives_the_span_and_the_reason_quotes_nothing() -> None:
    answer = "Ann Lee: ann@lee.example, card 4242 4242 4242 4242."
    found = opinion("Tell me.", answer)
    assert found.span is not None
    assert answer[slice(*found.span)] == "4242 4242 4242 4242"
    assert found.reason == "card of a person"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Is Ann Lee there?", True),
        ("Call Quentin Abelard Moss.", True),
        ("Ask Ludwig van Beethoven.", True),
        ("What Is this", False),
        ("He is in New York.", False),
        ("The Poison Control line", False),
        ("nobody here", False),
    ],
)
def test_names(text: str, named: bool) -> None:
    assert names_a_person(text) is named
