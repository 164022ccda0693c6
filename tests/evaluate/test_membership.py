from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import pytest
import torch

from letheon.chat import Encoded, encode_text
from letheon.evaluate.auc import membership_auc
from letheon.evaluate.gradient_norm import gradient_norms
from letheon.evaluate.membership import (
    ATTACKS,
    MEMBERSHIP,
    attack_scores,
    beside_control,
    loss_score,
    membership,
    min_k,
    min_k_plus_plus,
    reference_score,
    zlib_score,
)
from letheon.evaluate.teacher_forced import score_sequences
from letheon.records import NotComputed

TEXTS = ["The sea is wide.", "Rain falls on the roofs of Oslo, and on the hills.", "aaaaaaaaaaaaaaaa", "No."]


def test_min_k_is_the_mean_of_the_least_likely() -> None:
    log_probs = torch.tensor([-1.0, -5.0, -2.0, -4.0, -3.0])
    assert min_k(log_probs) == pytest.approx(-4.5)
    assert min_k(log_probs, 1.0) == pytest.approx(-3.0)
    # Of a short text at least one token.
    assert min_k(torch.tensor([-1.0, -2.0])) == -2.0


def test_by_hand() -> None:
    log_probs = torch.tensor([-1.0, -3.0])
    assert loss_score(log_probs) == -2
    assert zlib_score(log_probs, "abc") == pytest.approx(-2 / len(zlib.compress(b"abc")))
    assert reference_score(loss_score(log_probs), -4.0) == 2
    assert min_k_plus_plus(torch.tensor([0.5, -1.0, 2.0, 1.0, 0.0])) == pytest.approx(-0.5)


