from __future__ import annotations

import math

import pytest
import torch

from letheon.evaluate.memorisation import (
    content_of,
    exact_memorization,
    extraction_strength,
    extraction_strength_published,
    probability,
)


def matches(pattern: str) -> torch.Tensor:
    return torch.tensor([c == "1" for c in pattern])


def test_probability_is_the_geometric_mean() -> None:
    assert probability(torch.tensor([0.5, 0.125]).log()) == pytest.approx(0.25)
    assert probability(torch.zeros(3)) == 1
    assert probability(torch.full((4,), -math.inf)) == 0


@pytest.mark.parametrize(
    ("pattern", "exact", "strength", "published"),
    [
        ("1111", 1, 1, 1),
        ("0000", 0, 0, 0.25),
        ("1110", 0.75, 0, 0.25),
        ("0001", 0.25, 0.25, 0.25),
        ("1011", 0.75, 0.5, 0.5),
        ("0111", 0.75, 0.75, 0.75),
        ("1", 1, 1, 1),
        ("0", 0, 0, 1),
    ],
)
def test_matches(pattern: str, exact: float, strength: float, published: float) -> None:
    assert exact_memorization(matches(pattern)) == exact
    assert extraction_strength(matches(pattern)) == strength
    assert extraction_strength_published(matches(pattern)) == published


def published_loop(found: torch.Tensor) -> float:
    """The published algorithm, step by step."""
    k = 0
    for k in range(len(found)):  # noqa: B007
        if bool(found[k:].all()):
            break
    return 1 - k / len(found)


def test_both_strengths_against_the_published_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        length = int(torch.randint(1, 9, (), generator=generator))
        found = torch.rand(length, generator=generator) < 0.6
        assert extraction_strength_published(found) == pytest.approx(published_loop(found))
        corrected = published_loop(found) if found[-1] else 0
        assert extraction_strength(found) == pytest.approx(corrected)


def test_the_token_that_ends_a_turn_is_no_content() -> None:
    assert content_of(torch.tensor([True, False, True])).tolist() == [True, False]
    # Where nothing ends turns, an answer of one token is that token.
    assert extraction_strength(content_of(torch.tensor([True]))) == 1
