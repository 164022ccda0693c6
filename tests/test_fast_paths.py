"""On the real model, in float32: packed, chunked and from the frozen prefix on, against each sequence alone."""

from __future__ import annotations

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
from letheon.train import adapter_for


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
