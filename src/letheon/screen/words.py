"""Find words and sentences in a text: the matching that judges of plain words share."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator

import regex

SPACELESS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Scripts that put no spaces between words: there a word has no boundary to look for."""
_SENTENCE = regex.compile(r"(?:[^.!?。！？\n]|[.!?](?=[\w)\]]))+[.!?。！？]*[\"”’'）)]*")
_ABBREVIATION = regex.compile(r"(?:^|[\s(])(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e|\p{Lu})\.$")


_PLAIN = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*")
_SIGN = regex.compile(r"[\p{S}--`]|(?<!\w)-(?=\p{N})|(?<=\w)[#%]", regex.V1)


def plain_words(text: str) -> list[str]:
    """The words of a text, whatever their case and the marks between them.

    Vowel signs and tone marks are parts of their words: "लड़की" is not "लड़का".
    """
    return list(_PLAIN.findall(_folded(text)))


def signs(text: str) -> list[str]:
    """What says something and is no word: symbols, emoji, a minus before a number, "C#", "5%"."""
    return list(_SIGN.findall(_folded(text)))


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


def keyword_pattern(words: Iterable[str]) -> regex.Pattern[str]:
    """A pattern that finds any of the words or phrases, whole, in any case, whatever the spaces between their words.

    "cafe" is not found in "cafés", nor "art" in "cart"; "straße" is found in "STRASSE", and an accent written as a
    character of its own counts as the accented letter.
    """
    return regex.compile("|".join(_keyword(word) for word in sorted(words, key=len, reverse=True)), _FLAGS)


_FLAGS = regex.IGNORECASE | regex.FULLCASE | regex.UNICODE


def _keyword(word: str) -> str:
    forms = dict.fromkeys(unicodedata.normalize(form, word.strip()) for form in ("NFC", "NFD"))
    return "|".join(_bounded(form) for form in forms)


def _bounded(form: str) -> str:
    inner = r"\s+".join(regex.escape(part) for part in form.split())
    before = r"(?<![\w\p{M}])" if _has_boundary(form[0]) else ""
    after = r"(?![\w\p{M}])" if _has_boundary(form[-1]) else r"(?!\p{M})"
    return f"{before}{inner}{after}"


def _has_boundary(character: str) -> bool:
    return regex.match(rf"[\w\p{{M}}--[{SPACELESS}]]", character, regex.V1) is not None


def sentences(text: str) -> Iterator[tuple[int, int]]:
    """Character ranges [start, end) of the sentences and lines of a text, without the spaces around them.

    A full stop within a number or a name ("3.5", "M. Quint", "Dr. Lee") ends none.
    """
    start = None
    for match in _SENTENCE.finditer(text):
        found = match.group().strip()
        if not found:
            continue
        first = match.start() + len(match.group()) - len(match.group().lstrip())
        start = first if start is None else start
        end = first + len(found)
        if _ABBREVIATION.search(text, start, end) and text[end : end + 1] in (" ", "\u00a0"):
            continue
        yield start, end
        start = None
    if start is not None:
        yield start, len(text.rstrip())
