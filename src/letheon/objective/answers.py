"""What every loss term reads: logits or hidden states at answer positions, and what they were before unlearning.

Notation used throughout this package: N answer tokens of S sequences, V vocabulary entries, k reference tokens, d the
width of hidden states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from letheon.objective.chunked import ChunkedLogits


@dataclass(frozen=True)
class Answers:
    """The answer tokens of one group of sequences (forget, expected or normal), flattened.

    Attributes:
        logits: (N, V) float logits that predict each token, or what makes them a chunk at a time; prompt and padding
            are not among them. None where the term reads hidden states.
        targets: (N,) the tokens themselves.
        sequence: (N,) index in [0, S) of the sequence each token belongs to.
        counts: (N,) bool, whether a token takes part in the loss (the token choice).
        reference_log_prob: (N,) log p_θ₀ of the targets, or the base's, where a term declares that it needs it.
        reference_top_ids: (N, k) the likeliest tokens under θ₀.
        reference_top_log_probs: (N, k) and their log-probabilities.
        states: (N, d) the hidden states that leave a layer where each token is predicted; for terms that read them.
        reference_states: (N, d) the same under θ₀.
        reference_norm: The mean ‖h‖ of these states under θ₀, over all that is to be forgotten.
        preferred: Of old answers, the expected ones: S sequences in the same order.
        rejected: Of normal answers, what is not to be said in their place: S sequences in the same order.
    """

    logits: Tensor | ChunkedLogits | None
    targets: Tensor
    sequence: Tensor
    counts: Tensor
    reference_log_prob: Tensor | None = None
    reference_top_ids: Tensor | None = None
    reference_top_log_probs: Tensor | None = None
    states: Tensor | None = None
    reference_states: Tensor | None = None
    reference_norm: float | None = None
    preferred: Answers | None = None
    rejected: Answers | None = None

    @property
    def sequences(self) -> int:
        """Number of sequences S."""
        return int(self.sequence.max()) + 1 if self.sequence.numel() else 0

    def reduce(self, reduction: Callable[..., Tensor], *by_token: Tensor) -> Tensor:
        """(N,) what a reduction makes of logits and targets, and of further tensors of N rows.

        Terms read logits this way alone, so that those of many tokens need not be there at once.

        Args:
            reduction: Of (n, V) logits, (n,) targets and (n, …) others to (n,).
            *by_token: The others.
        """
        assert self.logits is not None
        if isinstance(self.logits, ChunkedLogits):
            return self.logits.reduce(reduction, self.targets, *by_token)
        return reduction(self.logits, self.targets, *by_token)

    def log_probs(self) -> Tensor:
        """(N,) log p_θ of the targets, in float32."""
        return self.reduce(log_prob)

    def log_ratio(self) -> Tensor:
        """(S,) log π_θ/π_θ₀ of whole answers: summed over the counted tokens of each sequence."""
        assert self.reference_log_prob is not None
        return self.sum_by_sequence(self.log_probs() - self.reference_log_prob)

    def sum_by_sequence(self, values: Tensor) -> Tensor:
        """(S,) sums of per-token values over the counted tokens of each sequence."""
        kept = torch.where(self.counts, values, torch.zeros_like(values))
        return values.new_zeros(self.sequences).index_add(0, self.sequence, kept)

    def mean_by_sequence(self, values: Tensor) -> Tensor:
        """(S,) means of per-token values over the counted tokens of each sequence; 0 where none counts."""
        return self.sum_by_sequence(values) / self.sum_by_sequence(torch.ones_like(values)).clamp(min=1)


def log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    """(N,) log-softmax of (N, V) logits at (N,) targets; the reduction runs in float32."""
    return -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="none")
