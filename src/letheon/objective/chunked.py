"""Logits that are never all there at once: hidden states, and the head that makes logits of a chunk of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

CHUNK = 1024
"""Answer tokens whose logits are there at once: 200 MB in float32 for a vocabulary of 49152. Each chunk lays out the
head's weight anew, so much smaller ones would cost time."""


class ChunkedLogits:
    """N rows of logits, made a chunk at a time, and again on the way back.

    Args:
        states: (N, d) what the head reads.
        head: Makes (n, V) logits of (n, d).
        chunk: Most rows at once.
    """

    def __init__(self, states: Tensor, head: Callable[[Tensor], Tensor], chunk: int = CHUNK):
        self.states = states
        self.head = head
        self.chunk = chunk
        self._square = 0.0

    def reduce(self, reduction: Callable[..., Tensor], *by_token: Tensor) -> Tensor:
        """(N,) what a reduction of (n, V) logits and of further (n, …) tensors to (n,) gives for all rows."""
        pieces = [self.states.split(self.chunk), *(values.split(self.chunk) for values in by_token)]  # type: ignore[no-untyped-call]
        return torch.cat(
            [checkpoint(self._piece, reduction, *piece, use_reentrant=False) for piece in zip(*pieces, strict=True)]
        )

    def _piece(self, reduction: Callable[..., Tensor], states: Tensor, *by_token: Tensor) -> Tensor:
        logits = self.head(states)
        if logits.requires_grad:
            logits.register_hook(self._note)  # type: ignore[no-untyped-call]
        return reduction(logits, *by_token)

    def _note(self, gradient: Tensor) -> None:
        self._square += float(gradient.float().pow(2).sum())

    def split(self, sizes: Sequence[int]) -> list[ChunkedLogits]:
        """The rows of each part."""
        return [ChunkedLogits(states, self.head, self.chunk) for states in torch.split(self.states, list(sizes))]

    def square_norm(self, loss: Tensor) -> float:
        """‖∂loss/∂z‖² of the logits z that a loss has been made of; costs the head's passes once more."""
        self._square = 0.0
        torch.autograd.grad(loss, self.states, retain_graph=True)
        return self._square
