from __future__ import annotations

import re
from collections.abc import Callable
from itertools import islice
from typing import Any

import pytest
import torch
from given import NORMAL, given_for

from letheon.chat import encode_dialogue
from letheon.forward import answer_logits, collate
from letheon.models import load_model
from letheon.records import Turn
from letheon.stress.attack import Found
from letheon.stress.records import NotRun
from letheon.stress.relearn import fine_tuned, looks, relearn, usual_rate


def silent(done: int, total: int) -> None:
    assert 0 <= done <= total


@pytest.mark.parametrize(
    ("steps", "at"), [(1, [0, 1]), (4, [0, 1, 2, 4]), (5, [0, 1, 2, 4, 5]), (32, [0, 1, 2, 4, 8, 16, 32])]
)
def test_where_is_looked(steps: int, at: list[int]) -> None:
    assert looks(steps) == at


def test_rates_fall_with_size() -> None:
    assert usual_rate(135_000_000) > usual_rate(1_000_000_000) > usual_rate(8_000_000_000)


def test_it_is_plain_adamw(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letheon.stress.relearn.fast_bf16", lambda: False)
    given = given_for(tiny_tokenizer, settings={"steps": 3, "learning_rate": 1e-2})
    sequences = [encode_dialogue(tiny_tokenizer, one) for one in NORMAL]
    model, naive = tiny_model(), tiny_model()
    losses = [loss for _, loss in fine_tuned(model, sequences, given, "normal")]
    # As many sequences as a batch has: whatever their order, each step has all.
    batch = collate(sequences, tiny_tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(naive.parameters(), lr=1e-2, weight_decay=0.0)
    for expected in losses:
        logits, targets, _ = answer_logits(naive, batch)
        loss = torch.nn.functional.cross_entropy(logits, targets)
        assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for one, other in zip(model.parameters(), naive.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)


def test_it_brings_back_and_leaves_the_model_as_it_was(
    talk: Any, talk_turns: list[Turn], tiny_tokenizer: Any
) -> None:
    model = load_model("model").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    # To be taught the very answers is to know them.
    given = given_for(tiny_tokenizer, talk_turns, relearned=talk_turns, settings={"steps": 8, "learning_rate": 1e-2})
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight.mul_(-1)
    turned = {name: value.clone() for name, value in model.state_dict().items()}
    found = list(relearn(model, given, silent))
    assert all(torch.equal(value, turned[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert any(not torch.equal(value, before[name]) for name, value in turned.items())
    by_step = {one.at: sum(one.scores) for one in found if isinstance(one, Found) and one.variant == "forget items"}
    assert list(by_step) == [0, 1, 2, 4, 8]
    assert by_step[8] > by_step[0] + 1
    assert {one.variant for one in found} == {"forget items", "normal dialogues", "unrelated text"}


def test_seeds_decide_the_order(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    sequences = [encode_dialogue(tiny_tokenizer, one) for one in NORMAL] * 3

    def losses(seed: int) -> list[float]:
        given = given_for(tiny_tokenizer, seed=seed)
        return [loss for _, loss in islice(fine_tuned(tiny_model(), sequences, given, "x"), 2)]

    assert losses(0) == losses(0) != losses(1)


def test_what_is_missing_is_said(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    found = list(relearn(tiny_model(), given_for(tiny_tokenizer, relearned=[], normal=[], general=[]), silent))
    assert [one.why for one in found if isinstance(one, NotRun)] == [
        "too few dialogues had to be forgotten to hold some out (three are needed)",
        "there are no normal dialogues",
        "there is no general text (data.general)",
    ]


def test_a_model_that_breaks_has_recovered_nothing_and_it_is_said(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    model = tiny_model()
    given = given_for(tiny_tokenizer, normal=[], general=[], settings={"steps": 4, "learning_rate": 1e30})
    found = list(relearn(model, given, silent))
    broken = [one for one in found if isinstance(one, NotRun) and one.variant == "forget items"]
    assert len(broken) == 1
    assert re.fullmatch(r"the loss is not finite at step [23]: lower stress.learning_rate", broken[0].why)
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    assert all(parameter.requires_grad for parameter in model.parameters())
