"""Which of the finders of names a recipe means."""

from __future__ import annotations

from letheon.errors import missing_modules, require_extra
from letheon.screen.privacy import presidio, rampart
from letheon.screen.privacy.people import FindNames, names_by_patterns

AUTO, PATTERNS, RAMPART = "auto", "patterns", "rampart"


def source_of(ner: str) -> str:
    """What `screen.ner` comes to here: "rampart", "patterns", or a spaCy pipeline's name or folder.

    Raises:
        InputError: There is no such pipeline.
        MissingExtraError: What is named is not installed.
    """
    if ner == AUTO:
        return RAMPART if not missing_modules("privacy") else presidio.installed_pipeline() or PATTERNS
    if ner == RAMPART:
        require_extra("screen.ner 'rampart'", "privacy")
    elif ner != PATTERNS:
        presidio.check_pipeline(ner)
    return ner


def find_names(ner: str = AUTO) -> FindNames:
    """The finder that `screen.ner` names.

    Raises:
        InputError: There is no such pipeline.
        MissingExtraError: What is named is not installed.
    """
    source = source_of(ner)
    if source == PATTERNS:
        return names_by_patterns
    return rampart.NamesByRampart() if source == RAMPART else presidio.NamesByPipeline(source)
