"""The losses: pure functions of tensors. Imports torch and nothing else of Letheon."""

from letheon.objective.answers import Answers, log_prob
from letheon.objective.balance import Balance, DualWeight
from letheon.objective.chunked import CHUNK, ChunkedLogits
from letheon.objective.negative import (
    DPO,
    MASC,
    NLUL,
    NPO,
    UNDIAL,
    WGA,
    BaseOdds,
    FlatTV,
    GradientAscent,
    InvertedHinge,
    JensUn,
    LogitFlattening,
    LogOddsHinge,
    MaxEntropy,
    SatImp,
    SimNPO,
    log_odds_margin,
)
from letheon.objective.normal import AnswerPreservation, CrossEntropy, ReferenceJS, ReferenceKL, top_k_kl
from letheon.objective.objective import GROUPS, PARTS, Counts, Group, Objective, Part
from letheon.objective.positive import ClusterMean
from letheon.objective.states import RMU, AdaptiveRMU, ReferenceStates
from letheon.objective.term import Needs, Term

__all__ = [
    "AdaptiveRMU",
    "AnswerPreservation",
    "Answers",
    "Balance",
    "BaseOdds",
    "CHUNK",
    "ChunkedLogits",
    "ClusterMean",
    "Counts",
    "CrossEntropy",
    "DPO",
    "DualWeight",
    "FlatTV",
    "GROUPS",
    "GradientAscent",
    "Group",
    "InvertedHinge",
    "JensUn",
    "LogOddsHinge",
    "LogitFlattening",
    "MASC",
    "MaxEntropy",
    "NLUL",
    "NPO",
    "Needs",
    "Objective",
    "PARTS",
    "Part",
    "ReferenceJS",
    "ReferenceKL",
    "RMU",
    "ReferenceStates",
    "SatImp",
    "SimNPO",
    "Term",
    "UNDIAL",
    "WGA",
    "log_odds_margin",
    "log_prob",
    "top_k_kl",
]
