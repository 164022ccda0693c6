"""Identifiers in a text, by patterns and check digits: numbers, addresses, contacts. Names are `people`'s.

What patterns cannot see: identifiers written out in words, and formats of countries that nobody has added.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import regex

from letheon.screen.privacy import checks
from letheon.screen.privacy.address import find_addresses
from letheon.screen.words import SPACELESS

Kind = Literal[
    "e-mail",
    "phone",
    "card",
    "iban",
    "bank account",
    "ssn",
    "national id",
    "address",
    "ip",
    "mac",
    "url",
    "handle",
    "birth date",
    "coordinates",
    "person",
    "place",
]
"""What is found; persons and places by `people`, all else here."""


@dataclass(frozen=True)
class Identifier:
    """An identifier at text[start:end]."""

    kind: Kind
    start: int
    end: int


def find_identifiers(text: str, asked: str = "") -> list[Identifier]:
    """Find identifiers, in order of place; where patterns overlap, the more specific one counts.

    Args:
        text: Where to look.
        asked: The question, which may say what a bare number in the answer is ("her passport number?").
    """
    found: list[Identifier] = []
    for finder in FINDERS:
        for one in finder(text, asked):
            if all(one.end <= other.start or other.end <= one.start for other in found):
                found.append(one)
    return sorted(found, key=lambda one: one.start)


# Finders, the most specific first.

# In scripts without spaces the words around an address touch it.
EMAIL = regex.compile(
    rf"(?<![[\w.+-]--[{SPACELESS}]])[[\w.+-]--[{SPACELESS}]]+@[\w-]+(?:\.[\w-]+)*\.[A-Za-z]{{2,}}(?![\w--[{SPACELESS}]])",
    regex.V1,
)
URL = re.compile(r"\bhttps?://[^\s<>\"')\]]+|\bwww\.[^\s<>\"')\]]+\.[^\s<>\"')\]]+", re.IGNORECASE)
PROFILE = re.compile(
    r"\b(?:https?://)?(?:www\.)?(?:linkedin\.com/in|facebook\.com|twitter\.com|x\.com|instagram\.com|tiktok\.com"
    r"|github\.com|t\.me|snapchat\.com/add|reddit\.com/u(?:ser)?|mastodon\.social)/@?[\w.-]{2,}[\w]/?(?![\w/])",
    re.IGNORECASE,
)
"""A page of one person (or company) where people have pages."""
HANDLE = re.compile(r"(?<![\w@./])@[A-Za-z_][\w.]{1,28}\w\b")
HANDLE_CUE = re.compile(
    r"\b(?:twitter|instagram|insta|tiktok|telegram|snapchat|mastodon|handle|user ?name|account|profile|dm|follow)\b",
    re.IGNORECASE,
)
CARD = re.compile(r"(?<![\w-])\d(?:[ -]?\d){12,18}(?![\w-]*\d)")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?:[ ]?[A-Z0-9]){11,30}\b")
IBAN_LENGTHS = range(15, 35)
BANK = re.compile(
    r"\b(?:account|acct|a/c|sort code|routing|transit)\b[^\d\n.]{0,30}?(?P<number>\d(?:[ -]?\d){5,16})(?![\w-]*\d)",
    re.IGNORECASE,
)
SSN = re.compile(r"(?<![\w-])(\d{3})[- ](\d{2})[- ](\d{4})(?![\w-])")
SSN_CUE = re.compile(r"\bSSN\b|social[- ]security", re.IGNORECASE)
ID_CUE = re.compile(
    r"\b(?:passport|national id(?:entity)?|identity (?:card|number)|id (?:card|number)|personal id"
    r"|driv(?:er'?s?|ing) licen[cs]e|tax (?:id|number)|national insurance|social insurance|NHS number"
    r"|CPF|DNI|NIF|NIE|Aadhaar|PESEL|BSN|NINO|NIR|SIN|TFN)\b",
    re.IGNORECASE,
)
ID_VALUE = re.compile(r"\b[A-Z0-9](?:[ .-]?[A-Z0-9]){5,17}\b")
ID_DIGITS = 4
"""Digits that an id has at least (a word in capitals has none)."""
CHECKED_IDS: tuple[tuple[re.Pattern[str], Callable[[str], bool], str | None], ...] = (
    (re.compile(r"\b(?:\d{8}|[XYZ]\d{7})[- ]?[A-Z]\b"), checks.dni, None),
    (re.compile(r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b"), checks.cpf, None),
    (re.compile(r"\b[12] ?\d{2} ?\d{2} ?\d{2} ?\d{3} ?\d{3} ?\d{2}\b"), checks.nir, None),
    (re.compile(r"(?<![\w.,+-])\d{11}(?![\w-]|[.,]\d)"), checks.pesel, None),
    (re.compile(r"(?<![\w.,+-])\d{11}(?![\w-]|[.,]\d)"), checks.cpf, r"\bCPF\b"),
    (re.compile(r"(?<![\w-])\d{3}[ -]?\d{3}[ -]?\d{4}(?![\w-])"), checks.nhs, r"\bNHS\b"),
    (re.compile(r"(?<![\w-])\d{9}(?![\w-])"), checks.bsn, r"\b(?:BSN|burgerservicenummer)\b"),
    (re.compile(r"(?<![\w-])\d{3}[ -]?\d{3}[ -]?\d{3}(?![\w-])"), checks.luhn, r"\bSIN\b|social insurance"),
    (re.compile(r"(?<![\w-])\d{3} ?\d{3} ?\d{3}(?![\w-])"), checks.tfn, r"\bTFN\b|tax file"),
)
"""Form, check digits, and the word that must be about where nine or ten digits could be anything else."""
IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:|::)[0-9A-Fa-f:]{2,}(?![\w:])")
VERSION_CUE = re.compile(r"\b(?:version|release|section|chapter|v)\W{0,2}$", re.IGNORECASE)
MAC = re.compile(r"(?<![\w:-])[0-9A-Fa-f]{2}(?:([:-])[0-9A-Fa-f]{2})(?:\1[0-9A-Fa-f]{2}){4}(?![\w:-])")
PHONE = re.compile(
    r"(?<![\w.+-])(?:"
    r"\+\d{1,3}(?:[ .-]?\(?\d{1,5}\)?){2,6}"  # +44 20 7946 0958
    r"|\(\d{2,5}\)[ .-]?\d{2,4}(?:[ .-]?\d{2,4}){1,3}"  # (207) 555-0192
    r"|(?:1[ .-])?\d{3}[ .-]\d{3}[ .-]\d{4}"  # 207-555-0192
    r"|\d{3}-\d{4}"  # 555-0192
    r"|00(?!0)\d{1,3}(?:[ .-]\d{2,5}){2,5}"  # 001-420-335-7509
    r"|0(?!00)\d{1,4}(?:[ /-]\d{2,8}){1,4}"  # 020 7946 0958
    r")(?:\s?(?:x|ext\.?)\s?\d{1,6})?(?![\w-]|[.,]\d)"
)
DIGITS = re.compile(r"(?<![\w.,+-])\d{7,13}(?![\w-]|[.,]\d)")
PHONE_CUE = re.compile(r"\b(?:call|phone|tele?phone|tel|mobile|cell|dial|ring|text|reach|fax|line)\b", re.IGNORECASE)
MONTH = "Jan|Feb|Mar|Apr|May|June?|July?|Aug|Sept?|Oct|Nov|Dec"
DATE = (
    rf"(?:\d{{1,2}}[./-]\d{{1,2}}[./-](?:19|20)?\d{{2}}|(?:19|20)\d{{2}}-\d{{2}}-\d{{2}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?(?: of)? (?:{MONTH})[a-z]*\.?,? (?:19|20)\d{{2}}"
    rf"|(?:{MONTH})[a-z]*\.? \d{{1,2}}(?:st|nd|rd|th)?,? (?:19|20)\d{{2}})"
)
BIRTH = re.compile(
    rf"\b(?:born|birth|birthday|birthdate|DOB|D\.O\.B\.?)\b[^\n.;]{{0,30}}?(?<![\d/.-])(?P<date>{DATE})(?![\d/-])",
    re.IGNORECASE,
)
BARE_DATE = re.compile(rf"(?<![\d/.-]){DATE}(?![\d/-])", re.IGNORECASE)
BIRTH_ASKED = re.compile(r"\b(?:(?:date of )?birth|birthday|birth ?date|DOB|born)\b", re.IGNORECASE)
COORDINATES = re.compile(
    r"(?<![\w.])[-+]?\d{1,2}\.\d{4,}°?(?:\s*[NS])?\s*,\s*[-+]?\d{1,3}\.\d{4,}°?(?:\s*[EW]\b)?(?![\w.]*\d)"
    r"|\d{1,2}°\s?\d{1,2}['′]\s?(?:\d{1,2}(?:\.\d+)?[\"″]\s?)?[NS][,\s]+"
    r"\d{1,3}°\s?\d{1,2}['′]\s?(?:\d{1,2}(?:\.\d+)?[\"″]\s?)?[EW]"
)


def _emails(text: str, asked: str) -> Iterator[Identifier]:
    if "@" in text:
        yield from (Identifier("e-mail", *match.span()) for match in EMAIL.finditer(text))


def _ibans(text: str, asked: str) -> Iterator[Identifier]:
    for match in IBAN.finditer(text):
        # The pattern may run on into the next word in capitals: the longest part that passes the checksum counts.
        for end in range(match.end(), match.start() + min(IBAN_LENGTHS) - 1, -1):
            bare = text[match.start() : end].replace(" ", "")
            if text[end - 1] != " " and len(bare) in IBAN_LENGTHS and checks.mod97(bare):
                yield Identifier("iban", match.start(), end)
                break


def _cards(text: str, asked: str) -> Iterator[Identifier]:
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match.group())
        if 13 <= len(digits) <= 19 and len(set(digits)) > 1 and checks.luhn(digits):
            yield Identifier("card", *match.span())


def _ssns(text: str, asked: str) -> Iterator[Identifier]:
    """US numbers: where the words say so any, elsewhere only those that can have been issued."""
    said = SSN_CUE.search(f"{asked}\n{text}") is not None
    for match in SSN.finditer(text):
        area, group, serial = match.groups()
        issued = area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
        if said or (issued and "-" in match.group()):
            yield Identifier("ssn", *match.span())


def _checked_ids(text: str, asked: str) -> Iterator[Identifier]:
    """Numbers whose check digits are right, of a form that is rare or with the word for it in question or answer."""
    for form, is_right, cue in CHECKED_IDS:
        if cue is None or re.search(cue, f"{asked}\n{text}", re.IGNORECASE):
            for match in form.finditer(text):
                if is_right(re.sub(r"[ .-]", "", match.group())):
                    yield Identifier("national id", *match.span())


def _national_ids(text: str, asked: str) -> Iterator[Identifier]:
    """A code of six to eighteen letters and digits, four digits among them, soon after the name of such a number."""
    places = [(cue.end(), min(len(text), cue.end() + 60)) for cue in ID_CUE.finditer(text)]
    if ID_CUE.search(asked):
        places.append((0, len(text)))
    for start, end in places:
        for value in ID_VALUE.finditer(text, start, end):
            if sum(character.isdigit() for character in value.group()) >= ID_DIGITS:
                yield Identifier("national id", *value.span())
                break


def _bank_accounts(text: str, asked: str) -> Iterator[Identifier]:
    yield from (Identifier("bank account", *match.span("number")) for match in BANK.finditer(text))


def _ips(text: str, asked: str) -> Iterator[Identifier]:
    """Addresses that the net routes: no private, local or documentation ones, and no version numbers."""
    for match in (*IPV4.finditer(text), *IPV6.finditer(text)):
        try:
            routed = ipaddress.ip_address(match.group().rstrip(":")).is_global
        except ValueError:
            continue
        if routed and not VERSION_CUE.search(text, max(0, match.start() - 12), match.start()):
            yield Identifier("ip", match.start(), match.start() + len(match.group().rstrip(":")))


def _macs(text: str, asked: str) -> Iterator[Identifier]:
    yield from (Identifier("mac", *match.span()) for match in MAC.finditer(text))


def _profiles(text: str, asked: str) -> Iterator[Identifier]:
    yield from (Identifier("handle", *match.span()) for match in PROFILE.finditer(text))
    for match in HANDLE.finditer(text):
        if HANDLE_CUE.search(asked) or HANDLE_CUE.search(text, max(0, match.start() - 60), match.end() + 30):
            yield Identifier("handle", *match.span())


def _urls(text: str, asked: str) -> Iterator[Identifier]:
    for match in URL.finditer(text):
        yield Identifier("url", match.start(), match.start() + len(match.group().rstrip(".,;:!?")))


def _birth_dates(text: str, asked: str) -> Iterator[Identifier]:
    yield from (Identifier("birth date", *match.span("date")) for match in BIRTH.finditer(text))
    if BIRTH_ASKED.search(asked):
        yield from (Identifier("birth date", *match.span()) for match in BARE_DATE.finditer(text))


def _coordinates(text: str, asked: str) -> Iterator[Identifier]:
    yield from (Identifier("coordinates", *match.span()) for match in COORDINATES.finditer(text))


def _phones(text: str, asked: str) -> Iterator[Identifier]:
    for match in PHONE.finditer(text):
        if 7 <= len(re.sub(r"\D", "", match.group())) <= 20:
            yield Identifier("phone", *match.span())
    for match in DIGITS.finditer(text):
        if PHONE_CUE.search(asked) or PHONE_CUE.search(text, max(0, match.start() - 40), match.start()):
            yield Identifier("phone", *match.span())


def _addresses(text: str, asked: str) -> Iterator[Identifier]:
    yield from (Identifier("address", *span) for span in find_addresses(text))


FINDERS: tuple[Callable[[str, str], Iterator[Identifier]], ...] = (
    *(_emails, _profiles, _urls, _ibans, _checked_ids, _cards, _ssns, _national_ids, _bank_accounts, _ips, _macs),
    *(_birth_dates, _coordinates, _addresses, _phones),
)
