"""How much of an answer a model still has by heart, from the probabilities it gives to the answer's tokens.

All are functions of one answer's L tokens under teacher forcing; all lie in [0, 1], and lower is more forgotten.
Exact memorisation and extraction strength leave out the token that ends the turn, which is no content: the caller
passes the L tokens before it. The sources' code does the same (open-unlearning, `tokenwise_vocab_logprobs`).
"""

from __future__ import annotations

from torch import Tensor


def probability(log_probs: Tensor) -> float:
    """exp(mean_t log p(y_t | x, y_<t)): the geometric mean of the token probabilities.

    Maini et al., TOFU (arXiv 2401.06121), §2.2.2: P(a | q)^(1/|a|); open-unlearning, `evaluate_probability`.

    Args:
        log_probs: (L,) of the answer's tokens, the end of the turn included.
    """
    return float(log_probs.double().mean().exp())


def exact_memorization(matches: Tensor) -> float:
    """Σ_t 1[argmax_v p(v | x, y_<t) = y_t] / L: the share of tokens that the model would have chosen itself.

    Tirumala et al. (arXiv 2205.10770), eq. 1; open-unlearning, `exact_memorization`.

    Args:
        matches: (L,) bool, whether the likeliest token is the answer's.
    """
    return float(matches.double().mean())


def content_of(matches: Tensor) -> Tensor:
    """(L − 1,) matches without the last: that token ends the turn, which is no content to have by heart.

    A single token is kept: where a template has none that ends turns, it is the answer.
    """
    return matches[:-1] if len(matches) > 1 else matches


def extraction_strength(matches: Tensor) -> float:
    """1 − k/L, k = min{k : all tokens from k on match}: the share of the answer that its beginning brings back.

    Carlini et al. (arXiv 2012.07805) as used by Wang et al. (arXiv 2406.09179). Corrected: where not even the last
    token matches, k = L and the strength is 0.

    Args:
        matches: (L,) bool, whether the likeliest token is the answer's.
    """
    return _matched_suffix(matches) / matches.numel()


def extraction_strength_published(matches: Tensor) -> float:
    """Extraction strength as open-unlearning computes it, to compare with published numbers.

    Its loop over k ends at L − 1 whether or not the last token matches, so the strength is never under 1/L.

    Args:
        matches: (L,) bool, whether the likeliest token is the answer's.
    """
    return max(1, _matched_suffix(matches)) / matches.numel()


def _matched_suffix(matches: Tensor) -> int:
    """Length of the longest run of matches that reaches the end."""
    return int(matches.flip(0).int().cumprod(0).sum())
