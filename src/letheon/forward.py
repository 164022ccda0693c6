"""One forward pass over token sequences that returns logits at answer positions only."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from letheon.models import Model

if TYPE_CHECKING:
    from letheon.chat import Encoded


def collate(sequences: Sequence[Encoded], pad_token_id: int) -> dict[str, Tensor]:
    """Pad on the left, so that all answers end at the right edge and the logits of prompts need not be computed.

    Args:
        sequences: S sequences.
        pad_token_id: Any token; it is masked.

    Returns:
        input_ids, attention_mask, position_ids (S, T) int64 and answer_mask (S, T) bool.
    """
    length = max(len(sequence.ids) for sequence in sequences)
    ids = torch.full((len(sequences), length), pad_token_id)
    attention = torch.zeros_like(ids)
    answer = torch.zeros_like(ids, dtype=torch.bool)
    for row, sequence in enumerate(sequences):
        start = length - len(sequence.ids)
        ids[row, start:] = torch.tensor(sequence.ids)
        attention[row, start:] = 1
        answer[row, start:] = torch.tensor(sequence.answer_mask)
    # Models with learned positions would otherwise count the padding.
    positions = (attention.cumsum(dim=1) - 1).clamp(min=0)
    return {"input_ids": ids, "attention_mask": attention, "position_ids": positions, "answer_mask": answer}


def answer_logits(model: Model, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that predict the answer tokens of a collated batch, row by row.

    Args:
        model: A causal language model, plain, wrapped by PEFT or by accelerate.
        batch: What `collate` returns (further entries are ignored).

    Returns:
        logits (N, V), targets (N,) and row (N,): the sequence each token belongs to.
    """
    mask = batch["answer_mask"]
    length = mask.size(1)
    first = int(mask.any(dim=0).int().argmax())
    # The logits at position t − 1 predict token t; nothing predicts the first token of a sequence.
    keep = length - max(first - 1, 0)
    kept = {"logits_to_keep": keep} if _can_keep(model) else {}
    output = model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        position_ids=batch["position_ids"],
        use_cache=False,
        **kept,
    )
    logits = output.logits[:, -keep:-1]
    mask = mask[:, -keep:][:, 1:]
    targets = batch["input_ids"][:, -keep:][:, 1:]
    return logits[mask], targets[mask], mask.nonzero()[:, 0]


def _can_keep(model: Model) -> bool:
    """Whether the model can leave out the logits of the prompt; those that cannot compute them all."""
    while hasattr(model, "module"):
        model = model.module
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    return "logits_to_keep" in inspect.signature(model.forward).parameters
