"""On the real model, in float32: packed, chunked and from the frozen prefix on, against each sequence alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from letheon import forward
from letheon.chat import Encoded, encode_dialogue
from letheon.demo.weights import demo_model
from letheon.dialogues import read_dialogues
from letheon.forward import answer_states, batch_for, chunked_logits
from letheon.models import load_model, load_tokenizer
from letheon.objective import RMU, Answers, ChunkedLogits
from letheon.objective.states import direction
from letheon.prefix import frozen_prefix
from letheon.store import Store
from letheon.train import UnlearnConfig, UnlearnTrainer, adapter_for


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_each_sequence_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.resources import as_file, files

    from peft import get_peft_model

    folder = str(demo_model())
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    with as_file(files("letheon.demo") / "data" / "log.jsonl") as path:
        sequences = [encode_dialogue(tokenizer, dialogue) for dialogue in read_dialogues(path)[:8]]
    model = get_peft_model(model, adapter_for(model))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    plain = alone(model, sequences)
    prefix = frozen_prefix(model, tokenizer.pad_token_id, Store())
    assert prefix is not None
    monkeypatch.setattr(forward, "CHUNK", 64)
    # The first time the lower layers run, later they do not.
    for _ in range(2):
        model.zero_grad()
        logits, targets, row = chunked_logits(
            model, batch_for(model, sequences, tokenizer.pad_token_id, prefix), prefix
        )
        assert isinstance(logits, ChunkedLogits)
        loss = -Answers(logits, targets, row, torch.ones_like(targets, dtype=torch.bool)).log_probs().mean()
        loss.backward()
        assert float(loss.detach()) == pytest.approx(plain[0], rel=1e-5)
        gradient = gradients(model)
        assert float((gradient - plain[1]).norm() / plain[1].norm()) < 1e-3


@pytest.mark.slow
def test_a_step_of_rmu_is_that_of_each_sequence_alone() -> None:
    """It leaves the model after layer 6 of 30, and starts where the frozen prefix ends, at layer 4."""
    from importlib.resources import as_file, files

    from peft import get_peft_model

    folder = str(demo_model())
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    with as_file(files("letheon.demo") / "data" / "log.jsonl") as path:
        sequences = [encode_dialogue(tokenizer, dialogue) for dialogue in read_dialogues(path)[:8]]
    model = get_peft_model(model, adapter_for(model, layer=6))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
    model.zero_grad()
    found = []
    for sequence in sequences:
        states = model(torch.tensor([sequence.ids]), output_hidden_states=True).hidden_states[7][0]
        found.append(states[torch.tensor(sequence.answer_mask).nonzero()[:, 0] - 1])
    wanted = (torch.cat(found) - 20 * direction(576, 0)).square().mean()
    wanted.backward()
    expected = gradients(model)
    prefix = frozen_prefix(model, tokenizer.pad_token_id, Store())
    assert prefix is not None
    for _ in range(2):
        model.zero_grad()
        batch = batch_for(model, sequences, tokenizer.pad_token_id, prefix)
        assert batch["input_ids"].size(0) == 1
        states, _ = answer_states(model, batch, 6, prefix)
        all_count = torch.ones_like(batch["targets"], dtype=torch.bool)
        loss = RMU(6)(Answers(None, batch["targets"], batch["row"], all_count, states=states)).mean()
        loss.backward()
        assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
        gradient = gradients(model)
        assert float((gradient - expected).norm() / expected.norm()) < 1e-3


def alone(model: Any, sequences: list[Encoded]) -> tuple[float, torch.Tensor]:
    """Loss and gradients, a sequence at a time, by the model's own forward."""
    model.zero_grad()
    tokens, total = sum(sum(sequence.answer_mask) for sequence in sequences), 0.0
    for sequence in sequences:
        ids, mask = torch.tensor([sequence.ids]), torch.tensor(sequence.answer_mask)
        logits = model(ids).logits[0, :-1]
        loss = torch.nn.functional.cross_entropy(logits[mask[1:]], ids[0, 1:][mask[1:]], reduction="sum") / tokens
        loss.backward()
        total += float(loss.detach())
    return total, gradients(model)


def gradients(model: Any) -> torch.Tensor:
    return torch.cat([p.grad.flatten().clone() for p in model.parameters() if p.grad is not None])


@pytest.mark.slow
def test_twenty_steps_end_where_those_of_the_plain_path_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default objective with an adapter, the whole trainer through."""
    from importlib.resources import as_file, files

    folder = str(demo_model())
    tokenizer = load_tokenizer(folder)
    with as_file(files("letheon.demo") / "data" / "log.jsonl") as path:
        log = read_dialogues(path)
    forget = [one for one in log if one.label == "forget"][:8]
    normal = [one for one in log if one.label == "normal"][:16]

    def weights(trainer: UnlearnTrainer) -> torch.Tensor:
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters() if p.requires_grad])

    def new(name: str) -> UnlearnTrainer:
        model = load_model(folder)
        return UnlearnTrainer(
            model,
            UnlearnConfig(
                output_dir=str(tmp_path / name),
                per_device_train_batch_size=2,
                gradient_accumulation_steps=1,
                max_steps=20,
                learning_rate=2e-4,
                adapter_init="random",
                directions=0,
                stop_rule=False,
                bf16=False,
                # The order that padded batches have in any case.
                train_sampling_strategy="group_by_length",
            ),
            forget_dataset=forget,
            normal_dataset=normal,
            processing_class=tokenizer,
            peft_config=adapter_for(model),
        )

    fast = new("fast")
    fast.train()
    assert fast._collator.packed
    assert fast._collator.prefix is not None
    monkeypatch.setattr("letheon.train.trainer.can_pack", lambda model: False)
    monkeypatch.setattr(forward, "can_pack", lambda model: False)
    monkeypatch.setattr("letheon.train.reference.frozen_prefix", lambda *given: None)
    monkeypatch.setattr(forward, "CHUNK", 10**9)
    plain = new("plain")
    before = weights(plain)
    plain.train()
    assert not plain._collator.packed
    first = [next(row for row in one.state.log_history if "normal" in row) for one in (fast, plain)]
    for key in ("negative", "positive", "normal"):
        assert first[0][key] == pytest.approx(first[1][key], rel=1e-5), key
    assert first[0]["grad_norm"] == pytest.approx(first[1]["grad_norm"], rel=1e-3)
    # Adam's steps magnify rounding; all of them together moved the weights by far more.
    assert float((weights(fast) - weights(plain)).norm()) < 2e-2 * float((weights(plain) - before).norm())
