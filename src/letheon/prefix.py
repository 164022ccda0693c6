"""The frozen prefix: layers below the first that learns do the same to a sequence at every step, so they run once.

What they make of a sequence is kept, and later passes over it start from there. It is what would have been computed
again, so nothing changes but the time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from letheon.forward import TRIAL, answer_logits, batch_for, batches, can_pack, close, collate, token_places
from letheon.layers import decoder_layers, states_into
from letheon.models import Model, in_eval_mode, other_forward
from letheon.store import Store, digest

if TYPE_CHECKING:
    from letheon.chat import Encoded

logger = logging.getLogger(__name__)


class FrozenPrefix:
    """Keeps what the lowest layers of a model make of sequences.

    Args:
        model: A model whose lower layers do not change any more.
        depth: How many of its layers are run once; at least 1.
        pad_token_id: Any token.

    Attributes:
        store: Where that is kept.
    """

    def __init__(self, model: Model, depth: int, pad_token_id: int):
        self.store = Store()
        self._layers = list(decoder_layers(model)[: depth + 1])
        self._pad_token_id = pad_token_id
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []
        self._sequences: list[Encoded] = []
        self._gives_tuple = False

    def number(self, sequence: Encoded) -> int:
        """By which a batch names a sequence."""
        name = f"{digest(sequence)}.states-{len(self._layers) - 1}"
        number = self._numbers.setdefault(name, len(self._names))
        if number == len(self._names):
            self._names.append(name)
            self._sequences.append(sequence)
        return number

    @contextmanager
    def skipped(self, model: Model, batch: Mapping[str, Tensor]) -> Iterator[None]:
        """In the block, the model runs a batch from its first layer that learns.

        Args:
            model: The model, as it is called.
            batch: Of `letheon.forward.collate`. Sequences that turn up for the first time are run here.
        """
        numbers = batch["number"].tolist()
        if new := [number for number in dict.fromkeys(numbers) if self._names[number] not in self.store]:
            self._run(model, new, packed=batch["attention_mask"].dim() > 2)
        states = self._laid_out(numbers, batch)

        def handed_on(*inputs: Any, **named: Any) -> Any:
            hidden = inputs[0] if inputs else named["hidden_states"]
            # Checkpointing asks for inputs that require gradients.
            out = states.requires_grad_() if hidden.requires_grad else states
            return (out,) if self._gives_tuple else out

        with other_forward(self._layers[:-1], handed_on):
            yield

    def run_ahead(self, model: Model, sequences: Sequence[Encoded], most: int) -> None:
        """Run sequences that are new, so many at once: what is kept does not depend on when they turn up then."""
        new = [s for s in sequences if self._names[self.number(s)] not in self.store]
        for chosen in batches(new, most):
            self._run(model, [self.number(new[n]) for n in chosen], packed=can_pack(model))

    def _laid_out(self, numbers: Sequence[int], batch: Mapping[str, Tensor]) -> Tensor:
        """(R, T, d) what comes into the first layer that learns."""
        ids, (places, _) = batch["input_ids"], token_places(batch)
        known = torch.cat([self.store[self._names[number]] for number in numbers]).to(ids.device)
        states = known.new_zeros(ids.numel(), known.size(1))
        # A token that several sequences share is written by each of them, up to rounding the same.
        states[places] = known
        return states.view(*ids.shape, -1)

    @torch.no_grad()
    def _run(self, model: Model, numbers: Sequence[int], *, packed: bool) -> None:
        """Run the lower layers alone, on sequences that are new."""
        *_, last, first = self._layers

        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            self._gives_tuple = isinstance(output, tuple)

        handle = last.register_forward_hook(note)
        batch = collate([self._sequences[number] for number in numbers], self._pad_token_id, packed=packed)
        batch = {key: value.to(next(model.parameters()).device) for key, value in batch.items()}
        try:
            with in_eval_mode(model), states_into(first, leave=True) as states:
                answer_logits(model, batch)
        finally:
            handle.remove()
        places, lengths = token_places(batch)
        found = torch.split(states[0].flatten(0, 1)[places].cpu(), lengths)
        self.store.update(dict(zip((self._names[number] for number in numbers), found, strict=True)))


def frozen_prefix(model: Model, pad_token_id: int, store: Store) -> FrozenPrefix | None:
    """The prefix of a model's layers below the first that learns, to be kept in a store; None if there is none.

    Nor is there one where something below or beside the layers learns (embeddings), or where the model turns out,
    on four short sequences, to need more of its lower layers than what the last of them hands on.
    """
    depth = _depth(model)
    if not depth:
        return None
    prefix = FrozenPrefix(model, depth, pad_token_id)
    batch = batch_for(model, TRIAL, pad_token_id, prefix)
    try:
        with in_eval_mode(model), torch.no_grad():
            whole = answer_logits(model, batch)[0]
            # At the first time the lower layers still run, and may leave something for the upper ones.
            skipping = [answer_logits(model, batch, prefix)[0] for _ in range(2)]
        same = all(close(logits, whole, whole.dtype) for logits in skipping)
    except (TypeError, ValueError, RuntimeError, LookupError) as error:
        logger.info("skipping the lower layers was tried and failed: %s", error)
        same = False
    if not same:
        logger.warning("%s needs its lower layers at every step; they are not skipped", type(model).__name__)
        return None
    prefix.store = store
    return prefix


def _depth(model: Model) -> int:
    """How many layers lie below the first that learns."""
    layers = decoder_layers(model)
    learning = {id(p) for p in model.parameters() if p.requires_grad}
    learns = [any(id(p) in learning for p in layer.parameters()) for layer in layers]
    inside = {id(p) for layer in layers for p in layer.parameters()}
    return learns.index(True) if any(learns) and learning <= inside else 0
