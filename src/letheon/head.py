"""The head apart from the body: a model that hands out what its head would read, so that logits come in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from letheon.models import Model, bare_model, in_eval_mode, other_forward

_apart: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@contextmanager
def head_apart(model: Model) -> Iterator[Callable[[Tensor], Tensor]]:
    """In the block a model's `logits` are what its head would read; yields the head, to be used after the block.

    The head computes in the precision in which the model would have run it.
    """
    head = bare_model(model).get_output_embeddings()
    autocast: list[torch.autocast] = []

    def skip(states: Tensor) -> Tensor:
        kind = states.device.type
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        autocast.append(torch.autocast(kind, dtype, enabled=enabled))
        return states

    def apply(states: Tensor) -> Tensor:
        with autocast[0]:
            logits: Tensor = head(states)
        return logits

    with other_forward([head], skip):
        yield apply


@torch.no_grad()
def has_head_apart(model: Model) -> bool:
    """Whether a model's logits are what its head makes of hidden states, and nothing is done to them any more.

    Some models scale or cap them. It is tried out once, on four tokens.

    Args:
        model: The model as it is called, for its precision may be set by a wrapper.
    """
    inner = bare_model(model)
    if inner not in _apart:
        _apart[inner] = inner.get_output_embeddings() is not None and _try_apart(model)
    return _apart[inner]


def _try_apart(model: Model) -> bool:
    ids = torch.arange(1, 5, device=bare_model(model).device)[None]
    with in_eval_mode(model):
        logits = model(input_ids=ids, use_cache=False).logits
        with head_apart(model) as head:
            states = model(input_ids=ids, use_cache=False).logits
    return torch.equal(head(states).to(logits.dtype), logits)
