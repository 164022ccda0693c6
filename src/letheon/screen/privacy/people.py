"""Names of persons by patterns: capitals, and the words that announce a name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from letheon.screen.privacy.address import STREET
from letheon.screen.privacy.identifiers import Identifier

FindNames = Callable[[Sequence[str]], list[list[Identifier]]]
"""Texts → the names in each, in order of place."""

CAPITAL = r"[^\W\d_a-zß-öø-ÿ][^\W\d_]+(?:['’-][^\W\d_]+)*"
"""A word that opens with a capital letter."""
OPENERS = (
    "What|Who|Whom|Whose|Where|When|Which|Why|How|Can|Could|Do|Does|Did|Is|Are|Was|Has|Have|Give|Tell|Find|Send|Call"
    "|Show|Please|The|A|An|My|Your|Our|In|On|At|For|If|Yes|No|Sure|Dial|Write|Try|Ask|Visit|Contact|And|But|Under"
)
"""Words that open a sentence: "Is Ann Lee …" must not read as the name "Is Ann"."""
_TITLE_CASE = r"[^\W\d_a-zß-öø-ÿ][^\W\d_A-ZÀ-ÖØ-Þ]+(?:[-'’][^\W\d_]+)?"
NAME = re.compile(rf"\b(?!(?:{OPENERS})\b){_TITLE_CASE}(?: (?:[A-Z]\.|van|von|de|der|la))* {_TITLE_CASE}\b")
NOT_A_PERSON = re.compile(
    rf"\b(?:{STREET}|Apartment|Museum|Library|Hospital|Clinic|University|School|College|Cent(?:er|re)|City|Town|Police"
    r"|Office|Department|Hotline|Helpline|Service|Services|Bank|Company|Station|Airport|Hotel|Restaurant|Society"
    r"|Association|Foundation|Institute|Agency|Council|Lifeline|Control|Customer|Support|Poison|United|New|North"
    r"|South|East|West|Great|Saint|Mount|Lake|River|January|February|March|April|May|June|July|August|September"
    r"|October|November|December|Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)\b"
)
NO_NAME = (
    f"{OPENERS}|He|She|It|They|We|You|I|However|Therefore|Also|Well|Hello|Hi|Hey|Dear|Sorry|Thanks|Okay|OK|Ok|So|Then"
    r"|First|Second|Now|Today|Overall|There|That|This|Not|Of|Alas|Indeed|\w+ly"
)
"""Capitalised words that open a sentence and name nobody."""
CUED = (
    re.compile(
        rf"\b(?i:Mrs?|Ms|Miss|Mx|Dr|Prof|Professor|Madam|Herr|Frau|Mme|Señora?)\b\.? {CAPITAL}(?: {CAPITAL})?"
    ),
    re.compile(
        r"\b(?i:(?:my|his|her|their|your) (?:full |first |last |maiden |middle |real )?name(?: is|'s|’s|:)?|name:"
        rf"|calls? me) (?P<name>{CAPITAL}(?: {CAPITAL}){{0,2}})"
    ),
    re.compile(
        r"\b(?:said|says|asked|replied|answered|whispered|shouted)"
        rf" (?P<name>(?!(?:{NO_NAME})\b){CAPITAL}(?: {CAPITAL})?)"
    ),
    re.compile(
        r"\b(?i:sister|brother|mother|father|wife|husband|partner|daughter|son|aunt|uncle|cousin|friend|neighbou?r"
        r"|colleague|boss|manager|patient|customer|client|tell|told|ask|asked|remind|reminded|thank|invite|invited"
        r"|hi|hello|hey|dear|thanks|regards|cheers|sincerely),?"
        rf" (?P<name>(?!(?:{NO_NAME})\b){CAPITAL}(?: {CAPITAL})?)"
    ),
    re.compile(
        r"\b(?:written|painted|directed|signed|sent|composed|built|designed|sung|played) by"
        rf" (?P<name>(?!(?:{NO_NAME})\b){CAPITAL} {CAPITAL})"
    ),
    re.compile(
        rf"^(?P<name>(?!(?:{NO_NAME})\b){CAPITAL}), (?:can|could|would|will|please|do|did|are|have|what|how|may) ",
        re.MULTILINE,
    ),
)
"""A title, "my name is", "said", "my sister", a person spoken to: what comes with them is a name, whatever a pipeline
thinks."""


def names_by_patterns(texts: Sequence[str]) -> list[list[Identifier]]:
    """Persons alone: two capitalised words in a row that are no place or office, and what a title or "said" tells."""
    return [in_order([*cued(text), *_pairs(text)]) for text in texts]


def _pairs(text: str) -> Iterator[Identifier]:
    for match in NAME.finditer(text):
        if not NOT_A_PERSON.search(match.group()):
            yield Identifier("person", *match.span())


def cued(text: str) -> Iterator[Identifier]:
    """Persons whom a title, "my name is", "said" and their like announce."""
    for cue in CUED:
        for match in cue.finditer(text):
            yield Identifier("person", *match.span("name" if "name" in cue.groupindex else 0))


def in_order(names: Sequence[Identifier]) -> list[Identifier]:
    """Names in order of place; of those that overlap, the earlier in the list."""
    kept: list[Identifier] = []
    for one in names:
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)
