"""What θ₀ said: right, once for each sequence, and under θ₀ even where it is asked for later."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from letheon.chat import Encoded
from letheon.forward import can_pack
from letheon.records import Dialogue, Message
from letheon.store import Store, digest
from letheon.train import UnlearnConfig, UnlearnTrainer
from letheon.train.contrast import Moments
from letheon.train.reference import ReferenceCache, informative, open_cache

SEQUENCES = [
    Encoded([5, 6, 7, 8, 9], [False, False, True, True, True]),
    Encoded([5, 6, 7], [False, False, True]),
    Encoded([10, 11, 12, 13], [False, True, False, True]),
]


def new_cache(**changes: Any) -> ReferenceCache:
    return ReferenceCache(Store(), None, **{"top_k": 5, "pad_token_id": 0, "batch_size": 2, **changes})


def passes(model: Any) -> list[int]:
    """Grows by the number of a forward's tokens at each pass."""
    found: list[int] = []
    model.get_decoder().register_forward_hook(lambda *given: found.append(given[2][0].size(1)))
    return found


def test_equals_a_plain_softmax(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    for sequence, known in zip(SEQUENCES, new_cache()(model, SEQUENCES), strict=True):
        with torch.no_grad():
            whole = model(torch.tensor([sequence.ids])).logits[0].log_softmax(dim=1)
        at = [place - 1 for place, answer in enumerate(sequence.answer_mask) if answer]
        tokens = torch.tensor([sequence.ids[place + 1] for place in at])
        torch.testing.assert_close(known.log_prob, whole[at].gather(1, tokens[:, None])[:, 0])
        top = whole[at].topk(5, dim=1)
        torch.testing.assert_close(known.top_log_probs, top.values)
        assert known.top_ids.tolist() == top.indices.tolist()
        assert known.counts.all()


def test_dropout_rests(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model(attention_dropout=0.5)
    at_rest, training = new_cache()(model, SEQUENCES), new_cache()(model.train(), SEQUENCES)
    assert all(torch.equal(one.log_prob, other.log_prob) for one, other in zip(at_rest, training, strict=True))
    assert model.training


def test_informative_tokens_are_those_that_the_prompt_makes_twice_as_likely() -> None:
    blind = torch.full((4,), -3.0)
    gained = torch.tensor([0.69, 0.7, -2.0, 2.0])
    assert informative(blind + gained, blind).tolist() == [False, True, False, True]
    # No answer is left out.
    assert informative(blind, blind).all()


def test_a_sequence_is_run_once(tiny_model: Callable[..., Any]) -> None:
    model, cache = tiny_model(), new_cache()
    assert can_pack(model)
    ran = passes(model)
    first = cache(model, SEQUENCES[:2])
    assert len(ran) == 1
    assert torch.equal(cache(model, [SEQUENCES[1]])[0].log_prob, first[1].log_prob)
    assert len(ran) == 1
    cache(model, SEQUENCES)
    assert len(ran) == 2
    # Of all of them the moments are asked for.
    cache(model, SEQUENCES, Moments({"x": model.model.layers[0].mlp}))
    assert len(ran) == 4


@pytest.fixture
def many() -> list[Dialogue]:
    said = [(f"What is {n}?", f"It is {n * 7}") for n in range(60)]
    return [
        Dialogue(
            id=question,
            messages=(Message(role="user", content=question), Message(role="assistant", content=answer)),
        )
        for question, answer in said
    ]


@pytest.mark.parametrize("stop_rule", [False, True])
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_normal_dialogues_are_scored_when_their_turn_comes(
    make_trainer: Callable[..., UnlearnTrainer],
    memorised: Callable[[], Any],
    lora: Callable[[], Any],
    many: list[Dialogue],
    tuning: str,
    stop_rule: bool,
) -> None:
    trainer = make_trainer(
        normal_dataset=many,
        peft_config=lora() if tuning == "lora" else None,
        adapter_init="random",
        directions=0,
        max_steps=5,
        learning_rate=1e-2,
        stop_rule=stop_rule,
        stop_every=2,
        stop_probability=1e-30,
        stop_extraction=1e-9,
        stop_normal_budget=1e9,
        stop_kl_budget=1e9,
    )
    trainer.train()
    # Two steps an epoch, each with eight normal dialogues: in three epochs at most 48 of 60.
    known = trainer._collator.reference["normal"]
    dealt = [trainer.train_dataset.dealt(epoch) for epoch in range(3)]
    assert known.keys() == set().union(*dealt)
    assert dealt[2] - dealt[0] - dealt[1]
    before = new_cache(top_k=64)(memorised(), [trainer.train_dataset.normal[number] for number in known])
    for own, right in zip(known.values(), before, strict=True):
        torch.testing.assert_close(own.log_prob, right.log_prob, rtol=1e-4, atol=1e-4)


def test_a_kept_cache_is_read_by_the_next_run_on_the_same_model(
    make_trainer: Callable[..., UnlearnTrainer], lora: Callable[[], Any], tmp_path: Path
) -> None:
    given = {"adapter_init": "random", "max_steps": 2, "keep_cache": True, "cache_dir": str(tmp_path / "cache")}
    weights = []
    for run in ("first", "second", "without"):
        if run == "without":
            given["keep_cache"] = False
        trainer = make_trainer(run, peft_config=lora(), **given)
        ran = passes(trainer.model.get_base_model())
        trainer.train()
        # Two steps of training and, before them, θ₀ on the normal dialogues.
        assert len(ran) == (2 if run == "second" else 3)
        weights.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
        assert bool(list((tmp_path / "cache").glob("*"))) == (run != "without")
    for other in weights[1:]:
        assert all(torch.equal(other[name], value) for name, value in weights[0].items())


@pytest.mark.parametrize("other", [{"top_k": 3}, {"bf16": True}])
def test_a_kept_cache_of_other_settings_is_not_read(
    tiny_model: Callable[..., Any], tmp_path: Path, other: dict[str, Any]
) -> None:
    alone: Any = SimpleNamespace(num_processes=1, autocast=nullcontext)
    known = f"{digest(SEQUENCES[0])}.log_prob"

    def opened(**settings: Any) -> ReferenceCache:
        kept = {"keep_cache": True, "cache_dir": str(tmp_path / "cache"), "bf16": False, **settings}
        return open_cache(tiny_model(), UnlearnConfig(output_dir=str(tmp_path), **kept), alone, 0)

    opened()(tiny_model(), SEQUENCES)
    assert known in opened().store
    assert known not in opened(**other).store
