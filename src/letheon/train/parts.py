"""A batch's answers, split by part of the objective, and what a step adds up over its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from letheon.objective import GROUPS, PARTS, Answers, ChunkedLogits, Group, Objective, Part


def answers_by_part(
    objective: Objective,
    batch: Mapping[str, Tensor],
    logits: Tensor | ChunkedLogits | None,
    states: Tensor | None,
    norm: float | None = None,
) -> dict[Group, Answers]:
    """The answers of each part that occurs.

    Args:
        objective: Says which part needs what.
        batch: What the collator returns; it has put the tokens of a part together.
        logits: Of all answer tokens, where a term reads them.
        states: Of all answer tokens, where a term reads them.
        norm: The mean length of the states of old answers under θ₀, for a term that needs it.
    """
    part_of_token = batch["part"][batch["row"]]
    sizes = [int((part_of_token == number).sum()) for number in range(len(GROUPS))]
    # Slices: to choose tokens by a mask costs more on the way back than all the losses.
    split = {key: torch.split(batch[key], sizes) for key in ("targets", "row", "counts", "reference_log_prob")}
    split_logits, split_states = _split(logits, sizes), _split(states, sizes)
    # As the collator has them: of parts that need them.
    top_sizes = [n if reads_tops(objective, part) else 0 for part, n in zip(GROUPS, sizes, strict=True)]
    tops = {key: _split(batch.get(key), top_sizes) for key in ("reference_top_ids", "reference_top_log_probs")}
    kept = [n if "reference_states" in objective.needs(p) else 0 for p, n in zip(GROUPS, sizes, strict=True)]
    split_reference = _split(batch.get("reference_states"), kept)
    found: dict[Group, Answers] = {}
    for number, part in enumerate(GROUPS):
        if not sizes[number]:
            continue
        reads_states = objective.reads_states(part)
        found[part] = Answers(
            logits=None if reads_states else split_logits[number],
            targets=split["targets"][number],
            sequence=torch.unique_consecutive(split["row"][number], return_inverse=True)[1],
            counts=split["counts"][number],
            reference_log_prob=split["reference_log_prob"][number],
            **{key: values[number] if top_sizes[number] else None for key, values in tops.items()},
            states=split_states[number] if reads_states else None,
            reference_states=split_reference[number],
            reference_norm=norm,
        )
    return found


def reads_tops(objective: Objective, part: Group) -> bool:
    """Whether the term of a part reads the likeliest tokens of θ₀."""
    return "reference_top" in objective.needs(part)


def _split(values: Tensor | ChunkedLogits | None, sizes: list[int]) -> Sequence[Any]:
    """The rows of each part, where there are any."""
    return [None] * len(sizes) if values is None else values.split(sizes)


class StepSums:
    """What one optimizer step adds up over its micro-batches.

    Attributes:
        losses: By part.
        normal_square: ‖∇_z L_nor‖².
        negative_square: ‖∇_z L_neg‖².
        normal_loss: Summed cross-entropy of normal answers.
        normal_reference: The same under θ₀.
        normal_tokens: Their number.
    """

    def __init__(self) -> None:
        self.losses: dict[str, float] = {}
        self.normal_square = self.negative_square = 0.0
        self.normal_loss = self.normal_reference = 0.0
        self.normal_tokens = 0.0

    def add(self, parts: Mapping[Part, Tensor], batch: Mapping[Group, Answers], *, balance: bool) -> None:
        """Add a micro-batch.

        Args:
            parts: Its losses.
            batch: Its answers.
            balance: Whether the norms are wanted.
        """
        for part, loss in parts.items():
            self.losses[part] = self.losses.get(part, 0.0) + float(loss.detach())
        if "normal" in batch and batch["normal"].logits is not None:
            answers = batch["normal"]
            assert answers.reference_log_prob is not None
            with torch.no_grad():
                self.normal_loss -= float(answers.log_probs().sum())
            self.normal_reference -= float(answers.reference_log_prob.sum())
            self.normal_tokens += len(answers.targets)
        if balance and "negative" in parts and "normal" in parts:
            self.normal_square += _square_norm(parts["normal"], batch["normal"].logits)
            self.negative_square += _square_norm(parts["negative"], batch["negative"].logits)

    def average(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Take the mean over processes, so that all adapt alike and none stops alone.

        Args:
            mean: Of a vector, over the processes.
        """
        fields = ("normal_square", "negative_square", "normal_loss", "normal_reference", "normal_tokens")
        own = [self.losses.get(part, 0.0) for part in PARTS] + [getattr(self, name) for name in fields]
        known = mean(torch.tensor(own)).tolist()
        losses = dict(zip(PARTS, known, strict=False))
        self.losses = {part: loss for part, loss in losses.items() if part in self.losses or loss}
        vars(self).update(zip(fields, known[len(PARTS) :], strict=True))


def _square_norm(loss: Tensor, logits: Tensor | ChunkedLogits | None) -> float:
    assert logits is not None
    if isinstance(logits, ChunkedLogits):
        return logits.square_norm(loss)
    (gradient,) = torch.autograd.grad(loss, logits, retain_graph=True)
    return float(gradient.float().pow(2).sum())
