"""One forward pass over many token sequences that returns logits at answer positions only.

Sequences go through the model in one of two forms, with the same logits. *Packed*: one row without padding, in which
a beginning that several sequences share (a system prompt, a question with its old and its expected answer) stands
once (`letheon.packing`). *Padded*: a row for each.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from letheon.chat import Encoded
from letheon.head import has_head_apart, head_apart
from letheon.layers import decoder_layers, states_into
from letheon.models import Model, bare_model, in_eval_mode
from letheon.objective import CHUNK, ChunkedLogits
from letheon.packing import leave_packed_attention, pack, use_packed_attention

if TYPE_CHECKING:
    from letheon.prefix import FrozenPrefix

logger = logging.getLogger(__name__)


def collate(
    sequences: Sequence[Encoded], pad_token_id: int, *, packed: bool = False, prefix: FrozenPrefix | None = None
) -> dict[str, Tensor]:
    """Make a batch.

    Args:
        sequences: S sequences.
        pad_token_id: Any token; it is masked.
        packed: Whether the model `can_pack`; else it is padded.
        prefix: Where the model may start from.

    Returns:
        input_ids and position_ids (R, T); attention_mask, (R, T) of padded rows, for a packed one see `pack`; and of
        each of the M answer tokens: `predictors` (M,), the place of the token before it in the flattened input;
        `targets` (M,), the token; `row` (M,), the number of its sequence. With a prefix, `number` (S,), by which it
        knows each sequence.
    """
    batch = pack(sequences) if packed else _padded(sequences, pad_token_id)
    if prefix is not None:
        batch["number"] = torch.tensor([prefix.number(sequence) for sequence in sequences])
    return batch


def batch_for(
    model: Model, sequences: Sequence[Encoded], pad_token_id: int, prefix: FrozenPrefix | None = None
) -> dict[str, Tensor]:
    """A batch in the form that a model can take, on its device; see `collate`."""
    device = next(model.parameters()).device
    batch = collate(sequences, pad_token_id, packed=can_pack(model), prefix=prefix)
    return {key: value.to(device) for key, value in batch.items()}


def _padded(sequences: Sequence[Encoded], pad_token_id: int) -> dict[str, Tensor]:
    """Pad on the left, so that all answers end at the right edge and the logits of prompts need not be computed."""
    length = max(len(sequence.ids) for sequence in sequences)
    ids = torch.full((len(sequences), length), pad_token_id)
    attention = torch.zeros_like(ids)
    predicts = torch.zeros_like(ids, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        start = length - len(sequence.ids)
        ids[row, start:] = torch.tensor(sequence.ids)
        attention[row, start:] = 1
        # Nothing predicts the first token of a sequence.
        predicts[row, start : length - 1] = torch.tensor(sequence.answer_mask[1:], dtype=torch.bool)
    # Models with learned positions would otherwise count the padding.
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    predictors = predicts.flatten().nonzero()[:, 0]
    return {
        "input_ids": ids,
        "attention_mask": attention,
        "position_ids": positions,
        "predictors": predictors,
        "targets": ids.flatten()[predictors + 1],
        "row": predictors // length,
    }


def token_places(batch: Mapping[str, Tensor]) -> tuple[Tensor, list[int]]:
    """Where the tokens of each sequence stand in the flattened input, sequence by sequence, and how many it has.

    In a packed row those that sequences share stand in one place.
    """
    mask = batch["attention_mask"]
    if mask.dim() == 2:
        return mask.flatten().nonzero()[:, 0], mask.sum(dim=1).tolist()
    lines = mask[0, 0]
    return lines[lines >= 0], (lines >= 0).sum(dim=1).tolist()


def batches(sequences: Sequence[Encoded], most: int) -> Iterator[list[int]]:
    """Numbers of sequences of like length, to go through a model together without gradients.

    Longest first, so that little is padded and lack of memory shows early; and with no more answer tokens than a
    `CHUNK`, for whose logits there is room.

    Args:
        sequences: S sequences.
        most: Sequences in a batch.
    """
    batch: list[int] = []
    widest = 0
    for number in sorted(range(len(sequences)), key=lambda n: -len(sequences[n].ids)):
        width = len(sequences[number].ids) - sequences[number].answer_mask.index(True) + 1
        if batch and (len(batch) == most or (len(batch) + 1) * max(widest, width) > CHUNK):
            yield batch
            batch, widest = [], 0
        batch.append(number)
        widest = max(widest, width)
    if batch:
        yield batch


def real_places(batch: Mapping[str, Tensor]) -> Tensor:
    """(M,) places in the flattened input that belong to a sequence, each once."""
    places: Tensor = token_places(batch)[0].unique()  # type: ignore[no-untyped-call]
    return places


TRIAL = [
    Encoded(ids, [False] + [True] * (len(ids) - 1))
    for ids in ([1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8], [1, 2, 9, 4, 5, 6], [3, 4, 5])
]
"""Sequences that branch, on which it is tried out what a model can do."""


def close(logits: Tensor, others: Tensor, dtype: torch.dtype) -> bool:
    """Whether logits computed in two ways are the same, but for the rounding of a type."""
    apart = (logits.float() - others.float()).norm() / others.float().norm()
    return bool(apart <= (1e-4 if dtype == torch.float32 else 3e-2))


_packs: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()


def can_pack(model: Model) -> bool:
    """Whether a model gives packed sequences the logits they have alone; one that can is made ready for it.

    A model packs if its attention can be replaced, and it has no other way for one token to reach another (a window,
    a recurrence, a convolution). It is tried out once, on a few short sequences.
    """
    model = bare_model(model)
    if model not in _packs:
        _packs[model] = _try_packing(model)
        if not _packs[model]:
            logger.warning(
                "%s cannot take packed sequences; they are padded, those of like length together",
                type(model).__name__,
            )
    return _packs[model]


@torch.no_grad()
def _try_packing(model: Model) -> bool:
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if kinds != {"full_attention"} or windowed:
        return False
    if not use_packed_attention(model):
        return False
    near = False
    try:
        # In the model's own precision, the finest there is.
        with in_eval_mode(model), torch.autocast(model.device.type, enabled=False):
            packed, padded = (
                answer_logits(model, {key: value.to(model.device) for key, value in batch.items()})[0]
                for batch in (pack(TRIAL), _padded(TRIAL, 0))
            )
        # Quantised weights are multiplied in bfloat16, whatever the rest is.
        quantised = getattr(model, "is_quantized", False)
        near = close(packed, padded, torch.bfloat16 if quantised else model.dtype)
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        logger.info("packing was tried and failed: %s", error)
    if not near:
        leave_packed_attention(model)
    return near


def hold_in_bf16(model: Model) -> None:
    """Hold the weights of a model's linear layers in bfloat16, which is what autocast makes of them at every call.

    For a model that stays as it is (the base of an adapter) and runs under bfloat16 autocast alone: the results are
    the same to the bit, in less memory and time. Embeddings stay as they are, even where the head shares theirs.
    """
    # Tried out while it can be told exactly.
    can_pack(model)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight = torch.nn.Parameter(module.weight.detach().to(torch.bfloat16), requires_grad=False)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype != torch.bfloat16:
            # Loaded weights lie in one mapped file, which stays in memory whole while any of them does.
            tensor.data = tensor.data.clone()


def answer_logits(
    model: Model, batch: Mapping[str, Tensor], prefix: FrozenPrefix | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that predict the answer tokens of a collated batch, row by row.

    Args:
        model: A causal language model, plain, wrapped by PEFT or by accelerate.
        batch: What `collate` returns (further entries are ignored).
        prefix: Where to start from instead of the first layer; the batch then holds `number`s.

    Returns:
        logits (N, V), targets (N,) and row (N,): the sequence each token belongs to.
    """
    return _predict(model, batch, prefix), batch["targets"], batch["row"]


