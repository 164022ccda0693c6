from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from letheon import forward
from letheon.chat import Encoded
from letheon.evaluate.teacher_forced import TokenScores, score_sequences


def some_sequences(count: int = 9, vocabulary: int = 259) -> list[Encoded]:
    """Prompts and answers of all lengths, one of them with two answers, one plain text."""
    draw = random.Random(0)
    found = []
    for number in range(count):
        prompt, answer = draw.randint(1, 20), draw.randint(1, 12)
        ids = [draw.randrange(vocabulary) for _ in range(prompt + answer)]
        found.append(Encoded(ids, [False] * prompt + [True] * answer))
        if number == 1:
            found.append(Encoded(ids * 2, found[-1].answer_mask * 2))
    return [*found, Encoded(ids, [False] + [True] * (len(ids) - 1))]


def naive(model: Any, sequence: Encoded) -> torch.Tensor:
    """(L, V) log-probs, one sequence, all logits, no padding."""
    with torch.no_grad():
        logits = model(torch.tensor([sequence.ids])).logits[0]
    places = [t - 1 for t, answer in enumerate(sequence.answer_mask) if answer]
    return logits[places].double().log_softmax(dim=1)


def targets(sequence: Encoded) -> torch.Tensor:
    return torch.tensor([i for i, answer in zip(sequence.ids, sequence.answer_mask, strict=True) if answer])


@pytest.fixture
def sequences() -> list[Encoded]:
    return some_sequences()


@pytest.fixture
def model(tiny_model: Callable[..., Any]) -> Any:
    return tiny_model()


def test_agrees_with_one_sequence_at_a_time(model: Any, sequences: list[Encoded]) -> None:
    for sequence, scores in zip(sequences, score_sequences(model, sequences, batch_size=4, top_k=5), strict=True):
        wanted, labels = naive(model, sequence), targets(sequence)
        torch.testing.assert_close(
            scores.log_probs.double(), wanted.gather(1, labels[:, None])[:, 0], atol=1e-5, rtol=1e-5
        )
        assert torch.equal(scores.matches, wanted.argmax(dim=1) == labels)
        assert scores.top_ids is not None
        assert scores.top_log_probs is not None
        assert torch.equal(scores.top_ids, wanted.topk(5).indices)
        torch.testing.assert_close(scores.top_log_probs.double(), wanted.topk(5).values, atol=1e-5, rtol=1e-5)


def test_batches_do_not_matter(model: Any, sequences: list[Encoded], monkeypatch: pytest.MonkeyPatch) -> None:
    alone = score_sequences(model, sequences, batch_size=1)
    together = score_sequences(model, sequences, batch_size=100)
    monkeypatch.setattr(forward, "CHUNK", 10)
    few_rows = score_sequences(model, sequences, batch_size=100)
    for one, all_, few in zip(alone, together, few_rows, strict=True):
        torch.testing.assert_close(one.log_probs, all_.log_probs, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one.log_probs, few.log_probs, atol=1e-5, rtol=1e-5)


def test_other_labels_score_otherwise(model: Any, sequences: list[Encoded]) -> None:
    changed = []
    for sequence in sequences:
        ids = [(i + 7) % 259 if answer else i for i, answer in zip(sequence.ids, sequence.answer_mask, strict=True)]
        changed.append(Encoded(ids, sequence.answer_mask))
    for one, other in zip(score_sequences(model, sequences), score_sequences(model, changed), strict=True):
        assert not torch.allclose(one.log_probs, other.log_probs, atol=1e-2)


def test_an_adapter_counts(model: Any, sequences: list[Encoded], tiny_model: Callable[..., Any]) -> None:
    plain = score_sequences(model, sequences)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(tiny_model(), config).eval()
    changed = score_sequences(adapted, sequences)
    with adapted.disable_adapter():
        off = score_sequences(adapted, sequences)
    for one, other, same in zip(plain, changed, off, strict=True):
        assert not torch.allclose(one.log_probs, other.log_probs, atol=1e-4)
        torch.testing.assert_close(one.log_probs, same.log_probs)


def test_kl(model: Any, sequences: list[Encoded], tiny_model: Callable[..., Any]) -> None:
    other = tiny_model(seed=1)
    vocabulary = model.config.vocab_size
    before = score_sequences(model, sequences, top_k=vocabulary)
    coarse = score_sequences(other, sequences, reference=score_sequences(model, sequences, top_k=8))
    full = score_sequences(other, sequences, reference=before)
    for sequence, some, every in zip(sequences, coarse, full, strict=True):
        p, q = naive(model, sequence), naive(other, sequence)
        wanted = (p.exp() * (p - q)).sum(dim=1)
        assert some.kl is not None
        assert every.kl is not None
        torch.testing.assert_close(every.kl.double(), wanted, atol=1e-4, rtol=1e-4)
        assert (some.kl.double() <= wanted + 1e-4).all()
        assert (some.kl > 0).all()
    for scores in score_sequences(model, sequences, reference=before):
        assert scores.kl is not None
        assert scores.kl.abs().max() < 1e-5


def test_no_reference_no_kl(model: Any, sequences: list[Encoded]) -> None:
    reference: list[TokenScores | None] = [None] * len(sequences)
    assert all(scores.kl is None for scores in score_sequences(model, sequences, reference=reference))
    assert all(scores.top_ids is None for scores in score_sequences(model, sequences))


def test_progress_counts_every_sequence(model: Any, sequences: list[Encoded]) -> None:
    steps: list[int] = []
    score_sequences(model, sequences, batch_size=4, progress=steps.append)
    assert sum(steps) == len(sequences)
    assert max(steps) <= 4
    assert score_sequences(model, []) == []
