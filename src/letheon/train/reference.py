"""What the model said before unlearning, computed once: never a second model in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from letheon.chat import Encoded
from letheon.forward import answer_logits, batch_for
from letheon.models import Model
from letheon.objective import log_prob
from letheon.prefix import FrozenPrefix
from letheon.train.contrast import Moments
from letheon.train.dataset import Reference


@torch.no_grad()
def reference_pass(
    model: Model,
    sequences: Sequence[Encoded],
    *,
    top_k: int,
    pad_token_id: int,
    batch_size: int,
    moments: Moments | None = None,
    prefix: FrozenPrefix | None = None,
) -> list[Reference]:
    """Score sequences under the current weights, θ₀, in batches of similar length.

    Args:
        model: The model before unlearning.
        sequences: S sequences.
        top_k: Tokens kept of each distribution.
        pad_token_id: Padding token.
        batch_size: Sequences a forward pass.
        moments: Also adds up the second moments of layers' inputs.
        prefix: Where to start from.

    Returns:
        S references, in the order of the sequences; all tokens count.
    """
    training = model.training
    model.eval()
    found: list[Reference | None] = [None] * len(sequences)
    order = sorted(range(len(sequences)), key=lambda number: len(sequences[number].ids))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = batch_for(model, [sequences[number] for number in chosen], pad_token_id, prefix)
        with moments.watching(batch) if moments else nullcontext():
            logits, targets, row = answer_logits(model, batch, prefix)
        own = log_prob(logits, targets).cpu()
        top = logits.float().log_softmax(dim=1).topk(min(top_k, logits.size(1)), dim=1)
        values, ids, rows = top.values.cpu(), top.indices.cpu(), row.cpu()
        for place, number in enumerate(chosen):
            of = rows == place
            found[number] = Reference(own[of], ids[of], values[of], torch.ones(int(of.sum()), dtype=torch.bool))
    model.train(training)
    return [reference for reference in found if reference is not None]


def informative(with_prompt: Tensor, without_prompt: Tensor) -> Tensor:
    """Tokens that the prompt makes at least twice as likely: log p(y_t|x, y_<t) − log p(y_t|y_<t) > log 2.

    Args:
        with_prompt: (n,) log-probabilities given the prompt.
        without_prompt: (n,) log-probabilities with the question left empty.

    Returns:
        (n,) bool; all True where no token is informative, so that no answer is left out.
    """
    chosen = with_prompt - without_prompt > torch.log(torch.tensor(2.0))
    return chosen if bool(chosen.any()) else torch.ones_like(chosen)
