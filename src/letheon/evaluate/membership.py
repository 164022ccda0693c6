"""Scores by which a text is taken for a member of what a model was trained on; higher always speaks for membership.

Each is of one answer or text, from its L tokens' log-probabilities. `letheon.evaluate.auc` says how well they tell
what had to be forgotten from what was never seen, `letheon.evaluate.gradient_norm` has the one that needs a gradient.
"""

from __future__ import annotations

import zlib

from torch import Tensor

SHARE = 0.4
"""Of the tokens, for Min-K% and Min-K%++: what open-unlearning and MUSE take."""


def loss_score(log_probs: Tensor) -> float:
    """LOSS: mean_t log p(y_t), in (−∞, 0]. Yeom et al. (arXiv 1709.01604)."""
    return float(log_probs.double().mean())


def zlib_score(log_probs: Tensor, text: str) -> float:
    """zlib: mean_t log p(y_t) / bytes of the compressed text, in (−∞, 0]: a text may be likely for being simple.

    Carlini et al. (arXiv 2012.07805), §5.2; open-unlearning, `zlib`, with its sign turned.

    Args:
        log_probs: (L,) of its tokens.
        text: The text they spell.
    """
    return loss_score(log_probs) / len(zlib.compress(text.encode("utf-8")))


def reference_score(log_probs: Tensor, reference: Tensor) -> float:
    """Reference: mean_t log p(y_t) − mean_t log p_ref(y_t): what another model finds likely as well tells nothing.

    Carlini et al. (arXiv 2012.07805), §5.2; open-unlearning, `reference`, with its sign turned.

    Args:
        log_probs: (L,) of its tokens.
        reference: The same of a model that never saw the text: the control.
    """
    return loss_score(log_probs) - loss_score(reference)


def min_k(log_probs: Tensor, share: float = SHARE) -> float:
    """Min-K%: mean log-probability of the least likely tokens of a text, in (−∞, 0].

    Shi et al. (arXiv 2310.16789), there with 20%; open-unlearning takes 40%.

    Args:
        log_probs: (L,) of its tokens.
        share: K, in (0, 1]; at least one token is taken.
    """
    taken = max(1, int(share * len(log_probs)))
    return float(log_probs.double().topk(taken, largest=False).values.mean())


def min_k_plus_plus(standardised: Tensor, share: float = SHARE) -> float:
    """Min-K%++: as Min-K%, of (log p(y_t) − μ_t) / σ_t, with mean and deviation of log p(v) over v ~ p at that place.

    Zhang et al. (arXiv 2404.02936): what counts is how likely a token is beside the others that might stand there.

    Args:
        standardised: (L,) of its tokens; see `TokenScores`.
        share: K, in (0, 1]; at least one token is taken.
    """
    return min_k(standardised, share)
