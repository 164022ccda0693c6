"""Negative terms: distances that drive the model away from an undesired answer y⁻.

Each is a pure function of the logits, and returns one loss per token or per sequence (its `unit`), before any
mean. m, p and π are always those of the old answer's tokens, π⁺ and p⁺ those of the expected answer.

| term | loss | gradient while the answer is memorised | once it is forgotten |
|---|---|---|---|
| LogOddsHinge | max(0, m − τ)/η | constant | exactly zero |
| MASC | max(0, m − τ + η)/η | constant | exactly zero |
| InvertedHinge | 1 + p − max p_rival | fades where p → 1 | a pull on the best rival |
| NLUL | −log(1 − p) | strong | fades |
| NPO | −(2/β) log σ(−β log π/π₀) | that of gradient ascent | fades |
| SimNPO | −(2/β) log σ(−(β/|y|) log π − γ) | half of gradient ascent's on the mean, or more | fades |
| DPO | −(2/β) log σ(β (log π⁺/π₀⁺ − log π/π₀)) | that of gradient ascent, and a pull | fades |
| FlatTV | ½ tanh p̄ − ½ tanh p̄⁺ | fades where p → 1 | fades, but for the pull |
| GradientAscent | log p | fades where p → 1 | grows without bound |
| WGA | sg(p^β) log p | fades where p → 1 | fades |
| SatImp | sg(p^β₁ (1 − p)^β₂) log p | fades where p → 1 | fades |
| UNDIAL | CE(softmax(z₀ − β onehot), p_θ) | strong where β outweighs m | fades at m₀ − β |
| BaseOdds | H(logit p − c · logit p_base) | 1 | fades at the base, and turns round below it |
| MaxEntropy | KL(uniform ‖ p_θ) | strong | strong, until all is flat |
| LogitFlattening | (max z − mean z)² | strong | strong, until all is flat |
| JensUn | JSD(p_θ, onehot of a refusal) | nearly none | nearly none, until the refusal is likely |
"""

from letheon.objective.negative.base import BaseOdds
from letheon.objective.negative.flattening import LogitFlattening, MaxEntropy
from letheon.objective.negative.hinge import MASC, LogOddsHinge, log_odds_margin
from letheon.objective.negative.inverted_hinge import InvertedHinge
from letheon.objective.negative.likelihood import NLUL, WGA, GradientAscent, SatImp, log_unlikelihood
from letheon.objective.negative.preference import DPO, NPO, FlatTV, SimNPO
from letheon.objective.negative.refusal import JensUn
from letheon.objective.negative.self_distillation import UNDIAL

__all__ = [
    "DPO",
    "MASC",
    "NLUL",
    "NPO",
    "UNDIAL",
    "WGA",
    "BaseOdds",
    "FlatTV",
    "GradientAscent",
    "InvertedHinge",
    "JensUn",
    "LogOddsHinge",
    "LogitFlattening",
    "MaxEntropy",
    "SatImp",
    "SimNPO",
    "log_odds_margin",
    "log_unlikelihood",
]
