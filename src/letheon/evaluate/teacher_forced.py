"""One pass of a model over given answers, which every metric of given answers is computed from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from letheon.chat import Encoded
from letheon.evaluate.memorisation import content_of, exact_memorization, extraction_strength
from letheon.forward import answer_logits, batch_for, batches
from letheon.models import Model
from letheon.objective.normal import top_k_kl


@dataclass(frozen=True)
class TokenScores:
    """What a model thinks of one sequence's L target tokens; small tensors on the CPU.

    Attributes:
        log_probs: (L,) log p(y_t | x, y_<t), float32.
        matches: (L,) bool, whether the likeliest token is y_t.
        top_ids: (L, k) the likeliest tokens, where they were asked for.
        top_log_probs: (L, k) and their log-probabilities.
        kl: (L,) KL(p_before ‖ p) a token, where a reference was given.
        standardised: (L,) (log p(y_t) − μ) / σ, with mean and deviation of log p(v), v ~ p, where it was asked for.
    """

    log_probs: Tensor
    matches: Tensor
    top_ids: Tensor | None = None
    top_log_probs: Tensor | None = None
    kl: Tensor | None = None
    standardised: Tensor | None = None

    @property
    def loss(self) -> float:
        """−mean_t log p(y_t | x, y_<t), in [0, ∞), in nats a token; lower is likelier."""
        return -float(self.log_probs.double().mean())

    @property
    def content(self) -> Tensor:
        """Which tokens of the answer itself match; see `letheon.evaluate.memorisation.content_of`."""
        return content_of(self.matches)

    @property
    def broken(self) -> bool:
        """Whether the model is: no comparison with NaN is true, so that it would seem to have forgotten all."""
        return not bool(self.log_probs.isfinite().all())

    @property
    def exact_memorization(self) -> float:
        """That of the answer itself; NaN where the model is broken."""
        return math.nan if self.broken else exact_memorization(self.content)

    @property
    def extraction_strength(self) -> float:
        """That of the answer itself, corrected; NaN where the model is broken."""
        return math.nan if self.broken else extraction_strength(self.content)


@torch.inference_mode()
def score_sequences(
    model: Model,
    sequences: Sequence[Encoded],
    *,
    batch_size: int = 16,
    top_k: int = 0,
    standardise: bool = False,
    reference: Sequence[TokenScores | None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[TokenScores]:
    """Score the target tokens of every sequence.

    KL is measured on the k likeliest tokens of the reference and one bucket for the rest, a lower bound of the full
    one, in nats (`objective.normal.top_k_kl`).

    Args:
        model: A causal language model in eval mode, plain or with an adapter.
        sequences: S sequences.
        batch_size: Most sequences at once.
        top_k: How many of the likeliest tokens to keep, for a later call's reference; 0: none.
        standardise: Whether to set tokens against what else might stand in their places, for Min-K%++.
        reference: Another model's scores of the same sequences with top_k; None for those that have none.
        progress: Called with the number of sequences done by each batch.

    Returns:
        S scores, in the order of the sequences.
    """
    scores: dict[int, TokenScores] = {}
    for numbers in batches(sequences, batch_size):
        batch = batch_for(model, [sequences[number] for number in numbers], pad_token_id=0)
        logits, targets, row = answer_logits(model, batch)
        for place, number in enumerate(numbers):
            # A sequence at a time: float32 copies of a whole batch's logits would double the peak memory.
            here = row == place
            known = reference[number] if reference is not None else None
            scores[number] = _score(logits[here].float(), targets[here], top_k, known, standardise)
        if progress is not None:
            progress(len(numbers))
    return [scores[number] for number in range(len(sequences))]


def _score(
    logits: Tensor, targets: Tensor, top_k: int, reference: TokenScores | None, standardise: bool
) -> TokenScores:
    """Score one sequence from its (L, V) logits."""
    normaliser = logits.logsumexp(dim=1)
    log_probs = logits.gather(1, targets[:, None])[:, 0] - normaliser
    top_ids = top_log_probs = kl = None
    if top_k:
        top, top_ids = logits.topk(min(top_k, logits.size(1)), dim=1)
        top_ids, top_log_probs = top_ids.cpu(), (top - normaliser[:, None]).cpu()
    if reference is not None and reference.top_ids is not None and reference.top_log_probs is not None:
        before = reference.top_ids.to(logits.device), reference.top_log_probs.to(logits.device)
        kl = top_k_kl(logits, *before).cpu()
    matches = (logits.argmax(dim=1) == targets).cpu()
    standardised = _standardise(logits - normaliser[:, None], log_probs).cpu() if standardise else None
    return TokenScores(log_probs.cpu(), matches, top_ids, top_log_probs, kl, standardised)


def _standardise(every: Tensor, log_probs: Tensor) -> Tensor:
    """(L,) how many deviations the targets' log-probabilities are above the mean of (L, V) all, weighted by p."""
    weights = every.exp()
    mean = (weights * every).sum(dim=1)
    variance = (weights * (every - mean[:, None]) ** 2).sum(dim=1)
    # Where all tokens are alike, or one has all the probability, what is left is rounding.
    return (log_probs - mean) / variance.clamp(min=1e-8).sqrt()
