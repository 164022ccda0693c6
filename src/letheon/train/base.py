"""What the base said: the model before it learnt what is to be forgotten, asked once and let go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from letheon.chat import encode_turn
from letheon.evaluate.memorisation import probability
from letheon.evaluate.teacher_forced import score_sequences
from letheon.models import Model, Tokenizer, fast_bf16, in_eval_mode
from letheon.records import Turn

ABOVE_PROBABILITY, ABOVE_EXTRACTION = 0.005, 0.02
"""How far above the base's the old answers' probability and extraction strength may stay."""


@dataclass(frozen=True)
class BaseSaid:
    """What the base said of old answers that it never saw.

    Attributes:
        log_probs: Of the tokens (n,) of each turn to forget, in their order.
        probability: Mean over the probe of the old answers' exp(mean log p).
        extraction_strength: Mean over the probe.
    """

    log_probs: tuple[Tensor, ...]
    probability: float
    extraction_strength: float

    def limits(self) -> tuple[float, float]:
        """At which probability and extraction strength on the probe it is enough."""
        return self.probability + ABOVE_PROBABILITY, self.extraction_strength + ABOVE_EXTRACTION


def ask_base(
    base: Model,
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    probe: Sequence[Turn] = (),
    *,
    max_length: int | None = None,
) -> BaseSaid:
    """Ask the base about old answers.

    Args:
        base: The model before it learnt them, with the same vocabulary.
        tokenizer: The tokenizer of the model that unlearns.
        turns: What is to be forgotten.
        probe: What the stop rule looks at; none: `turns`.
        max_length: Most tokens of a sequence.
    """
    old, probed = ([encode_turn(tokenizer, turn, max_length) for turn in which] for which in (turns, probe or turns))
    with in_eval_mode(base), torch.autocast(base.device.type, torch.bfloat16, enabled=fast_bf16()):
        known, scores = score_sequences(base, old), score_sequences(base, probed)
    return BaseSaid(
        tuple(one.log_probs for one in known),
        sum(probability(one.log_probs) for one in scores) / len(scores),
        sum(one.extraction_strength for one in scores) / len(scores),
    )