def chunked_logits(
    model: Model, batch: Mapping[str, Tensor], prefix: FrozenPrefix | None = None
) -> tuple[Tensor | ChunkedLogits, Tensor, Tensor]:
    """As `answer_logits`, but of more than a chunk of answer tokens the logits come in chunks, if the model can."""
    # Where several processes wrap the model, its head would get gradients outside of what they keep in step.
    if len(batch["targets"]) <= CHUNK or hasattr(model, "module") or not has_head_apart(model):
        return answer_logits(model, batch, prefix)
    with head_apart(model) as head:
        states = _predict(model, batch, prefix)
    return ChunkedLogits(states, head, CHUNK), batch["targets"], batch["row"]


def answer_states(
    model: Model,
    batch: Mapping[str, Tensor],
    layer: int,
    prefix: FrozenPrefix | None = None,
    *,
    with_logits: bool = False,
) -> tuple[Tensor, Tensor | ChunkedLogits | None]:
    """Hidden states that leave a layer where answer tokens are predicted; nothing above it runs unless it must.

    Args:
        model: As of `answer_logits`.
        batch: As of there.
        layer: Its number, from 0; not the last one.
        prefix: As of there; its layers lie below.
        with_logits: Also the logits, by the same pass: then all of the model runs.

    Returns:
        states (N, d) and, where asked for, logits as of `chunked_logits`.
    """
    run = chunked_logits if with_logits else answer_logits
    # Where several processes wrap the model, what keeps them in step waits for the end of its forward.
    leave = not with_logits and not hasattr(model, "module")
    logits = None
    with states_into(decoder_layers(model)[layer + 1], leave=leave) as states:
        logits = run(model, batch, prefix)[0]
    found = states[0].flatten(0, 1).index_select(0, batch["predictors"])
    return found, logits if with_logits else None


def _predict(model: Model, batch: Mapping[str, Tensor], prefix: FrozenPrefix | None) -> Tensor:
    """(N, …) the model's output at the answer tokens."""
    places, (rows, length) = batch["predictors"], batch["input_ids"].shape
    kept: dict[str, int | Tensor] = {}
    if "logits_to_keep" in inspect.signature(bare_model(model).forward).parameters:
        if rows == 1:
            # Each place once: many sequences may go on from the same one.
            kept["logits_to_keep"], places = torch.unique(places, return_inverse=True)
        else:
            first = int((places % length).min())
            kept["logits_to_keep"] = length - first
            places = places // length * (length - first) + places % length - first
    with prefix.skipped(model, batch) if prefix is not None else nullcontext():
        output = model(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
            **kept,
        )
    # On the way back this is several times faster than indexing.
    found: Tensor = output.logits.flatten(0, 1).index_select(0, places)
    return found
