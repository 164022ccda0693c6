"""RMU and its normal term: closed form, transcriptions of the formulas, limits and identities."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from letheon.objective import (
    RMU,
    AdaptiveRMU,
    Answers,
    ClusterMean,
    Counts,
    CrossEntropy,
    LogOddsHinge,
    Objective,
    ReferenceStates,
)
from letheon.objective.states import direction

TERMS: list[Any] = [RMU(0), RMU(0, steering=3.0, seed=4), AdaptiveRMU(0), ReferenceStates(0)]
SHAPES = [(1, 1), (1, 7), (5, 3), (13, 17)]


def made_up(n: int = 9, d: int = 5, dtype: torch.dtype = torch.float32) -> Answers:
    random = torch.Generator().manual_seed(31 * n + d)
    return Answers(
        logits=None,
        targets=torch.randint(11, (n,), generator=random),
        sequence=torch.arange(n) // 3,
        counts=torch.arange(n) % 4 != 1,
        states=(torch.randn(n, d, generator=random) * 2).to(dtype).requires_grad_(),
        reference_states=torch.randn(n, d, generator=random) * 2,
        reference_norm=1.7,
    )


def drawn(size: int, seed: int) -> list[float]:
    """u, written out."""
    values = torch.rand(size, generator=torch.Generator().manual_seed(seed)).double().tolist()
    length = math.sqrt(sum(value**2 for value in values))
    return [value / length for value in values]


def naive(term: Any, given: Answers) -> Tensor:
    """One token and one number at a time, in float64."""
    assert given.states is not None
    assert given.reference_states is not None
    assert given.reference_norm is not None
    size = given.states.size(1)
    losses = []
    for t in range(len(given.states)):
        total = torch.zeros((), dtype=torch.float64)
        for j in range(size):
            if isinstance(term, ReferenceStates):
                wanted = float(given.reference_states[t, j])
            else:
                c = term.scale * given.reference_norm if isinstance(term, AdaptiveRMU) else term.steering
                wanted = c * drawn(size, term.seed)[j]
            total = total + (given.states[t, j].double() - wanted) ** 2
        losses.append(total / size)
    return torch.stack(losses)


def mean_and_gradient(term: Any, given: Answers, counts: Counts | None = None) -> tuple[Tensor, Tensor]:
    assert given.states is not None
    loss = Objective(term, None, None)({"negative": given}, {"negative": counts} if counts else None)["negative"]
    return loss.detach(), torch.autograd.grad(loss, given.states)[0]


# -- closed form --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 4, 576])
def test_the_direction_is_a_unit_vector_of_its_seed(size: int) -> None:
    u = direction(size, 3)
    assert float(u.norm()) == pytest.approx(1, abs=1e-6)
    # Uniform on [0, 1) before it is normalised: no coordinate is negative.
    assert bool((u >= 0).all())
    torch.rand(3)
    assert torch.equal(u, direction(size, 3))
    assert size == 1 or not torch.equal(u, direction(size, 4))


def test_rmu_by_hand() -> None:
    # Of width 1, u = 1: (2 − 5)²/1.
    of_one = replace(made_up(1, 1), states=torch.tensor([[2.0]]))
    assert float(RMU(0, steering=5.0)(of_one)) == 9.0
    # From the origin the distance is c² whatever u is, and its mean over the width c²/d.
    origin = replace(made_up(2, 8), states=torch.zeros(2, 8))
    assert RMU(0, steering=4.0)(origin).tolist() == pytest.approx([2.0, 2.0])
    there = replace(origin, states=4.0 * direction(8, 0).expand(2, 8))
    assert RMU(0, steering=4.0)(there).tolist() == [0.0, 0.0]


def test_adaptive_rmu_steers_as_far_as_states_were_long() -> None:
    origin = replace(made_up(1, 8), states=torch.zeros(1, 8), reference_norm=0.5)
    assert float(AdaptiveRMU(0, scale=4.0)(origin)) == pytest.approx(2.0**2 / 8)


def test_reference_states_by_hand() -> None:
    given = replace(made_up(1, 2), states=torch.tensor([[1.0, 2.0]]), reference_states=torch.tensor([[4.0, 2.0]]))
    assert ReferenceStates(0)(given).tolist() == [4.5]


# -- against the formulas, with gradients -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("term", TERMS, ids=str)
def test_value_and_gradient(term: Any, shape: tuple[int, int], dtype: torch.dtype) -> None:
    given = made_up(*shape, dtype)
    assert given.states is not None
    found, wanted = term(given), naive(term, given)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    # Uneven weights, so that a loss in the wrong place is seen.
    uneven = torch.arange(1.0, len(found) + 1)
    (gradient,) = torch.autograd.grad((found * uneven).sum(), given.states)
    (expected,) = torch.autograd.grad((wanted * uneven).sum(), given.states)
    rough = dtype == torch.bfloat16
    torch.testing.assert_close(gradient, expected, rtol=2e-2 if rough else 1e-4, atol=1e-3 if rough else 1e-5)


# -- limits and identities ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("term", TERMS, ids=str)
def test_tokens_that_do_not_count_have_no_gradient_and_no_say(term: Any) -> None:
    given = made_up()
    assert given.states is not None
    loss, gradient = mean_and_gradient(term, given)
    assert not gradient[~given.counts].any()
    assert bool(gradient[given.counts].abs().sum(dim=1).gt(0).all())
    wild = given.states.detach().clone()
    wild[~given.counts] = 77.0
    assert float(mean_and_gradient(term, replace(given, states=wild.requires_grad_()))[0]) == float(loss)


@pytest.mark.parametrize("term", TERMS, ids=str)
def test_loss_of_a_batch_is_the_sum_of_its_sequences_over_the_same_counts(term: Any) -> None:
    given = made_up()
    assert given.states is not None
    assert given.reference_states is not None
    counts = Counts(tokens=float(given.counts.sum()), sequences=3)
    whole, gradient = mean_and_gradient(term, given)
    loss, pieces = torch.zeros(()), torch.zeros_like(gradient)
    for number in range(3):
        rows = given.sequence == number
        piece = replace(
            given,
            targets=given.targets[rows],
            sequence=torch.zeros(int(rows.sum()), dtype=torch.long),
            counts=given.counts[rows],
            states=given.states.detach()[rows].requires_grad_(),
            reference_states=given.reference_states[rows],
        )
        part, pieces[rows] = mean_and_gradient(term, piece, counts)
        loss += part
    assert float(loss) == pytest.approx(float(whole), rel=1e-5)
    torch.testing.assert_close(pieces, gradient)


def test_states_that_have_not_moved_are_kept_at_no_cost() -> None:
    given = made_up()
    assert given.reference_states is not None
    same = replace(given, states=given.reference_states.clone().requires_grad_())
    loss, gradient = mean_and_gradient(ReferenceStates(0), same)
    assert float(loss) == 0.0
    assert not gradient.any()


def test_adaptive_rmu_is_rmu_of_that_length() -> None:
    given = made_up()
    adaptive = mean_and_gradient(AdaptiveRMU(0, scale=3.0, seed=2), given)
    fixed = mean_and_gradient(RMU(0, steering=3.0 * 1.7, seed=2), given)
    assert float(adaptive[0]) == float(fixed[0])
    assert torch.equal(adaptive[1], fixed[1])


def test_without_a_direction_rmu_only_shrinks_states() -> None:
    """As c → 0 its gradient tends to that of ‖h‖²/d."""
    given = made_up()
    assert given.states is not None
    _, gradient = mean_and_gradient(RMU(0, steering=1e-6), given)
    counted = given.counts[:, None] * given.states.detach()
    torch.testing.assert_close(gradient, 2 * counted / 5 / given.counts.sum(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 1e-3, 0.0])
def test_as_alpha_goes_to_zero_rmu_is_left_alone(alpha: float) -> None:
    """One state, read by both parts: the pull back to where it was is α times as strong."""
    given = made_up()
    objective = Objective(RMU(0), None, ReferenceStates(0), weights=(1.0, 0.0, alpha))
    parts = objective({"negative": given, "normal": given})
    total = objective.total(parts, {"negative": 1.0, "positive": 0.0, "normal": alpha})
    (gradient,) = torch.autograd.grad(total, given.states)
    (free, back) = (mean_and_gradient(term, given)[1] for term in (RMU(0), ReferenceStates(0)))
    torch.testing.assert_close(gradient, free + alpha * back)
    assert (alpha == 0) == torch.equal(gradient, free)


# -- what the objective asks for ----------------------------------------------------------------------------------


def test_an_objective_knows_what_it_reads() -> None:
    alone = Objective(RMU(3), None, ReferenceStates(3))
    assert (alone.layer, alone.reads_logits) == (3, False)
    assert alone.needs("normal") == {"states", "reference_states"}
    assert alone.reads_states("negative")
    assert not alone.reads_states("positive")
    assert Objective(RMU(3), None, None).reads_logits is False
    assert Objective(AdaptiveRMU(3), None, CrossEntropy()).reads_logits
    assert Objective(RMU(3), ClusterMean(), ReferenceStates(3)).reads_logits
    assert (Objective().layer, Objective().reads_logits) == (None, True)
    assert Objective(LogOddsHinge(), None, ReferenceStates(2)).layer == 2


def test_terms_read_one_layer() -> None:
    with pytest.raises(ValueError, match=r"states of layers \[2, 3\]: let all of them read one"):
        Objective(RMU(3), None, ReferenceStates(2))