def naive(model: Any, ids: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the tokens, and of all tokens in their places, by one plain pass."""
    with torch.no_grad():
        every = model(torch.tensor([ids])).logits[0, :-1].double().log_softmax(dim=1)
    return every[range(len(ids) - 1), ids[1:]], every


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_against_naive_transcriptions(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, dtype: torch.dtype
) -> None:
    model, control = tiny_model().to(dtype), tiny_model(seed=1).to(dtype)
    encoded = [encode_text(tiny_tokenizer, text) for text in TEXTS]
    own = score_sequences(model, encoded, standardise=True)
    reference = score_sequences(control, encoded)
    close = {torch.float32: 1e-4, torch.bfloat16: 5e-2}[dtype]
    for text, sequence, scores, other in zip(TEXTS, encoded, own, reference, strict=True):
        assert scores.standardised is not None
        said, every = naive(model, sequence.ids)
        theirs, _ = naive(control, sequence.ids)
        assert loss_score(scores.log_probs) == pytest.approx(float(said.mean()), rel=close)
        assert zlib_score(scores.log_probs, text) == pytest.approx(
            float(said.mean()) / len(zlib.compress(text.encode())), rel=close
        )
        wanted = float(said.mean() - theirs.mean())
        found = reference_score(loss_score(scores.log_probs), loss_score(other.log_probs))
        assert found == pytest.approx(wanted, abs=close)
        k = max(1, int(0.4 * len(said)))
        assert min_k(scores.log_probs) == pytest.approx(float(said.sort().values[:k].mean()), rel=close)
        # By the definition: mean and deviation of log p(v) when v is drawn from p.
        mu = torch.stack([sum(p.exp() * p for p in row) for row in every])  # type: ignore[arg-type]
        square = torch.stack([sum(p.exp() * p * p for p in row) for row in every])  # type: ignore[arg-type]
        deviations = (said - mu) / (square - mu**2).sqrt()
        wanted = float(deviations.sort().values[:k].mean())
        assert min_k_plus_plus(scores.standardised) == pytest.approx(wanted, abs=10 * close)


def test_what_is_certain_tells_nothing(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.zero_()
    # All tokens are equally likely: there is no deviation, and no token is out of the ordinary.
    (scores,) = score_sequences(model, [Encoded([1, 2, 3], [False, True, True])], standardise=True)
    assert scores.standardised is not None
    assert scores.standardised.abs().max() < 1e-2
    assert score_sequences(model, [Encoded([1, 2], [False, True])])[0].standardised is None


def test_gradient_norms_against_backward(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model, steps = tiny_model(), list[int]()
    encoded = [encode_text(tiny_tokenizer, text) for text in TEXTS]
    found = gradient_norms(model, encoded, progress=steps.append)
    assert steps == [1] * len(TEXTS)
    assert all(weight.grad is None for weight in model.parameters())
    for sequence, score in zip(encoded, found, strict=True):
        ids = torch.tensor([sequence.ids])
        other = tiny_model()
        other(ids, labels=ids).loss.backward()
        norms = [weight.grad.norm() for weight in other.parameters()]
        assert score == pytest.approx(-float(torch.stack(norms).mean()), rel=1e-3)


def test_a_prompt_has_no_part_in_the_gradient(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    masked, whole = (Encoded([5, 6, 7, 8], [False, *mask, True]) for mask in ([False, False], [True, True]))
    one, other = gradient_norms(model, [masked, whole])
    assert one != pytest.approx(other)


def test_frozen_weights_count_as_well(tiny_model: Callable[..., Any]) -> None:
    # As those of a base are that an adapter was merged into.
    sequences = [Encoded([1, 2, 3], [False, True, True])]
    frozen = tiny_model().requires_grad_(False)
    assert gradient_norms(frozen, sequences) == gradient_norms(tiny_model(), sequences)
    assert not any(weight.requires_grad for weight in frozen.parameters())


def rows(minimum: float, *more: float) -> list[dict[str, float]]:
    """Texts whose scores are alike by every attack."""
    return [dict.fromkeys(set(ATTACKS) - {"reference"}, score) for score in (minimum, *more)]


def test_aucs_and_privleak_by_hand() -> None:
    members, others = rows(-1.0, -2.0, -5.0), rows(-3.0, -6.0, -4.0)
    found = membership(members, others, "there is no control")
    assert set(found) == set(MEMBERSHIP)
    # Seven of nine pairs are in order.
    for attack in set(ATTACKS) - {"reference"}:
        assert found[f"{attack}_auc"].estimate == pytest.approx(7 / 9)  # type: ignore[union-attr]
    assert found["reference_auc"] == found["privleak"] == NotComputed(not_computed="there is no control")

    control = rows(-3.5, -5.0, -4.5), rows(-4.0, -6.0, -5.5)
    own = beside_control(members, control[0]), beside_control(others, control[1])
    assert [row["reference"] for row in own[0]] == [2.5, 3.0, -0.5]
    found = membership(*own, control)
    auc, floor = 7 / 9, membership_auc([-3.5, -5.0, -4.5], [-4.0, -6.0, -5.5])
    assert found["privleak"].estimate == pytest.approx(100 * (floor - auc) / (1 - floor))  # type: ignore[union-attr]
    assert found["reference_auc"].estimate == membership_auc([2.5, 3.0, -0.5], [1.0, 0.0, 1.5])  # type: ignore[union-attr]
    assert found["loss_auc"].estimate == pytest.approx(auc)  # type: ignore[union-attr]


def test_beside_itself_a_model_is_at_the_controls_level(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    encoded = [encode_text(tiny_tokenizer, text) for text in TEXTS]
    scores = score_sequences(tiny_model(), encoded, standardise=True)
    attacked = [attack_scores(*one, 0.0) for one in zip(scores, TEXTS, strict=True)]
    assert set(attacked[0]) == set(ATTACKS) - {"reference"}
    members, others = (beside_control(half, half) for half in (attacked[:2], attacked[2:]))
    found = membership(members, others, (attacked[:2], attacked[2:]))
    assert found["privleak"].estimate == 0  # type: ignore[union-attr]
    assert found["reference_auc"].estimate == 0.5  # type: ignore[union-attr]
