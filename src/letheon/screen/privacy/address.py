"""Postal addresses: a street with a number, and what stands around it: building, flat, town, postal code, country."""

from __future__ import annotations

import re
from collections.abc import Iterator

STREET = (
    "Street|St|Road|Rd|Avenue|Ave|Lane|Ln|Drive|Dr|Close|Court|Ct|Crescent|Place|Square|Terrace|Way|Walk|Row|Hill"
    "|Boulevard|Blvd|Gardens|Grove|Mews|Rise|Hollow|Parade|Quay|Gate|Park|Alley|View|Green|Yard|Path|Highway|Parkway"
)
ROMANCE = (
    "gran v[ií]a|rue|avenue|boulevard|chemin|impasse|allée|quai|place|via|viale|piazza|corso|vicolo|calle|avenida"
    "|plaza|paseo|camino|carrer|rua|travessa|praça|strada|ulica|ul\\.|ulitsa"
)
"""Words for a street that stand before its name."""
JOINED = "straße|strasse|str\\.|weg|gasse|platz|allee|ring|straat|laan|plein|gata|gatan|vägen|vej|gade|veien|katu|tie"
"""Words for a street that its name ends in."""
APART = f"{JOINED}|gate|vei|Gürtel|utca|útja|út|tér|ulice|náměstí|tee|puiestee|iela|gatvė"
"""Words for a street that stand after its name, and before the number."""

NUMBER = r"\d{1,5}[A-Za-z]?"
AT = r"\d{1,4}(?:[a-z]|/\d{1,4}| bis| ter)?"
"""A number after the street."""
NAME = r"[^\W\d_a-zà-ÿ][\w'’.-]{0,30}"
"""A word that opens with a capital letter (or one of a script without case)."""
WORD = r"[^\W\d_][\w'’.-]{0,30}"
UNIT = r"(?:Apt|Apartment|Suite|Ste|Flat|P\.? ?O\.? Box)\.?,? (?:No\.? ?|#)?\d{1,5}[A-Za-z]?\b"
STATE = (
    "A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]|T[NX]|UT|V[AT]|W[AIVY]"
)
POSTAL = (
    rf"\b(?:{STATE}),? \d{{5}}(?:-\d{{4}})?\b"  # OR 97205
    r"|\b[A-Z]{1,2}\d[A-Z\d]? \d[A-Z]{2}\b"  # SW1A 2AA
    r"|\b[A-Z]\d[A-Z] \d[A-Z]\d\b"  # K1A 0B1
)
CUED_POSTAL = re.compile(
    r"\b(?:ZIP|post ?code|postal code)(?: code)?(?: is|:)?\s*(?P<code>[A-Z\d]{3,5}(?:[ -][A-Z\d]{3,4})?)(?!\w)",
    re.IGNORECASE,
)

EUROPEAN = r"(?:[A-Z]{1,2}-)?(?!(?:19|20)\d\d\b)(?:\d{4,5}(?:-\d{3})?|\d{2}-\d{3})(?: ?[A-Z]{2}\b)?"
"""A postal code as it stands before a town's name."""

SEEDS = (
    rf"\b{NUMBER},? (?:{NAME} ){{1,4}}(?:{STREET})\b",  # 15 Fern Hollow
    rf"\b{NAME}(?:{JOINED}) {AT}\b",  # Lindenweg 4
    rf"(?:\b{NAME} ){{1,3}}(?:{APART}) {AT}\b",  # Weblinger Gürtel 92
    rf"\b\d{{1,4}},? (?i:{ROMANCE}) (?:d[aeou]s? |de la |della )?{NAME}(?: {NAME}){{0,2}}",  # 12 rue de Rivoli
    rf"\b(?i:{ROMANCE}) (?:d[aeou]s? |de la |della )?{NAME}(?: {NAME}){{0,2}},? {AT}\b",  # Calle Mayor 5
    rf"\b{NAME}(?: {NAME}){{0,2}} {AT}(?=(?:, |\n){EUROPEAN} {NAME})",  # Prinsengracht 263, 1016 GV Amsterdam
    UNIT,
    POSTAL,
)
SEED = re.compile("|".join(f"(?:{seed})" for seed in SEEDS))
LOWER_SEED = re.compile(
    "|".join(
        f"(?:{seed})"
        for seed in (
            rf"\b{NUMBER},? (?:{WORD} ){{1,3}}(?:{STREET})\b",
            *(seed.replace(NAME, WORD) for seed in SEEDS[1:]),
        )
    ),
    re.IGNORECASE,
)
"""The same for a text without any capital letter, where none can be asked for."""

