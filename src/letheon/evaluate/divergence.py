"""How far a model has moved from the one before, on answers that it is to keep: exact, over the whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from letheon.chat import Encoded
from letheon.forward import answer_logits, batch_for, batches
from letheon.models import Model

ROWS = 256
"""Tokens whose distributions are there in float32 at once."""


@torch.inference_mode()
def divergences(
    model: Model,
    before: Model,
    sequences: Sequence[Encoded],
    *,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[float]:
    """mean_t KL(p_before(· | x, y_<t) ‖ p(· | x, y_<t)) of each sequence's target tokens, in [0, ∞), nats a token.

    0 where the model says what it said before; on what is to be kept, lower is better. Both models are in memory, and
    their logits of one batch; `objective.normal.top_k_kl`, which needs no second model, is a lower bound of it.

    Args:
        model: A causal language model in eval mode, plain or with an adapter.
        before: Another with the same tokens, in eval mode.
        sequences: S sequences.
        batch_size: Most sequences at once.
        progress: Called with the number of sequences done by each batch.

    Returns:
        S divergences; NaN or infinite where a model is broken, or cannot say at all what the one before could.
    """
    found: dict[int, float] = {}
    for numbers in batches(sequences, batch_size):
        some = [sequences[number] for number in numbers]
        # Of either model in the form that it takes: the rows may come in another order.
        (now, _, row), (then, _, row_then) = (
            answer_logits(one, batch_for(one, some, pad_token_id=0)) for one in (model, before)
        )
        for place, number in enumerate(numbers):
            pieces = zip(*(torch.split(z, ROWS) for z in (now[row == place], then[row_then == place])), strict=True)
            found[number] = float(torch.cat([_kl(q, p.to(q.device)) for q, p in pieces]).double().mean())
        if progress is not None:
            progress(len(numbers))
    return [found[number] for number in range(len(sequences))]


def _kl(logits: Tensor, before: Tensor) -> Tensor:
    """(N,) divergences of (N, V) logits."""
    q, p = logits.float().log_softmax(dim=1), before.float().log_softmax(dim=1)
    # What had no probability before adds nothing, whatever it has now; rounding may leave a little less than nothing.
    return torch.where(p.isneginf(), 0, p.exp() * (p - q)).sum(dim=1).clamp(min=0)
