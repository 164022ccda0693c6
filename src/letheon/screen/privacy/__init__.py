"""Personal data: identifiers by patterns and check digits, names by patterns or a spaCy pipeline, and the judge."""

from letheon.screen.privacy.identifiers import Identifier, Kind, find_identifiers
from letheon.screen.privacy.judge import PrivacyJudge, find_personal
from letheon.screen.privacy.people import FindNames, find_names, names_by_patterns

__all__ = [
    "FindNames",
    "Identifier",
    "Kind",
    "PrivacyJudge",
    "find_identifiers",
    "find_names",
    "find_personal",
    "names_by_patterns",
]