# What may follow on the next lines, or after commas: up to four short parts, the last with a postal code.
_BREAK = r"(?:[ \t]*(?:,|\n)[^\w\n]{0,6}){1,4}"
_PART = rf"{WORD}(?:[ \t]{WORD}){{0,3}}(?:[ \t]\d{{1,4}})?"
_CODED = (
    rf"(?:{EUROPEAN} {WORD}(?: {WORD})?|(?:{_PART}[ \t]+)?(?:(?:[A-Z]{{1,3}}-)?\d{{4,6}}(?:-\d{{4}})?\b|{POSTAL}))"
)
TAIL = re.compile(rf"(?:[ \t]{UNIT})?(?:{_BREAK}(?:{UNIT}|{_PART})){{0,4}}?{_BREAK}{_CODED}", re.IGNORECASE)
LINES = re.compile(rf"(?:[ \t]*,?\n[^\w\n]{{0,4}}{NAME}(?: {NAME}){{0,2}}[ \t,]*(?=\n|$)){{1,4}}")
"""Lines below a street that are nothing but a name: town, county, country."""
FORM = re.compile(
    r"^[ \t]*(?:City|Town|State|Province|County|Country|Region|Street|Address)(?: of (?:residence|birth))?:[ \t]*"
    r"(?P<value>[^\n]*\w)",
    re.MULTILINE | re.IGNORECASE,
)
COUNTRY = re.compile(rf"(?:,[ \t]|\n[ \t]*){NAME}(?:[ \t]{NAME}){{0,2}}(?=[.;\n]|$)")
TOWN = re.compile(rf",[ \t]{NAME}(?:[ \t]{NAME}){{0,2}}(?=[,.;\n]|$)")
AFTER_UNIT = re.compile(rf"(?:[ \t]{NAME}){{1,3}}")
# A line that opens with a number counts if such a tail follows, whatever the street is called.
LINE = re.compile(rf"(?<![\w.,/:-])\d{{1,5}}[A-Za-z]?(?: \d{{1,5}})? {WORD}(?: {WORD}){{0,3}}(?: \d{{1,5}})?\.?")
BUILDING = re.compile(r"(?<![\w.,-])\d{1,5}[A-Za-z]?,?[ \t]$")


def find_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Character ranges [start, end) of postal addresses and of parts of them, in order, none within another."""
    seed = LOWER_SEED if text == text.lower() else SEED
    spans = [_whole(text, *match.span()) for match in seed.finditer(text)]
    spans += [(match.start(), end) for match in LINE.finditer(text) if (end := _tail(text, match.end()))]
    spans += [match.span("code") for match in CUED_POSTAL.finditer(text)]
    spans += [match.span("value") for match in FORM.finditer(text)]
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1] + 3 and not text[merged[-1][1] : start].strip(" ,\n\t"):
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    yield from merged


def _whole(text: str, start: int, end: int) -> tuple[int, int]:
    """A seed with the number of the building before it, and the town after it."""
    while before := BUILDING.search(text, max(0, start - 8), start):
        start = before.start()
    if tail := _tail(text, end):
        return start, tail
    unit = re.compile(rf",?[ \t]{UNIT}", re.IGNORECASE).match(text, end)
    end = unit.end() if unit else end
    if unit and (town := AFTER_UNIT.match(text, end)):
        return start, town.end()
    town = TOWN.match(text, end) or LINES.match(text, end)
    return start, town.end() if town else end


def _tail(text: str, end: int) -> int | None:
    """Where the parts with a postal code end that follow a street, and the country after them."""
    tail = TAIL.match(text, end)
    if tail is None:
        return None
    country = COUNTRY.match(text, tail.end())
    return country.end() if country else tail.end()
