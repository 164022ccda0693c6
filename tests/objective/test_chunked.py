"""Logits a chunk at a time: every term has the value and the gradients that it has on all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from letheon.objective import (
    MASC,
    NLUL,
    NPO,
    UNDIAL,
    WGA,
    Answers,
    BaseOdds,
    ChunkedLogits,
    ClusterMean,
    CrossEntropy,
    GradientAscent,
    InvertedHinge,
    LogitFlattening,
    LogOddsHinge,
    MaxEntropy,
    ReferenceJS,
    ReferenceKL,
    SatImp,
    Term,
)

TERMS = [
    LogOddsHinge(),
    MASC(),
    InvertedHinge(),
    NLUL(),
    NPO(),
    WGA(),
    SatImp(),
    UNDIAL(),
    MaxEntropy(),
    LogitFlattening(),
    GradientAscent(),
    ClusterMean(),
    CrossEntropy(),
    ReferenceKL(),
    BaseOdds(),
    ReferenceJS(),
]
N, D, V = 11, 6, 17


@pytest.fixture
def made() -> tuple[torch.Tensor, torch.nn.Linear, Callable[[Any], Answers]]:
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(N, D, generator=draw, requires_grad=True)
    head = torch.nn.Linear(D, V, bias=False)
    torch.nn.init.normal_(head.weight, generator=draw)
    top = torch.randn(N, V, generator=draw).log_softmax(dim=1).topk(4, dim=1)

    def answers(logits: Any) -> Answers:
        return Answers(
            logits=logits,
            targets=torch.arange(N) % V,
            sequence=torch.arange(N) // 4,
            counts=torch.arange(N) % 5 > 0,
            reference_log_prob=torch.full((N,), -2.0),
            reference_top_ids=top.indices,
            reference_top_log_probs=top.values,
        )

    return states, head, answers


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
@pytest.mark.parametrize("chunk", [1, 4, 11, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equals_all_at_once(made: Any, term: Term, chunk: int, dtype: torch.dtype) -> None:
    states, head, answers = made
    found = []
    for logits in (head(states).to(dtype), ChunkedLogits(states, lambda rows: head(rows).to(dtype), chunk)):
        losses = term(answers(logits))
        found.append((losses.detach(), *torch.autograd.grad(losses.sum(), (states, head.weight))))
    for one, other in zip(*found, strict=True):
        # bfloat16 gradients of a weight are rounded once a chunk.
        torch.testing.assert_close(one, other, **({} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}))


@pytest.mark.parametrize("term", TERMS, ids=lambda term: type(term).__name__)
def test_the_square_norm_is_that_of_all_logits(made: Any, term: Term) -> None:
    states, head, answers = made
    logits = head(states)
    (gradient,) = torch.autograd.grad(term(answers(logits)).sum(), logits)
    chunked = ChunkedLogits(states, head, 4)
    loss = term(answers(chunked)).sum()
    for _ in range(2):
        assert chunked.square_norm(loss) == pytest.approx(float(gradient.square().sum()), rel=1e-5)
    # The way back is still there.
    loss.backward()
    assert states.grad is not None


def test_no_more_than_a_chunk_at_once(made: Any) -> None:
    states, head, answers = made
    rows = []

    def counted(some: torch.Tensor) -> torch.Tensor:
        rows.append(len(some))
        return head(some)

    given = answers(ChunkedLogits(states, counted, 4))
    CrossEntropy()(given).sum().backward()
    # Forward, and again on the way back.
    assert rows == [4, 4, 3] + [3, 4, 4]


def test_parts_have_their_own_rows(made: Any) -> None:
    states, head, answers = made
    whole = answers(head(states))
    first, second = ChunkedLogits(states, head, 2).split([3, N - 3])
    one = replace(whole, logits=first, targets=whole.targets[:3]).log_probs()
    other = replace(whole, logits=second, targets=whole.targets[3:]).log_probs()
    torch.testing.assert_close(torch.cat([one, other]), whole.log_probs())
