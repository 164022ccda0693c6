"""Forgetting that holds under relearning: the negative gradient where relearning others would lead.

∇L_neg(θ − η sign ∇L(θ)), L being the mean cross-entropy of a few other old answers, drawn anew each step, and η
`STEPS` times the rate at which `letheon stress` relearns: so many of Adam's first steps at once. What forgets there
was not turned away from all the answers by something that they share, which a few of them would undo for all. The
step itself is taken as fixed (as in first-order MAML, arXiv 1703.03400); the other terms keep their gradient at θ.
Costs two more forward and backward passes, of these few and of the old answers of the step, and the memory of a
gradient and a copy of the weights that are moved.

It is a step of SAM (`letheon.train.sharpness`) that leads along the attack, in the weights that the attack moves.
Source: simulated tampering, TAR (arXiv 2408.00761), whose inner loop takes many steps; one step of signs is ours.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers.pytorch_utils import Conv1D

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.forward import answer_logits, batch_for
from letheon.models import Model, as_before, in_eval_mode
from letheon.prefix import FrozenPrefix
from letheon.stress.relearn import BATCH, usual_rate
from letheon.train.sharpness import gradient_of

STEPS = 10
"""On a development seed, relearning lifts extraction strength by .044 with 10, .068 with 4, .112 with 0."""


class Relearning:
    """Leads a model to where it would be if it were taught some of what it has forgotten.

    Args:
        model: The model.
        old: All old answers; `BATCH` of them are taught at a time.
        seed: Of what is drawn.
        pad_token_id: Any token.
        prefix: Where forward passes start from.
        autocast: Makes a context in the precision of training.
    """

    def __init__(
        self,
        model: Model,
        old: Sequence[Encoded],
        *,
        seed: int,
        pad_token_id: int,
        prefix: FrozenPrefix | None,
        autocast: Callable[[], AbstractContextManager[Any]],
    ):
        self._model, self._old, self._seed = model, old, seed
        self._pad, self._prefix, self._autocast = pad_token_id, prefix, autocast
        self._weights = what_is_taught(model)
        if prefix is not None:
            # At the same time in every run, so that a resumed one comes out the same to the bit.
            prefix.run_ahead(model, old, BATCH)
        self._step, self._signs = -1, list[Tensor]()
        self._rate = STEPS * usual_rate(sum(parameter.numel() for parameter in model.parameters()))

    @contextmanager
    def taught(self, step: int) -> Iterator[None]:
        """In the block the model has been taught; after it the weights are again what they were, to the bit.

        Args:
            step: What is drawn depends on it alone, so that micro-batches of a step are led to the same place.
        """
        if step != self._step:
            draw = random.Random(f"{self._seed}-relearning-{step}")
            gradient = self._gradient(draw.sample(self._old, min(BATCH, len(self._old))))
            # A byte a weight, for the micro-batches that follow.
            self._step, self._signs = step, [g.sign().to(torch.int8) for g in gradient]
            del gradient
        with as_before(self._weights):
            with torch.no_grad():
                for weight, sign in zip(self._weights, self._signs, strict=True):
                    weight.sub_(sign, alpha=self._rate)
            yield

    def _gradient(self, sequences: Sequence[Encoded]) -> list[Tensor]:
        frozen = [weight for weight in self._weights if not weight.requires_grad]
        try:
            for weight in frozen:
                weight.requires_grad_(True)
            with in_eval_mode(self._model), self._autocast():
                batch = batch_for(self._model, sequences, self._pad, self._prefix)
                logits, targets, _ = answer_logits(self._model, batch, self._prefix)
                return gradient_of(cross_entropy(logits.float(), targets), self._weights)
        finally:
            for weight in frozen:
                weight.requires_grad_(False)


def what_is_taught(model: Model) -> list[nn.Parameter]:
    """The weights of the linear layers that learn, or that lie beneath an adapter; not the head's.

    Raises:
        InputError: There are none.
    """
    layers: list[Any] = [module.base_layer for module in model.modules() if hasattr(module, "base_layer")]
    if not layers:
        head, linear = model.get_output_embeddings(), (nn.Linear, Conv1D)
        layers = [m for m in model.modules() if isinstance(m, linear) and m is not head and m.weight.requires_grad]
    if not layers:
        raise InputError("robust=True: no linear layer learns, by which relearning could be tried; leave it out")
    return [layer.weight for layer in layers]
