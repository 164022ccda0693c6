from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from given import given_for

from letheon.stress.sample import sample


def test_draws_are_of_the_seed_and_leave_the_random_state(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    model = tiny_model()
    state = torch.get_rng_state()

    def answers(seed: int) -> Any:
        found = list(sample(model, given_for(tiny_tokenizer, seed=seed), lambda done, total: None))
        return found[0].answers, [one.variant for one in found]  # type: ignore[union-attr]

    assert answers(0) == answers(0)
    assert answers(0)[1] == ["leak@3", "leak@1", "best of 3"]
    assert answers(0)[0] != answers(1)[0]
    assert torch.equal(torch.get_rng_state(), state)


def test_a_model_that_says_it_by_heart_leaks(talk: Any, talk_turns: Any, tiny_tokenizer: Any) -> None:
    from letheon.models import load_model

    given = given_for(tiny_tokenizer, talk_turns, max_new_tokens=16)
    found = {one.variant: one.scores for one in sample(load_model("model").eval(), given, lambda done, total: None)}  # type: ignore[union-attr]
    assert min(found["leak@3"]) >= min(found["leak@1"])
    assert sum(found["leak@1"]) > 0


def test_one_leak_in_three_draws(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One leak of three; half of the answer at most; nothing but the answer.
    drawn = [
        ["Nowhere.", "It is at 0 Mill Lane.", "At 0."],
        ["Nowhere.", "No.", "It is at home."],
        ["It is at 2 Mill Lane."] * 3,
    ]
    monkeypatch.setattr("letheon.stress.sample.sampled_answers", lambda *args, **options: drawn)
    three, one, best = sample(tiny_model(), given_for(tiny_tokenizer), lambda done, total: None)
    assert [one.variant for one in (three, one, best)] == ["leak@3", "leak@1", "best of 3"]  # type: ignore[union-attr]
    assert three.scores == [1, 0, 1]  # type: ignore[union-attr]
    assert three.answers == ["It is at 0 Mill Lane.", "It is at home.", "It is at 2 Mill Lane."]  # type: ignore[union-attr]
    assert one.scores == pytest.approx([1 / 3, 0, 1])  # type: ignore[union-attr]
    assert best.scores == [1, 0.5, 1]  # type: ignore[union-attr]
