"""Packing: many sequences in one row without padding, a beginning that several share standing there once.

Layers that treat each token by itself (nearly all the work) see the row. Attention needs the sequences: for it, keys,
queries and values are laid out a sequence a line, each of them causal, and what comes out is gathered back. So the
cost of attention is that of the sequences alone, and no mask of tokens by tokens exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from letheon.models import Model

if TYPE_CHECKING:
    from letheon.chat import Encoded

NAME = "letheon-packed"
"""The attention implementation under which transformers knows `_attention`."""


ROUND = 16
"""Packed rows have a multiple of so many tokens."""


def pack(sequences: Sequence[Encoded]) -> dict[str, Tensor]:
    """Make the batch of one packed row; see `letheon.forward.collate`.

    The distinct beginnings of the sequences, up to their last predicting token, are the nodes of a trie, and each is
    a token of the row. In place of a mask stand the lines of attention, (1, 1, S, L) int64: the nodes of each
    sequence in their order, filled up with -1.
    """
    ids: list[int] = []
    positions: list[int] = []
    lines: list[list[int]] = []
    answers: list[tuple[int, int, int]] = []
    children: dict[tuple[int, int], int] = {}
    for row, sequence in enumerate(sequences):
        line: list[int] = []
        last = max(place for place, answer in enumerate(sequence.answer_mask) if answer)
        for place, token in enumerate(sequence.ids[: last + 1]):
            node = line[-1] if line else -1
            if place and sequence.answer_mask[place]:
                answers.append((node, token, row))
            if place < last:
                # The last token predicts nothing.
                child = children.setdefault((node, token), len(ids))
                if child == len(ids):
                    ids.append(token)
                    positions.append(place)
                line.append(child)
        lines.append(line)
    # Filled up to a round size, with tokens that nobody looks at: kernels are prepared for each size that occurs.
    fill = -len(ids) % ROUND
    ids += ids[:1] * fill
    positions += [0] * fill
    longest = max(len(line) for line in lines)
    predictors, targets, row_of = torch.tensor(answers).T.contiguous()
    return {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.tensor([[[line + [-1] * (longest - len(line)) for line in lines]]]),
        "position_ids": torch.tensor([positions]),
        "predictors": predictors,
        "targets": targets,
        "row": row_of,
    }


def use_packed_attention(model: Model) -> bool:
    """Give a model the attention that reads packed rows, and otherwise does what its own does; False if it can't.

    It can if transformers computes its attention by "sdpa", through its attention interface.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config.get_text_config()._attn_implementation == NAME:
        return True
    if model.config.get_text_config()._attn_implementation != "sdpa" or not model._can_set_attn_implementation():
        return False
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    model.set_attn_implementation(NAME)
    return True


def leave_packed_attention(model: Model) -> None:
    """Take back what `use_packed_attention` did."""
    model.set_attn_implementation("sdpa")


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    """Attention of a packed row: (1, heads, T, d) each; (1, T, heads, d). Any other mask is left to sdpa."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if attention_mask is None or attention_mask.dtype != torch.int64:
        own: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return own
    lines = attention_mask[0, 0]
    real = (lines.flatten() >= 0).nonzero()[:, 0]
    # A token that several sequences share comes out of each of them the same; one is taken.
    home = real.new_zeros(query.size(2)).scatter_(0, lines.flatten()[real], real)

    def laid_out(states: Tensor) -> Tensor:
        # On a CPU the kernel is several times slower in bfloat16, on the way back above all. Elsewhere rotation has
        # left queries and keys in float32 beside values in the type of autocast, which would cast them back.
        by_token = states[0].transpose(0, 1).to(torch.float32 if states.device.type == "cpu" else value.dtype)
        chosen = by_token.index_select(0, lines.flatten().clamp(min=0))
        return chosen.view(*lines.shape, *chosen.shape[1:]).transpose(1, 2)

    with torch.autocast(query.device.type, enabled=False):
        lined = sdpa_attention_forward(module, laid_out(query), laid_out(key), laid_out(value), None, **kwargs)[0]
    return lined.flatten(0, 1).index_select(0, home)[None].to(query.dtype), None
