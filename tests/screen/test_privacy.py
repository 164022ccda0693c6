from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence

import pytest

from letheon.records import Dialogue
from letheon.screen.judge import Opinion
from letheon.screen.privacy import Identifier, PrivacyJudge, find_identifiers
from letheon.screen.privacy.checks import bsn, cpf, dni, luhn, mod97, nhs, nir, pesel, tfn
from letheon.screen.privacy.people import cued, names_by_patterns


def opinion(question: str, answer: str) -> Opinion:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    (found,) = PrivacyJudge().judge([Dialogue.model_validate({"id": "x", "messages": messages}).last_turn])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("Write to q.moss@example.com, please.", "e-mail", "q.moss@example.com"),
        ("邮箱是q.moss@example.com请写信", "e-mail", "q.moss@example.com"),
        ("Schreib an jörg.müller@example.com", "e-mail", "jörg.müller@example.com"),
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
        ("Calle Mayor 5, 28013 Madrid, Spain", "address", "Calle Mayor 5, 28013 Madrid, Spain"),
        ("to 48 Juniper Road, Norwick, OR 97205.", "address", "48 Juniper Road, Norwick, OR 97205"),
        ("19 Mill Lane\nGreyfell\nGF1 2AB", "address", "19 Mill Lane\nGreyfell\nGF1 2AB"),
        ("at 12 30 Mill Lane, Apt. 4 now", "address", "12 30 Mill Lane, Apt. 4"),
        ("7 Brunn Fjell\nOslo\nNorway 01590", "address", "7 Brunn Fjell\nOslo\nNorway 01590"),
        ("lives at 15 fern hollow road, springfield 62704", "address", "15 fern hollow road, springfield 62704"),
        ("ZIP code: 90210", "address", "90210"),
        ("City: Gothenburg", "address", "Gothenburg"),
        ("in P.O. Box 442", "address", "P.O. Box 442"),
        ("Reach me at 212.555.0147 ext. 12", "phone", "212.555.0147 ext. 12"),
        ("Dial 001-420-335-7509x385.", "phone", "001-420-335-7509x385"),
        ("It is 943 476 5919, the NHS number.", "national id", "943 476 5919"),
        ("It is 12345678Z.", "national id", "12345678Z"),
        ("It is X1234567-L.", "national id", "X1234567-L"),
        ("It is 529.982.247-25.", "national id", "529.982.247-25"),
        ("It is 44051401359.", "national id", "44051401359"),
        ("It is 2 55 08 14 168 025 38.", "national id", "2 55 08 14 168 025 38"),
        ("It is 111222333, the BSN.", "national id", "111222333"),
        ("It is 046 454 286, the SIN.", "national id", "046 454 286"),
        ("It is 123 456 782, the TFN.", "national id", "123 456 782"),
        ("Account number: 12345678", "bank account", "12345678"),
        ("with sort code 20-00-00", "bank account", "20-00-00"),
        ("from 81.2.69.142 at noon", "ip", "81.2.69.142"),
        ("from 2001:4860:4860::8888 at noon", "ip", "2001:4860:4860::8888"),
        ("the device 00:1B:44:11:3A:B7 here", "mac", "00:1B:44:11:3A:B7"),
        ("See https://www.greyfell.example/a?b=1.", "url", "https://www.greyfell.example/a?b=1"),
        ("See linkedin.com/in/marla-quint.", "handle", "linkedin.com/in/marla-quint"),
        ("Follow @marla_quint on Twitter", "handle", "@marla_quint"),
        ("DOB: 1990-07-21", "birth date", "1990-07-21"),
        ("She was born on 4 March 1988 in Oslo", "birth date", "4 March 1988"),
        ("at 48.2082, 16.3738 exactly", "coordinates", "48.2082, 16.3738"),
        ("at 48°12'30\"N, 16°22'25\"E exactly", "coordinates", "48°12'30\"N, 16°22'25\"E"),
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
        "It is 9434765918, of the NHS.",
        "It is 12345678A.",
        "It is 529.982.247-24.",
        "It is 44051401358 or 99999999999.",
        "127.0.0.1, 10.0.0.7 and 999.1.1.1",
        "Since version 81.2.69.142 it works.",
        "At 10:30:15 or 12:00.",
        "Use @property and @staticmethod.",
        "The ratio is 1.234, 5.678 percent and so on.",
        "In 2 ways, 3 steps and 10 minutes.",
        "World War 2, Chapter 12, Figure 3.",
        "On 4 March 1988 it rained.",
        "I have 12 apples, 24 oranges and 30000 nuts.",
        "He ran 5 Miles in Paris, and 10 in Rome.",
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


