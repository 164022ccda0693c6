"""The layers of a model, and the hidden states that go from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from torch import Tensor, nn

from letheon.models import Model, bare_model


def decoder_layers(model: Model) -> Sequence[nn.Module]:
    """The layers of a model, lowest first; none where they are not in one list."""
    model = bare_model(model)
    total = model.config.get_text_config().num_hidden_layers
    lists = (module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == total)
    return list(next(lists, ()))


@contextmanager
def states_into(layer: nn.Module, *, leave: bool) -> Iterator[list[Tensor]]:
    """In the block, a pass through a model puts the states (R, T, d) that come into a layer into the yielded list.

    What comes into a layer, not what the one below gives: gradient checkpointing may hand that out without gradients.

    Args:
        layer: The layer.
        leave: Whether the pass ends there, so that nothing above runs; the block ends with it.
    """
    states: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, named: dict[str, Any]) -> None:
        states[:] = [inputs[0] if inputs else named["hidden_states"]]
        if leave:
            raise _ReachedError

    handle = layer.register_forward_pre_hook(note, with_kwargs=True)
    try:
        with _outside_a_checkpoint(layer) if leave else nullcontext(), suppress(_ReachedError):
            yield states
    finally:
        handle.remove()


@contextmanager
def _outside_a_checkpoint(layer: Any) -> Iterator[None]:
    """In the block, a layer is not checkpointed.

    Transformers before 5.23 checkpoints a layer together with its hooks. Torch before 2.13 does not notice that an
    exception leaves a checkpoint: what is computed next would count as a part of it.
    """
    checkpointed = getattr(layer, "gradient_checkpointing", False)
    if checkpointed:
        layer.gradient_checkpointing = False
    try:
        yield
    finally:
        if checkpointed:
            layer.gradient_checkpointing = True


class _ReachedError(Exception):
    """Not an error: the way out of a model's forward once the layers below have run."""
