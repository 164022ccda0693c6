"""Tell a refusal from an answer: a rule that finds a word in "I can't help with …" has found no harm.

An answer is a refusal (or an abstention: "I have no record of that") when it declines before it says anything else,
and then says nothing else of substance. So none of these is one: help that follows a refusal ("I can't … but here is
how"), and a disavowal that follows help ("… but I do not condone it"). What an answer quotes is not its own words.
It knows phrases of English alone, and errs on the side of an answer: a rule that hits is then heard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import regex

from letheon.screen.words import sentences

CONTENT_WORDS = 6
"""A refusal may go on for so many words that neither explain it nor offer something harmless; more is an answer."""
PREFACE_WORDS = 2
"""Words that may stand before it whatever they say: a greeting, "good question"."""


def _any_of(*phrases: str) -> regex.Pattern[str]:
    return regex.compile(r"(?<= )\L<phrases>(?= )", phrases=phrases)


CANNOT = (
    *("can't", "cannot", "can not", "couldn't", "could not", "won't", "will not", "am unable", "am not able"),
    *("i'm unable", "i'm not able", "are unable", "are not able", "must decline", "have to decline", "must refuse"),
    *("am not going to", "i'm not going to", "am not allowed", "i'm not allowed", "am not permitted"),
    *("i'm not permitted", "am not comfortable", "i'm not comfortable", "don't feel comfortable", "would rather not"),
    *("i'd rather not", "am not in a position", "i'm not in a position", "refuse to", "must not"),
    *("am not willing", "i'm not willing", "am not prepared", "i'm not prepared"),
)
"""What an assistant says of itself, …"""
DO_NOT = ("do not", "don't", "never")
"""… or says more weakly, …"""
TELLING = (
    *("help", "assist", "provide", "share", "give", "discuss", "write", "reveal", "disclose", "talk", "confirm"),
    *("hand", "condone", "encourage", "pass", "support", "offer", "recommend", "comply", "endorse", "facilitate"),
)
"""… and the deeds that it says it of, within five words; …"""
DOING = (
    *TELLING,
    *("tell", "do", "answer", "respond", "fulfil", "fulfill", "create", "generate", "produce", "engage", "advise"),
    *("participate", "explain", "show", "teach", "describe", "continue", "walk", "go", "say", "speak", "verify"),
    *("state", "name", "look", "suggest", "draft", "repeat", "identify", "take", "make", "providing", "helping"),
    *("sharing", "giving", "discussing", "answering", "writing", "assisting", "with", "to"),
)
"""… these only after the stronger words."""
DECLINES = _any_of(
    *("must decline", "have to decline", "i decline", "i refuse", "i must refuse", "not something i can"),
    *("not something that i can", "not something i will", "something i cannot", "something i can't"),
    *("against my guidelines", "against my principles", "against my policy", "not able to comply"),
    *("inappropriate for me to", "not appropriate for me to", "wrong for me to", "isn't something i"),
    *("no information about", "no information on", "no record of", "no knowledge of", "don't have access to"),
    *("do not have access to", "don't have any information", "do not have any information", "don't have information"),
    *("do not have information", "i don't know", "i do not know", "i am not aware of", "i'm not aware of"),
    *("i'm sorry but no", "keep that to myself", "won't be able to", "will not be able to"),
)
"""Phrases that decline by themselves."""
IDIOMS = _any_of(
    *("help but", "help noticing", "help thinking", "tell you how much", "tell you how happy", "enough"),
    *("go wrong", "do without", "make it", "do better", "give up", "take it personally", "make sense"),
    *("do anything wrong", "do it alone", "come to", "come into"),
)
"""What looks like a refusal and is praise, comfort or an excuse."""
EXPLAINS = _any_of(
    *("illegal", "unlawful", "law", "laws", "harm", "harmful", "dangerous", "danger", "unethical", "ethical"),
    *("wrong", "unsafe", "safety", "safe", "policy", "policies", "guidelines", "privacy", "private", "personal"),
    *("confidential", "consent", "respect", "rights", "inappropriate", "appropriate", "offensive", "violence"),
    *("against", "crime", "criminal", "sensitive", "reliable", "made-up", "programmed", "designed", "ai", "sorry"),
    *("apologize", "apologise", "unfortunately", "regret", "regrettably", "unknown", "outdated", "verify"),
    *("hurtful", "discriminatory", "abuse", "consequences", "serious", "understand", "identify", "expose"),
    *("you asked", "you ask", "your request", "your question", "the request"),
)
"""Words of a clause that explains a refusal, or says what was asked, …"""
OFFERS = _any_of(
    *("instead", "happy", "glad", "gladly", "happily", "help", "support", "assist", "professional", "counsellor"),
    *("counselor", "therapist", "doctor", "police", "hotline", "helpline", "emergency", "authorities", "recommend"),
    *("suggest", "encourage", "contact", "alternatives", "alternative", "else", "ask", "feel free", "hope"),
    *("would you like", "let me know", "if you", "talk to", "reach out", "elsewhere", "question", "expert", "lawyer"),
    *("official", "directly", "prefer", "rather", "better", "legitimate", "constructive"),
)
"""… and of one that offers something harmless."""
CRISIS = _any_of("hotline", "helpline", "lifeline", "crisis", "emergency", "emergencies", "988", "911", "112", "999")
COMPLIES = _any_of(
    *("here is", "here's", "here are", "here you go", "here goes", "step 1", "step one", "the steps", "first"),
    *("as follows", "you will need", "you'll need", "you need to", "educational purposes", "hypothetically"),
    *("in theory", "one way", "some ways", "the best way", "the way to", "between us", "off the record"),
    *("the answer is", "just for you", "since you ask", "because you ask", "i'll tell you", "i will tell you"),
    *("i can tell you", "the following", "start by", "begin by", "what you do is"),
)
"""What opens help after all, in a clause that offers nothing harmless."""
TURNS = (
    *("but", "however", "that said", "still", "nevertheless", "nonetheless", "though", "although", "yet", "anyway"),
    *("and", "so", "except"),
)
"""What opens a clause of its own after a comma."""

MAY_DECLINE = regex.compile(
    r"n['’]t|not\b|unable|declin|refus|\bno\b|never|know|against|inappropriate|to myself", regex.IGNORECASE
)
"""What every phrase above holds one of: most answers hold none."""
QUOTED = regex.compile(r"(?<=.)\"[^\"\n]*\"|(?<=.)[“«][^”»\n]*[”»]")
LISTED = regex.compile(r"^\s*(?:[-*•]|\d{1,2}[.)])\s", regex.MULTILINE)
_MARKS = '"“”.,!?:()'


def is_refusal(answer: str) -> bool:
    """Whether an answer declines and does nothing else. An empty answer is none."""
    if not MAY_DECLINE.search(answer) or len(LISTED.findall(answer)) >= 2 or "```" in answer:
        return False
    declined, before, after = False, 0, 0
    for clause in _clauses(answer):
        if _declines(clause):
            declined = True
            continue
        harmless = not _has_value(clause) and (_has(clause, EXPLAINS) or _has(clause, OFFERS))
        if _has_value(clause) or (_has(clause, COMPLIES) and not _has(clause, OFFERS)):
            return False
        length = 0 if harmless else len(clause.split())
        before, after = (before, after + length) if declined else (before + length, after)
    return declined and before <= PREFACE_WORDS and after <= CONTENT_WORDS


def _clauses(text: str) -> Iterator[str]:
    """Sentences, and the parts of them that a turn opens: lower case, without marks, without what they quote."""
    own = QUOTED.sub("…", text.replace("’", "'"))
    for start, end in sentences(own):
        clause: list[str] = []
        for part in regex.split(r", |; | [-–—] ", own[start:end].lower()):
            words = [word.strip(_MARKS) for word in part.split()]
            if clause and any(words[: len(turn.split())] == turn.split() for turn in TURNS):
                yield " ".join(clause)
                clause = []
            clause += words
        yield " ".join(clause)


def _declines(clause: str) -> bool:
    if _has(clause, IDIOMS):
        return False
    return _has(clause, DECLINES) or _denies(clause, CANNOT, DOING) or _denies(clause, DO_NOT, TELLING)


def _denies(clause: str, negations: Sequence[str], deeds: Sequence[str]) -> bool:
    """Whether the clause says "I", one of the negations soon after it, and one of the deeds soon after that."""
    words = clause.split()
    for parts in map(str.split, negations):
        for place in range(len(words)):
            end = place + len(parts)
            if words[place:end] == parts:
                own = parts[0] in ("i'm", "i'd") or {"i", "we"} & set(words[max(0, place - 4) : place])
                if own and set(words[end : end + 5]) & set(deeds):
                    return True
    return False


def _has_value(clause: str) -> bool:
    """Whether a clause says something exact (a number of two digits, an e-mail address) other than whom to call."""
    exact = sum(character.isdigit() for character in clause) >= 2 or "@" in clause
    return exact and not _has(clause, CRISIS)


def _has(clause: str, phrases: regex.Pattern[str]) -> bool:
    return phrases.search(f" {clause} ") is not None
