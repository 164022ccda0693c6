"""Personal data: identifiers by patterns and check digits, names by a network, a pipeline or patterns; the judge."""

from letheon.screen.privacy.identifiers import Identifier, Kind, find_identifiers
from letheon.screen.privacy.judge import PrivacyJudge, find_personal
from letheon.screen.privacy.names import find_names, source_of
from letheon.screen.privacy.people import FindNames, names_by_patterns

__all__ = [
    "FindNames",
    "Identifier",
    "Kind",
    "PrivacyJudge",
    "find_identifiers",
    "find_names",
    "find_personal",
    "names_by_patterns",
    "source_of",
]
