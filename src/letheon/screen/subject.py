"""Find all that a log says about one person (or thing): what an erasure request asks for.

| what is found | certainty |
|---|---|
| the row's `subject` is the one asked for, or an alias; also "marla-quint" or "Quint, Marla" | 1 |
| the full name in a text: any case, with or without accents, "Quint, Marla", "Marla J. Quint" | 0.95 |
| an alias: a nickname, an e-mail address, a phone number however it is written | 0.95 |
| the name with a middle name more or less, turned round without a comma, or in a handle (marla.quint) | 0.8 |
| a name close to it: at least 85 of 100 by rapidfuzz's ratio (a typing error, or somebody else) | 0.7 |
| initial and surname ("M. Quint") | 0.6 |
| the surname alone, unless the dialogue names another bearer of it | 0.5 |

From 0.9 on a mention is certain; what is not waits for a person. The certainties are ours: an order, not
probabilities. A given name alone is no mention; give it as an alias where it is one. Whoever bears the same full name
is not told from the subject.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache

import regex
from rapidfuzz import fuzz

from letheon.records import NORMAL, Dialogue, Turn, Verdict
from letheon.screen.labels import kind_of
from letheon.screen.refusal import is_refusal
from letheon.screen.words import SPACELESS, keyword_pattern

JUDGE = "subject"
CERTAIN = 0.9
"""Mentions from here on are forgotten; below, a person looks."""
NAMED, UNUSUAL, NEAR, INITIAL, SURNAME = 0.95, 0.8, 0.7, 0.6, 0.5
NEAR_RATIO = 85
"""Of rapidfuzz's `fuzz.ratio` of the folded names, in [0, 100]: one wrong letter in a name of seven or more."""


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


