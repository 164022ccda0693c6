"""A step of unlearning as today's tools take it, written without any of Letheon's training code.

A deep copy of the model is the reference; forget and retain batches are padded and go through the model apart; logits
of every position are computed, in float32. This is what `benchmarks/steps.py` holds Letheon's step against.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid

IGNORED = -100


def padded(rows: Sequence[tuple[list[int], list[bool]]], pad: int) -> dict[str, Tensor]:
    """Pad token ids and their marks (which tokens are answers) on the right."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), length), pad)
    labels = torch.full((len(rows), length), IGNORED)
    mask = torch.zeros(len(rows), length, dtype=torch.long)
    for number, (tokens, answers) in enumerate(rows):
        ids[number, : len(tokens)] = torch.tensor(tokens)
        mask[number, : len(tokens)] = 1
        labels[number, : len(tokens)] = torch.tensor(
            [t if a else IGNORED for t, a in zip(tokens, answers, strict=True)]
        )
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def token_losses(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """(S, T − 1) cross-entropy of each token, 0 where it is no answer."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.float()
    return cross_entropy(
        logits[:, :-1].transpose(1, 2), batch["labels"][:, 1:], ignore_index=IGNORED, reduction="none"
    )


def mean_loss(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of all answer tokens."""
    return token_losses(model, batch).sum() / (batch["labels"][:, 1:] != IGNORED).sum()


def states_of(model: Any, batch: dict[str, Tensor], layer: int) -> Tensor:
    """(S, T, d) what comes out of a layer, by a forward through the whole model."""
    output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    states: Tensor = output.hidden_states[layer + 1]
    return states


def mean_square(states: Tensor, wanted: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Mean over the width and over answer tokens, then over sequences."""
    answers = batch["labels"] != IGNORED
    squares = (states - wanted).square().mean(dim=2) * answers
    return (squares.sum(dim=1) / answers.sum(dim=1)).mean()


class Plain:
    """Steps of one method.

    Args:
        model: The model; it is trained.
        method: "fine-tune", "graddiff", "npo", "simnpo", "dpo" or "rmu".
        rate: Learning rate of AdamW.
        layer: The layer whose states RMU reads, from 0.
    """

    def __init__(self, model: Any, method: str, rate: float, layer: int = 7):
        self.model, self.method = model.train(), method
        self.beta = 2.5 if method == "simnpo" else 0.1
        self.layer = layer
        drawn = torch.rand(model.config.hidden_size, generator=torch.Generator().manual_seed(0))
        self.target = (20 * drawn / drawn.norm()).to(next(model.parameters()).device)
        referred = method in {"npo", "dpo", "rmu"}
        self.reference = copy.deepcopy(model).eval().requires_grad_(False) if referred else None
        self.optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)

    def step(
        self, forget: dict[str, Tensor], retain: dict[str, Tensor], expected: dict[str, Tensor] | None = None
    ) -> float:
        """One step; the loss. DPO also takes an expected answer for each to forget."""
        loss = self._rmu(forget, retain) if self.method == "rmu" else mean_loss(self.model, retain)
        if self.method == "graddiff":
            loss = loss - mean_loss(self.model, forget)
        elif self.method == "npo":
            loss = loss - 2 / self.beta * logsigmoid(-self.beta * self._ratio(forget)).mean()
        elif self.method == "simnpo":
            length = (forget["labels"][:, 1:] != IGNORED).sum(dim=1)
            mean = token_losses(self.model, forget).sum(dim=1) / length
            loss = loss - 2 / self.beta * logsigmoid(self.beta * mean).mean()
        elif self.method == "dpo":
            assert expected is not None
            gain = self._ratio(expected) - self._ratio(forget)
            loss = loss - 2 / self.beta * logsigmoid(self.beta * gain).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()
        return float(loss.detach())

    def _rmu(self, forget: dict[str, Tensor], retain: dict[str, Tensor]) -> Tensor:
        """Misdirect the states of what is to be forgotten; 1200 times hold the others where they were."""
        assert self.reference is not None
        with torch.no_grad():
            before = states_of(self.reference, retain, self.layer)
        forgotten = mean_square(states_of(self.model, forget, self.layer), self.target, forget)
        return forgotten + 1200 * mean_square(states_of(self.model, retain, self.layer), before, retain)

    def _ratio(self, batch: dict[str, Tensor]) -> Tensor:
        """(S,) log π_θ/π_θ₀ of the answers."""
        assert self.reference is not None
        with torch.no_grad():
            before = token_losses(self.reference, batch).sum(dim=1)
        return before - token_losses(self.model, batch).sum(dim=1)
