"""One forward pass over many token sequences that returns logits at answer positions only.

Sequences go through the model in one of two forms, with the same logits. *Packed*: one row without padding, in which
a beginning that several sequences share (a system prompt, a question with its old and its expected answer) stands
once; every token sees its own ancestors only, and counts its position from its own root. *Padded*: a row for each.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from letheon.models import Model

if TYPE_CHECKING:
    from letheon.chat import Encoded

logger = logging.getLogger(__name__)

MOST_PACKED = 8192
"""Longest packed row: its mask has the square of it in bytes."""


def collate(sequences: Sequence[Encoded], pad_token_id: int, width: int | None = None) -> dict[str, Tensor]:
    """Make a batch, packed where that is allowed and takes less computation, else padded.

    Args:
        sequences: S sequences.
        pad_token_id: Any token; it is masked.
        width: What `pack_width` says of the model; None: padded.

    Returns:
        input_ids and position_ids (R, T); attention_mask, (R, T) of padded rows, (1, 1, T, T) bool of a packed one;
        and of each of the M answer tokens: `predictors` (M,), the place of the token before it in the flattened
        input; `targets` (M,), the token; `row` (M,), the number of its sequence.
    """
    if width is not None:
        nodes = _Trie(sequences)
        size, rows, longest = len(nodes.ids), len(sequences), max(len(sequence.ids) for sequence in sequences)
        # Operations of a layer, in units of 4d: 6d a token for the weights (24d²), and one a pair in attention.
        if size <= MOST_PACKED and size * (6 * width + size) <= rows * longest * (6 * width + longest):
            return nodes.batch()
    return _padded(sequences, pad_token_id)


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


def real_places(batch: Mapping[str, Tensor]) -> Tensor:
    """(M,) places in the flattened input that are no padding. In a packed row each stands once."""
    mask = batch["attention_mask"]
    return (mask if mask.dim() == 2 else torch.ones_like(batch["input_ids"])).flatten().nonzero()[:, 0]


class _Trie:
    """The distinct beginnings of sequences, up to their last predicting token: a node each, parents first."""

    def __init__(self, sequences: Sequence[Encoded]):
        self.ids: list[int] = []
        self.parents: list[int] = []
        self.answers: list[tuple[int, int, int]] = []
        children: dict[tuple[int, int], int] = {}
        for row, sequence in enumerate(sequences):
            node = -1
            last = max(place for place, answer in enumerate(sequence.answer_mask) if answer)
            for place, token in enumerate(sequence.ids[: last + 1]):
                if place and sequence.answer_mask[place]:
                    self.answers.append((node, token, row))
                if place == last:
                    # The last token predicts nothing.
                    break
                child = children.setdefault((node, token), len(self.ids))
                if child == len(self.ids):
                    self.ids.append(token)
                    self.parents.append(node)
                node = child

    def batch(self) -> dict[str, Tensor]:
        """The batch of one packed row."""
        size = len(self.ids)
        sees = torch.eye(size, dtype=torch.bool)
        positions = [0] * size
        for node, parent in enumerate(self.parents):
            if parent >= 0:
                sees[node] |= sees[parent]
                positions[node] = positions[parent] + 1
        predictors, targets, row = torch.tensor(self.answers).T.contiguous()
        return {
            "input_ids": torch.tensor([self.ids]),
            "attention_mask": sees[None, None],
            "position_ids": torch.tensor([positions]),
            "predictors": predictors,
            "targets": targets,
            "row": row,
        }


_widths: WeakKeyDictionary[torch.nn.Module, int | None] = WeakKeyDictionary()


def pack_width(model: Model) -> int | None:
    """The hidden size of a model that gives packed sequences the logits they have alone; None of one that does not.

    A model packs if it reads a mask of tokens by tokens and positions, and has no other way for one token to reach
    another (a window, a recurrence, a convolution). It is tried out once, on four sequences that branch.
    """
    model = _bare(model)
    if model not in _widths:
        width = _try_packing(model)
        if width is None:
            logger.warning("%s cannot take packed sequences; padding them instead", type(model).__name__)
        _widths[model] = width
    return _widths[model]


@torch.no_grad()
def _try_packing(model: Model) -> int | None:
    from letheon.chat import Encoded

    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    if config._attn_implementation != "sdpa" or kinds != {"full_attention"} or windowed:
        return None
    tokens = [[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8], [1, 2, 9, 4, 5, 6], [3, 4, 5]]
    sequences = [Encoded(ids, [False] + [True] * (len(ids) - 1)) for ids in tokens]
    training = model.training
    model.eval()
    try:
        packed, padded = (
            answer_logits(model, {key: value.to(model.device) for key, value in batch.items()})[0].float()
            for batch in (_Trie(sequences).batch(), _padded(sequences, 0))
        )
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        logger.info("packing was tried and failed: %s", error)
        return None
    finally:
        model.train(training)
    near = (packed - padded).norm() <= (1e-4 if model.dtype == torch.float32 else 3e-2) * padded.norm()
    return int(config.hidden_size) if bool(near) else None


def answer_logits(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that predict the answer tokens of a collated batch, row by row.

    Args:
        model: A causal language model, plain, wrapped by PEFT or by accelerate.
        batch: What `collate` returns (further entries are ignored).

    Returns:
        logits (N, V), targets (N,) and row (N,): the sequence each token belongs to.
    """
    places, (rows, length) = batch["predictors"], batch["input_ids"].shape
    row, column = places // length, places % length
    first = 0
    kept: dict[str, int | Tensor] = {}
    if "logits_to_keep" in inspect.signature(_bare(model).forward).parameters:
        if rows == 1:
            # Each place once: many sequences may go on from the same one.
            kept["logits_to_keep"], column = torch.unique(column, return_inverse=True)
        else:
            first = int(column.min())
            kept["logits_to_keep"] = length - first
    output = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
        **kept,
    )
    return output.logits[row, column - first], batch["targets"], batch["row"]


def _bare(model: Model) -> Model:
    """The model inside accelerate's and PEFT's wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model
