"""How far one more step on a text would move a model: little, where it has been trained on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from letheon.chat import Encoded
from letheon.forward import answer_logits, batch_for
from letheon.models import Model
from letheon.objective import log_prob


def gradient_norms(
    model: Model, sequences: Sequence[Encoded], *, progress: Callable[[int], None] | None = None
) -> list[float]:
    """−mean_W ‖∂ loss / ∂ W‖₂ over the weight tensors W, in (−∞, 0]; higher speaks for membership.

    The loss is the mean over a sequence's target tokens. open-unlearning, `gradnorm`, with its sign turned; the idea
    is Nasr et al.'s (arXiv 1812.00910). It takes the memory of the weights once more, and no step.

    Args:
        model: A causal language model in eval mode. Of all its weights: those of an adapter's base, which PEFT leaves
            frozen when it is merged, count as those of any other model.
        sequences: S sequences; each is a pass forward and one back.
        progress: Called with 1 after each.
    """
    weights = [weight for weight in model.parameters() if weight.is_floating_point()]
    found = []
    with _trainable(weights):
        for sequence in sequences:
            logits, targets, _ = answer_logits(model, batch_for(model, [sequence], pad_token_id=0))
            loss = -log_prob(logits.float(), targets).mean()
            with torch.no_grad():
                gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                norms = [gradient.float().norm() for gradient in gradients if gradient is not None]
                found.append(-float(torch.stack(norms).mean()))
            del gradients
            if progress is not None:
                progress(1)
    return found


@contextmanager
def _trainable(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    frozen = [weight for weight in weights if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        yield
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