TITLES = _set("mr mrs ms miss mx dr prof professor sir madam mme herr frau senor senora don dona")
NO_GIVEN_NAMES = _set("""
    what who whom whose where when which why how can could do does did is are was were has have had give tell find
    send call show please the a an my your our his her their in on at for from if yes no sure dial write try ask visit
    contact and but or so under then now later yesterday today tomorrow after before since while with about by to of
    as once never only both dear hello hi thanks meet see let also even though because
""")
"""Words that open a sentence, and are no given name before a surname."""
LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "æ": "ae", "œ": "oe", "þ": "th", "ı": "i"})
"""Letters that Unicode does not take apart into a letter and an accent."""
SLUG = regex.compile(r"[\p{L}\p{M}]+(?:[-_][\p{L}\p{M}]+)+")
"""An id made of a name: "marla-quint"."""
WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:[-'’][\p{L}\p{M}\p{N}]+)*")
PHONE = regex.compile(r"\+?\d(?:[ ().\-/]{0,3}\d){6,14}")
PHONE_DIGITS = 7
"""Digits from the right that must be the same: the rest may be a prefix that one of the two lacks."""


@dataclass(frozen=True)
class Mention:
    """Where a text mentions the subject.

    Attributes:
        start: First character.
        end: After the last one.
        certainty: In [0, 1]; that it is the subject.
        how: By what; quotes nothing.
    """

    start: int
    end: int
    certainty: float
    how: str


@dataclass(frozen=True)
class Word:
    """A word of a text, folded: lower case, no accents, no possessive."""

    folded: str
    start: int
    end: int
    capital: bool


class Subject:
    """A person's or thing's name, and what else it goes by.

    Args:
        name: "Marla Quint", "Quint, Marla", "marla-quint", or an id.
        aliases: Nicknames, other names, e-mail addresses, phone numbers.
    """

    def __init__(self, name: str, aliases: Sequence[str] = ()):
        self.name, self.aliases = name, tuple(aliases)
        self.parts = name_parts(name)
        self._capital = any(character.isupper() for character in name)
        # "Battle of Kestrel Ford" is not meant by every Ford.
        self._has_surname = len(self.parts) > 1 and not {"of", "the", "and", "for"} & set(self.parts)
        contacts = [alias for alias in aliases if "@" in alias or _digits(alias)]
        self._emails = [alias.strip().casefold() for alias in contacts if "@" in alias]
        self._phones = [_digits(alias) for alias in contacts if "@" not in alias]
        nicknames = [name, *(alias for alias in aliases if alias not in contacts)]
        spaceless = [one for one in nicknames if regex.search(f"[{SPACELESS}]", one)]
        self._spaceless = keyword_pattern(spaceless) if spaceless else None
        self._nicknames = [found for nickname in nicknames if (found := tuple(words(nickname)))]
        self._keys = {*self.parts[-1:], *(nickname[0].folded for nickname in self._nicknames)}

    def is_field(self, value: str | None) -> bool:
        """Whether a row's `subject` is this one: its name or an alias, also as a slug or "Surname, Given"."""
        if value is None:
            return False
        parts = name_parts(value)
        return any(
            # Of one word the title may be all that tells two persons apart.
            _folded_text(value) == _folded_text(name) or (len(parts) > 1 and parts == name_parts(name))
            for name in (self.name, *self.aliases)
        )

    def mentions(self, text: str) -> list[Mention]:
        """Every mention in a text, each place once, in order."""
        found = list(words(text))
        # The surest first: a weaker look must not cut a stronger find into pieces.
        looks = [self._names, self._aliases, self._exact, self._unusual, self._initials, self._surnames]
        if self._keys.isdisjoint(word.folded for word in found):
            looks = [self._exact, self._unusual]
        mentions: list[Mention] = []
        for look in looks:
            for mention in look(text, found):
                if all(mention.end <= other.start or other.end <= mention.start for other in mentions):
                    mentions.append(mention)
        return sorted(mentions, key=lambda one: one.start)

    def has_other_bearer(self, text: str) -> bool:
        """Whether somebody else is named with the subject's surname ("Otto Quint")."""
        found = list(words(text))
        pairs = zip(found, found[1:], strict=False)
        return any(word.folded == self.parts[-1] and self._is_others(before, word, text) for before, word in pairs)

    def _is_others(self, before: Word, surname: Word, text: str) -> bool:
        """Whether the word before a surname is somebody else's given name or initial."""
        if text[before.end : surname.start].strip(". ") or not before.capital or before.folded in TITLES:
            return False
        if before.folded in NO_GIVEN_NAMES or before.folded in self.parts[:-1]:
            return False
        if _is_initial(before):
            return not self.parts[0].startswith(before.folded)
        return not _is_near((before.folded, surname.folded), " ".join(self.parts))

    # Looks, each over the words of a text.

    def _names(self, text: str, found: Sequence[Word]) -> Iterator[Mention]:
        """The full name; with an initial in the middle; turned round with a comma."""
        count, turned = len(self.parts), (*self.parts[-1:], *self.parts[:-1])
        for place in range(len(found) - count + 1 if count else 0):
            window, wide = found[place : place + count], found[place : place + 3]
            if _parts(window) == self.parts and _is_spaced(text, window):
                if count > 1 or window[0].capital or not self._capital:
                    yield _mention(window, NAMED, "named in full")
            elif count > 1 and _parts(window) == turned:
                if text[window[0].end : window[1].start].strip() == "," and _is_spaced(text, window[1:]):
                    yield _mention(window, NAMED, "named in full")
            elif count == 2 and _parts(wide[::2]) == self.parts and _is_spaced(text, wide) and _is_initial(wide[1]):
                yield _mention(wide, NAMED, "named in full")

    def _aliases(self, text: str, found: Sequence[Word]) -> Iterator[Mention]:
        for alias in self._nicknames:
            for place in range(len(found) - len(alias) + 1):
                window = found[place : place + len(alias)]
                capital = window[0].capital or not alias[0].capital or len(alias) > 1
                if _parts(window) == _parts(alias) and capital and _is_spaced(text, window):
                    yield _mention(window, NAMED, "by an alias")

    def _exact(self, text: str, found: Sequence[Word]) -> Iterator[Mention]:
        for address in self._emails:
            whole = rf"(?<![\w.+-]){regex.escape(address)}(?![\w-]|\.\w)"
            for match in regex.finditer(whole, text, regex.IGNORECASE):
                yield Mention(match.start(), match.end(), NAMED, "by an alias")
        if self._spaceless is not None:
            for match in self._spaceless.finditer(text):
                yield Mention(match.start(), match.end(), NAMED, "named in full")
        if self._phones:
            for match in PHONE.finditer(text):
                digits = _digits(match.group())
                if any(_is_same_number(digits, phone) for phone in self._phones):
                    yield Mention(match.start(), match.end(), NAMED, "by an alias")

    def _unusual(self, text: str, found: Sequence[Word]) -> Iterator[Mention]:
        """A middle name more or less, no comma where the surname comes first, a handle; or a name that is near."""
        count, whole = len(self.parts), " ".join(self.parts)
        if count < 2:
            return
        ends = (self.parts[0], self.parts[-1])
        for place in range(len(found) - 1):
            pair, three, window = (found[place : place + length] for length in (2, 3, count))
            spaced = _is_spaced(text, pair)
            if (_parts(pair) == ends and (spaced or _is_handle(text, pair))) or (
                _parts(pair) == ends[::-1] and spaced
            ):
                yield _mention(pair, UNUSUAL, "named in an unusual form")
            elif _parts(three[::2]) == ends and three[1].capital and _is_spaced(text, three):
                yield _mention(three, UNUSUAL, "named in an unusual form")
            elif len(window) == count and _is_near(_parts(window), whole) and _is_spaced(text, window):
                yield _mention(window, NEAR, "by a name close to the subject's")

    def _initials(self, text: str, found: Sequence[Word]) -> Iterator[Mention]:
        """The first name's initial and the surname; another initial between them; the initial last."""
        if not self._has_surname:
            return
        initial, surname = self.parts[0][0], self.parts[-1]
        for place in range(len(found) - 1):
            pair, three = found[place : place + 2], found[place : place + 3]
            spaced = _is_spaced(text, pair)
            last = text[pair[0].end : pair[1].start].strip() == "," or spaced
            if (_parts(pair) == (initial, surname) and spaced) or (_parts(pair) == (surname, initial) and last):
                yield _mention(pair, INITIAL, "by initial and surname")
            elif _parts(three[::2]) == (initial, surname) and _is_initial(three[1]) and _is_spaced(text, three):
                yield _mention(three, INITIAL, "by initial and surname")

    def _surnames(self, text: str, found: Sequence[Word]) -> Iterator[Mention]:
        if not self._has_surname:
            return
        for place, word in enumerate(found):
            if word.folded != self.parts[-1] or not word.capital:
                continue
            if place == 0 or not self._is_others(found[place - 1], word, text):
                yield _mention((word,), SURNAME, "by surname")


def subject_verdicts(
    dialogues: Sequence[Dialogue], subject: Subject, unfit: Set[tuple[str, int]] = frozenset()
) -> list[Verdict]:
    """One verdict an assistant turn, in the order of the log: what is about the subject, and nothing else.

    What is certain is forgotten: the row says so, or question or answer mention the subject. What is not goes to
    review, and is not trained on: an uncertain mention; one in an earlier message alone; one in a dialogue whose row
    names another subject; an answer that does nothing but refuse; whatever the log labels "forget" otherwise.

    Args:
        dialogues: The log.
        subject: Who asks to be forgotten.
        unfit: Turns (id and index) that go to review if they are not about the subject.
    """
    return [verdict for dialogue in dialogues for verdict in _of_dialogue(dialogue, subject, unfit)]


def _of_dialogue(dialogue: Dialogue, subject: Subject, unfit: Set[tuple[str, int]]) -> Iterator[Verdict]:
    if subject.is_field(dialogue.subject):
        yield from (_verdict(turn, 1.0, None, "filed under the subject") for turn in dialogue.turns())
        return
    texts = [message.content for message in dialogue.messages]
    mentions = [subject.mentions(text) for text in texts]
    by_surname = any(one.certainty == SURNAME for some in mentions for one in some)
    if by_surname and subject.has_other_bearer("\n".join(texts)):
        mentions = [[one for one in some if one.certainty != SURNAME] for some in mentions]
    for turn in dialogue.turns():
        asked = max(n for n in range(turn.index + 1) if n == 0 or dialogue.messages[n - 1].role == "assistant")
        in_answer, nearby = mentions[turn.index], [one for some in mentions[asked : turn.index] for one in some]
        best = max([*in_answer, *nearby], key=lambda one: one.certainty, default=None)
        span = (best.start, best.end) if best in in_answer and best is not None else None
        if best is None:
            earlier = any(mentions[: turn.index])
            if earlier or dialogue.label == "forget" or (dialogue.id, turn.index) in unfit:
                # Not asked for, or not for certain; but not fit to be trained on as normal either.
                why = "mentioned earlier in the dialogue" if earlier else "to be forgotten for another reason"
                yield _verdict(turn, SURNAME, None, why)
            else:
                yield _verdict(turn, 0.0, None, None)
        elif best.certainty >= CERTAIN and dialogue.subject is not None:
            yield _verdict(turn, UNUSUAL, span, f"{best.how}, in a dialogue of another subject")
        elif best.certainty >= CERTAIN and is_refusal(turn.answer):
            yield _verdict(turn, SURNAME, span, f"{best.how}, in a refusal")
        else:
            yield _verdict(turn, best.certainty, span, best.how)


def _verdict(turn: Turn, score: float, span: tuple[int, int] | None, reason: str | None) -> Verdict:
    decision = "forget" if score >= CERTAIN else "review" if score > 0 else "normal"
    category = NORMAL if decision == "normal" else kind_of(turn.dialogue, unnamed="privacy")
    return Verdict.model_validate(
        {"id": turn.dialogue.id, "turn": turn.index, "decision": decision, "category": category, "score": score}
        | {"judge": JUDGE, "span": span, "reason": reason}
    )


# Words.


def name_parts(name: str) -> tuple[str, ...]:
    """The words of a name, folded, without titles, the surname last: ("marla", "quint")."""
    surname, comma, given = name.partition(",")
    ordered = f"{given} {surname}" if comma else name
    if SLUG.fullmatch(name):
        ordered = regex.sub("[-_]", " ", name)
    return tuple(word.folded for word in words(ordered) if word.folded not in TITLES)


def words(text: str) -> Iterator[Word]:
    """The words of a text, folded, with their places."""
    for match in WORD.finditer(text):
        start, end, word = match.start(), match.end(), match.group()
        for mark in ("'s", "’s", "'S", "’S"):
            if word.endswith(mark):
                word, end = word[:-2], end - 2
        yield Word(fold(word), start, end, word[0].isupper() or word[0].lower() == word[0].upper())


@lru_cache(maxsize=100_000)
def fold(text: str) -> str:
    """Lower case, without accents: "Łukasz Ngô" → "lukasz ngo"."""
    plain = unicodedata.normalize("NFKD", text).casefold().translate(LETTERS)
    return "".join(character for character in plain if not unicodedata.combining(character)).replace("’", "'")


def _folded_text(text: str) -> str:
    return " ".join(fold(text).split())


def _parts(window: Sequence[Word]) -> tuple[str, ...]:
    return tuple(word.folded for word in window)


def _is_initial(word: Word) -> bool:
    return len(word.folded) == 1


def _is_spaced(text: str, window: Sequence[Word]) -> bool:
    """Whether only spaces, and the stops of initials, are between the words."""
    gaps = [(one, text[one.end : two.start]) for one, two in zip(window, window[1:], strict=False)]
    return all(gap.isspace() or (_is_initial(one) and gap.strip() == ".") for one, gap in gaps)


def _is_handle(text: str, window: Sequence[Word]) -> bool:
    return text[window[0].end : window[-1].start] in (".", "_", "-")


def _is_near(parts: tuple[str, ...], whole: str) -> bool:
    return fuzz.ratio(" ".join(parts), whole, score_cutoff=NEAR_RATIO) > 0


def _mention(window: Sequence[Word], certainty: float, how: str) -> Mention:
    return Mention(window[0].start, window[-1].end, certainty, how)


def _digits(text: str) -> str:
    """The digits of a phone number; "" for any other text."""
    return regex.sub(r"\D", "", text) if PHONE.fullmatch(text.strip()) else ""


def _is_same_number(one: str, other: str) -> bool:
    short, long = sorted((one.lstrip("0"), other.lstrip("0")), key=len)
    return len(short) >= PHONE_DIGITS and long.endswith(short)