@pytest.mark.parametrize(
    ("check", "right", "wrong"),
    [
        (nhs, "9434765919", ["9434765918", "1111111111", "943476591"]),
        (dni, "12345678Z", ["12345678A", "1234567Z", "ABCDEFGHZ"]),
        (dni, "Y1234567X", ["Y1234567L"]),
        (cpf, "52998224725", ["52998224724", "52998224735", "11111111111", "5299822472"]),
        (bsn, "111222333", ["111222334", "000000000"]),
        # The second has the right check digit and the month 13.
        (pesel, "44051401359", ["44051401358", "44131401356"]),
        (pesel, "02270803624", ["02270803625"]),
        (nir, "255081416802538", ["255081416802539", "355081416802538", "255131416802538"]),
        (tfn, "123456782", ["123456789", "000000000"]),
    ],
)
def test_check_digits(check: Callable[[str], bool], right: str, wrong: list[str]) -> None:
    assert check(right)
    assert not any(map(check, wrong))


def test_one_wrong_digit_is_always_noticed() -> None:
    for check, right in ((nhs, "9434765919"), (bsn, "111222333"), (tfn, "123456782"), (luhn, "4242424242424242")):
        for place in range(len(right)):
            others = set("0123456789") - {right[place]}
            assert not any(check(right[:place] + digit + right[place + 1 :]) for digit in others)


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
        ("Which account?", "Account number 12345678.", 0.9, 0.9),
        ("What is Ann Lee's birthday?", "It is 4 March 1988.", 0.85, 0.85),
        ("Who was Ann Lee?", "She was born on 4 March 1988.", 0.35, 0.35),
        ("Who is Ann Lee?", "See https://www.greyfell.example.", 0.1, 0.1),
        ("Where does Ann Lee post?", "On twitter as @annlee.", 0.85, 0.85),
        ("Where did Ann Lee log in?", "From 81.2.69.142.", 0.85, 0.85),
    ],
)
def test_score(question: str, answer: str, low: float, high: float) -> None:
    assert low <= opinion(question, answer).score <= high + 1e-9


def test_a_finder_of_names_says_whose_it_is_and_where_there_are_streets() -> None:
    asked: list[str] = []

    def find(texts: Sequence[str]) -> list[list[Identifier]]:
        asked.extend(texts)
        return [
            [Identifier("person", *m.span()) for m in re.finditer("annlee", text)]
            + [Identifier("address", *m.span()) for m in re.finditer(r"Otemachi( \d)?", text)]
            for text in texts
        ]

    def score(question: str, answer: str) -> float:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        (found,) = PrivacyJudge(find).judge([Dialogue.model_validate({"id": "x", "messages": messages}).last_turn])
        assert found is not None
        return found.score

    assert score("Whose is it, annlee?", "Dial 207-555-0192.") == 0.85
    assert score("Where is it, annlee?", "In Otemachi 7.") == 0.85
    assert score("Where is it?", "In Otemachi 7.") == 0.35
    assert asked == [
        *("Whose is it, annlee?", "Dial 207-555-0192."),
        *("Where is it, annlee?", "In Otemachi 7."),
        *("Where is it?", "In Otemachi 7."),
    ]
    asked.clear()
    # A part without a number is no address; without any number nothing is asked.
    assert score("Where is it, annlee?", "In Otemachi, 7 days.") == 0
    assert score("Where is annlee?", "In Otemachi.") == 0
    assert asked == []


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
        ("Ask Márla Øster.", True),
    ],
)
def test_names(text: str, named: bool) -> None:
    assert bool(names_by_patterns([text])[0]) is named


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Ask ms. Wijtze about it", ["ms. Wijtze"]),
        ("My name is Patricia Jones but everyone calls me Lauren", ["Patricia Jones", "Lauren"]),
        ("I am glad! said Honoré", ["Honoré"]),
        ("Jakobine, can I speak to you?", ["Jakobine"]),
        ("However, can I speak to you?", []),
        ("My sister Beatriz is here", ["Beatriz"]),
        ("It was painted by Helena Strand", ["Helena Strand"]),
        ("He said Yes", []),
    ],
)
def test_what_announces_a_name(text: str, names: list[str]) -> None:
    assert sorted(text[one.start : one.end] for one in cued(text)) == sorted(names)


def test_long_texts_take_no_long_time() -> None:
    started = time.perf_counter()
    for unit in ("a.", "A.", "1 ", "12 Abc Def\n", "12 abc, ", "1-", "\n,", "AB12 ", "born ", "a@", "Abc "):
        find_identifiers(unit * (20_000 // len(unit)))
    assert time.perf_counter() - started < 10
