from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import kl_div

from letheon.chat import Encoded, encode_text
from letheon.evaluate.divergence import _kl, divergences
from letheon.evaluate.teacher_forced import score_sequences

TEXTS = ["The sea is wide.", "Rain falls on the roofs of Oslo, and on the hills.", "aaaaaaaaaaaaaaaa", "No."]


def test_by_hand() -> None:
    before, now = torch.tensor([[0.5, 0.5], [0.9, 0.1]]).log(), torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()
    found = _kl(now, before)
    wanted = [0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1), 0.9 * math.log(1.8) + 0.1 * math.log(0.2)]
    assert found.tolist() == pytest.approx(wanted)
    # Not changed by what is added to all logits, and 0 of what is the same.
    assert _kl(now + 7, before - 3).tolist() == pytest.approx(wanted, rel=1e-5)
    assert _kl(now, now + 1).tolist() == pytest.approx([0, 0], abs=1e-7)


def test_what_had_no_probability_adds_nothing() -> None:
    none = -math.inf
    assert _kl(torch.tensor([[0.0, 0.0, 5.0]]), torch.tensor([[0.0, 0.0, none]])).item() > 0
    assert _kl(torch.tensor([[0.0, 1.0, none]]), torch.tensor([[0.0, 1.0, none]])).item() == 0
    assert _kl(torch.tensor([[0.0, none]]), torch.tensor([[0.0, 0.0]])).item() == math.inf
    assert math.isnan(_kl(torch.tensor([[0.0, math.nan]]), torch.tensor([[0.0, 0.0]])).item())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [1, 3, 256])
def test_against_a_naive_transcription(
    tiny_model: Callable[..., Any],
    tiny_tokenizer: Any,
    dtype: torch.dtype,
    rows: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("letheon.evaluate.divergence.ROWS", rows)
    model, before = tiny_model().to(dtype), tiny_model(seed=1).to(dtype)
    encoded = [encode_text(tiny_tokenizer, text) for text in TEXTS]
    # A prompt has no part in it.
    encoded.append(Encoded(encoded[1].ids, [place > 20 for place in range(len(encoded[1].ids))]))
    done = list[int]()
    found = divergences(model, before, encoded, batch_size=2, progress=done.append)
    assert sum(done) == len(encoded)
    close = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    for sequence, value in zip(encoded, found, strict=True):
        with torch.no_grad():
            q, p = (
                m(torch.tensor([sequence.ids])).logits[0, :-1].double().log_softmax(dim=1) for m in (model, before)
            )
        by_token = kl_div(q, p, log_target=True, reduction="none").sum(dim=1)
        assert value == pytest.approx(float(by_token[torch.tensor(sequence.answer_mask[1:])].mean()), rel=close)


def test_to_itself_it_is_nothing_and_the_bucketed_one_is_a_lower_bound(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    model, before = tiny_model(), tiny_model(seed=1)
    encoded = [encode_text(tiny_tokenizer, text) for text in TEXTS]
    assert divergences(model, tiny_model(), encoded) == [0.0] * len(encoded)
    exact = divergences(model, before, encoded)
    for k, equal in ((8, False), (258, True)):
        reference = score_sequences(before, encoded, top_k=k)
        bucketed = [
            float(s.kl.mean()) for s in score_sequences(model, encoded, reference=reference) if s.kl is not None
        ]
        assert len(bucketed) == len(exact)
        assert (
            bucketed == pytest.approx(exact, rel=1e-3)
            if equal
            else all(one < other for one, other in zip(bucketed, exact, strict=True))
        )


def test_a_model_that_cannot_pack(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    # One of the two pads: the tokens of a batch come in another order.
    from letheon.forward import _packs

    model, before = tiny_model(), tiny_model(seed=1)
    encoded = [encode_text(tiny_tokenizer, text) for text in TEXTS]
    wanted = divergences(model, before, encoded)
    other = tiny_model(seed=1)
    _packs[other] = False
    assert divergences(model, other, encoded) == pytest.approx(wanted, rel=1e-4)


def test_a_broken_model(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    assert math.isnan(divergences(model, tiny_model(), [encode_text(tiny_tokenizer, "No.")])[0])
