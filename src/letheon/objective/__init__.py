"""The losses: pure functions of tensors. Imports torch and nothing else of Letheon."""

from letheon.objective.answers import Answers, log_prob
from letheon.objective.balance import Balance, DualWeight
from letheon.objective.chunked import CHUNK, ChunkedLogits
from letheon.objective.negative import (
    DPO,
    NLUL,
    NPO,
    GradientAscent,
    LogOddsHinge,
    SimNPO,
    log_odds_margin,
    share_preferred,
)
from letheon.objective.normal import CrossEntropy, ReferenceKL, top_k_kl
from letheon.objective.objective import PARTS, Counts, Objective, Part
from letheon.objective.positive import ClusterMean
from letheon.objective.states import RMU, AdaptiveRMU, ReferenceStates
from letheon.objective.term import Needs, Term

__all__ = [
    "CHUNK",
    "DPO",
    "NLUL",
    "NPO",
    "PARTS",
    "RMU",
    "AdaptiveRMU",
    "Answers",
    "Balance",
    "ChunkedLogits",
    "ClusterMean",
    "Counts",
    "CrossEntropy",
    "DualWeight",
    "GradientAscent",
    "LogOddsHinge",
    "Needs",
    "Objective",
    "Part",
    "ReferenceKL",
    "ReferenceStates",
    "SimNPO",
    "Term",
    "log_odds_margin",
    "log_prob",
    "share_preferred",
    "top_k_kl",
]
