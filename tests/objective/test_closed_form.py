"""Loss terms on tensors whose answer is known in closed form."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from letheon.objective import (
    DPO,
    MASC,
    NLUL,
    NPO,
    UNDIAL,
    WGA,
    AnswerPreservation,
    Answers,
    Balance,
    BaseOdds,
    ClusterMean,
    Counts,
    CrossEntropy,
    DualWeight,
    FlatTV,
    GradientAscent,
    InvertedHinge,
    JensUn,
    LogitFlattening,
    LogOddsHinge,
    MaxEntropy,
    Objective,
    ReferenceJS,
    ReferenceKL,
    SatImp,
    SimNPO,
    log_odds_margin,
    log_prob,
    top_k_kl,
)


def with_probability(p: float, vocabulary: int = 8) -> Tensor:
    """(1, V) logits that give token 0 the probability p and the others equal shares of the rest."""
    return torch.tensor([[math.log(p), *[math.log((1 - p) / (vocabulary - 1))] * (vocabulary - 1)]])


def answers(logits: Tensor, targets: list[int], **changes: Any) -> Answers:
    n = len(targets)
    fields: dict[str, Any] = {
        "logits": logits,
        "targets": torch.tensor(targets),
        "sequence": torch.zeros(n, dtype=torch.long),
        "counts": torch.ones(n, dtype=torch.bool),
    }
    return Answers(**{**fields, **changes})


BASES = [
    (0.9, 0.1, (2.25 * math.log(9)) ** 2 / 16, 2.25 * math.log(9) / 8),
    (0.5, 0.5, 0.0, 0.0),
    (1 / (1 + 3**1.25), 0.25, 0.0, 0.0),
    (0.6, 0.5, math.log(1.5) ** 2 / 16, math.log(1.5) / 8),
    (0.1, 0.9, (2.25 * math.log(9)) ** 2 / 16, -2.25 * math.log(9) / 8),
    (0.999, 0.001, 2.25 * math.log(999) - 4, 1.0),
]
"""p, the base's p, the loss, and its gradient in the token's logit."""


@pytest.mark.parametrize(("p", "base", "loss", "slope"), BASES)
def test_base_odds_is_zero_at_the_base_s_level_and_comes_back_to_it_from_below(
    p: float, base: float, loss: float, slope: float
) -> None:
    logits = with_probability(p).requires_grad_()
    found = BaseOdds()(answers(logits, [0], reference_log_prob=torch.tensor([math.log(base)])))
    assert float(found.detach()) == pytest.approx(loss, abs=1e-4)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert float(gradient[0, 0]) == pytest.approx(slope, abs=1e-4)
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-5)


def test_base_odds_pushes_what_is_certain_and_bears_a_base_that_is_certain() -> None:
    """In float32 the probability of the first is 1, and that of the second, under the base, too."""
    logits = torch.tensor([[40.0, 0.0, 0.0], [0.0, 0.0, 0.0]]).requires_grad_()
    found = BaseOdds()(answers(logits, [0, 0], reference_log_prob=torch.tensor([math.log(0.01), 0.0])))
    assert bool(found.isfinite().all())
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    assert gradient[:, 0].tolist() == pytest.approx([1.0, -1.0], abs=1e-4)


@pytest.mark.parametrize("p", [1e-4, 0.01, 0.2, 0.5, 0.9, 0.9999])
def test_margin_to_all_rivals_is_the_logit_of_the_probability(p: float) -> None:
    margin = log_odds_margin(with_probability(p), torch.tensor([0]), rivals=7)
    assert float(margin) == pytest.approx(math.log(p / (1 - p)), abs=1e-3)


def test_margin_to_few_rivals_is_higher_and_more_rivals_than_tokens_are_all() -> None:
    logits = with_probability(0.3)
    margins = [float(log_odds_margin(logits, torch.tensor([0]), rivals)) for rivals in (1, 3, 7, 100)]
    # One of seven equal rivals has a seventh of the odds.
    assert margins[0] == pytest.approx(margins[2] + math.log(7), abs=1e-5)
    assert margins[0] > margins[1] > margins[2] == margins[3]


def test_margin_stays_finite_at_the_extremes() -> None:
    logits = torch.tensor([[200.0, -200.0, -200.0], [-200.0, 200.0, 0.0]])
    assert log_odds_margin(logits, torch.tensor([0, 0]), 10).tolist() == pytest.approx([400 - math.log(2), -400])


@pytest.mark.parametrize("eta", [0.25, 1.0, 4.0])
@pytest.mark.parametrize("rho", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("p", [0.01, 0.3, 0.6, 0.99])
def test_hinge_is_zero_below_the_threshold_and_linear_above(rho: float, eta: float, p: float) -> None:
    logits = with_probability(p).requires_grad_()
    loss = LogOddsHinge(rho=rho, eta=eta, rivals=7)(answers(logits, [0])).sum()
    loss.backward()
    above = math.log(p / (1 - p)) - math.log(rho / (1 - rho))
    assert float(loss.detach()) == pytest.approx(max(0.0, above) / eta, abs=1e-4)
    assert logits.grad is not None
    # dm/dz_y = 1, whatever the probability: the push does not fade where the answer is memorised.
    assert float(logits.grad[0, 0]) == pytest.approx(1 / eta if above > 0 else 0.0)
    if above < 0:
        assert not logits.grad.any()


@pytest.mark.parametrize(("above", "loss"), [(1.0, 5.0), (0.0, 1.0), (-0.125, 0.5), (-0.25, 0.0), (-3.0, 0.0)])
def test_masc_ends_a_scale_below_the_threshold(above: float, loss: float) -> None:
    odds = math.exp(math.log(0.7 / 0.3) + above)
    given = answers(with_probability(odds / (1 + odds)), [0])
    assert float(MASC(0.7, 0.25, 7)(given)) == pytest.approx(loss, abs=1e-4)


@pytest.mark.parametrize("p", [0.0001, 0.125, 0.5, 0.9999])
def test_inverted_hinge(p: float) -> None:
    # The best of seven equal rivals has a seventh of the rest.
    assert float(InvertedHinge()(answers(with_probability(p), [0]))) == pytest.approx(1 + p - (1 - p) / 7, abs=1e-6)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9])
@pytest.mark.parametrize(
    ("term", "weight"),
    [
        (WGA(), lambda p: p),
        (WGA(0.5), lambda p: p**0.5),
        (SatImp(), lambda p: p**5 * (1 - p)),
        (SatImp(0.0, 2.0), lambda p: (1 - p) ** 2),
    ],
)
def test_weighted_ascents_have_the_gradient_of_ascent_times_their_weight(term: Any, weight: Any, p: float) -> None:
    logits = with_probability(p).requires_grad_()
    loss = term(answers(logits, [0]))
    loss.sum().backward()
    assert float(loss.detach()) == pytest.approx(weight(p) * math.log(p), rel=1e-4)
    assert logits.grad is not None
    assert float(logits.grad[0, 0]) == pytest.approx(weight(p) * (1 - p), rel=1e-4)


def test_flat_distributions_have_nothing_to_lose() -> None:
    for term in (MaxEntropy(), LogitFlattening()):
        assert float(term(answers(torch.full((1, 8), 3.0), [0]))) == pytest.approx(0.0, abs=1e-6)


def test_flattening_by_hand() -> None:
    # Of eight tokens one has a half: KL(u ‖ p) = ⅛ log(⅛ / ½) + ⅞ log(⅛ / (1/14)).
    wanted = math.log(1 / 4) / 8 + 7 / 8 * math.log(14 / 8)
    assert float(MaxEntropy()(answers(with_probability(0.5), [0]))) == pytest.approx(wanted, abs=1e-6)
    logits = torch.tensor([[4.0, 0.0, 0.0, 0.0]])
    assert float(LogitFlattening()(answers(logits, [2]))) == pytest.approx(9.0)


def test_flat_tv_by_hand() -> None:
    """The mean probabilities of the counted tokens: (0.5 + 0.1)/2 of the old answer, 0.25 of the expected one."""
    logits = torch.cat([with_probability(p) for p in (0.5, 0.1, 0.9)])
    given = answers(
        logits,
        [0, 0, 0],
        counts=torch.tensor([True, True, False]),
        preferred=answers(with_probability(0.25), [0]),
    )
    assert float(FlatTV()(given)) == pytest.approx((math.tanh(0.3) - math.tanh(0.25)) / 2, abs=1e-6)


def test_jensun_repeats_the_refusal_over_each_answer() -> None:
    from letheon.objective.negative.refusal import refusal_tokens

    given = answers(
        torch.zeros(6, 9),
        [1] * 6,
        sequence=torch.tensor([0, 0, 0, 0, 1, 1]),
        preferred=answers(torch.zeros(5, 9), [7, 8, 4, 5, 6], sequence=torch.tensor([0, 0, 1, 1, 1])),
    )
    assert refusal_tokens(given).tolist() == [7, 8, 7, 8, 4, 5]


@pytest.mark.parametrize(("p", "loss"), [(1e-9, math.log(2)), (1.0, 0.0), (0.5, None)])
def test_jensun_is_the_divergence_to_one_token(p: float, loss: float | None) -> None:
    if loss is None:
        # m = ¾ on the token: ½ log(4/3) + ½ (½ log ⅔ + ½ log 2).
        loss = math.log(4 / 3) / 2 + (math.log(2 / 3) + math.log(2)) / 4
    logits = torch.tensor([[0.0, -200.0, -200.0]]) if p == 1 else with_probability(p)
    preferred = answers(torch.zeros(1, logits.size(1)), [0])
    assert float(JensUn()(answers(logits, [1], preferred=preferred))) == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize("beta", [0.0, 1.0, 10.0])
def test_undial_of_all_tokens_pulls_to_the_model_before_with_the_old_token_lowered(beta: float) -> None:
    random = torch.Generator().manual_seed(0)
    before, now = torch.randn(2, 6, 12, generator=random) * 2
    targets = torch.arange(6)
    ids, values = top(before, 12)
    now.requires_grad_()
    given = answers(
        now,
        targets.tolist(),
        reference_log_prob=log_prob(before, targets),
        reference_top_ids=ids,
        reference_top_log_probs=values,
    )
    loss = UNDIAL(beta)(given)
    wished = (before - beta * torch.nn.functional.one_hot(targets, 12)).softmax(dim=1)
    torch.testing.assert_close(loss, -(wished * now.log_softmax(dim=1)).sum(dim=1), rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), now)
    torch.testing.assert_close(gradient, now.detach().softmax(dim=1) - wished, rtol=1e-3, atol=1e-5)


def test_undial_of_fewer_tokens_is_a_lower_bound() -> None:
    random = torch.Generator().manual_seed(0)
    before, now = torch.randn(2, 6, 12, generator=random) * 2
    targets = torch.arange(6)
    by_k = []
    for k in (1, 3, 6, 12):
        ids, values = top(before, k)
        own = log_prob(before, targets)
        fields = {"reference_log_prob": own, "reference_top_ids": ids, "reference_top_log_probs": values}
        by_k.append(UNDIAL(2.0)(answers(now, targets.tolist(), **fields)))
    for fewer, more in zip(by_k, by_k[1:], strict=False):
        assert bool((fewer <= more + 1e-5).all())


@pytest.mark.parametrize("p", [1e-3, 0.2, 0.5, 0.99])
def test_nlul(p: float) -> None:
    assert float(NLUL()(answers(with_probability(p), [0]))) == pytest.approx(-math.log(1 - p), abs=1e-4)


def test_nlul_stays_finite_where_the_probability_rounds_to_1() -> None:
    logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
    loss = NLUL()(answers(logits, [0]))
    assert float(loss.detach()) == pytest.approx(100 - math.log(2), rel=1e-6)
    loss.sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [pytest.approx([1.0, -0.5, -0.5])]


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0])
def test_npo_where_nothing_has_moved(beta: float) -> None:
    logits, targets = torch.randn(6, 9, generator=torch.Generator().manual_seed(0)), [1, 2, 3, 4, 5, 6]
    given = answers(
        logits,
        targets,
        sequence=torch.tensor([0, 0, 0, 1, 1, 2]),
        reference_log_prob=log_prob(logits, torch.tensor(targets)),
    )
    assert NPO(beta)(given).tolist() == pytest.approx([2 / beta * math.log(2)] * 3)


def test_npo_of_a_known_ratio() -> None:
    # log π/π₀ = log 0.5 − log 0.25 twice = 2 log 2, so σ(−β log π/π₀) = 1/(1 + 4^β).
    given = answers(with_probability(0.5).repeat(2, 1), [0, 0], reference_log_prob=torch.tensor([0.25, 0.25]).log())
    assert float(NPO(0.5)(given)) == pytest.approx(4 * math.log(3), rel=1e-6)


@pytest.mark.parametrize("length", [1, 3])
@pytest.mark.parametrize("gamma", [0.0, 1.0])
def test_simnpo_reads_the_mean_token(length: int, gamma: float) -> None:
    # The mean log p is log 0.25 whatever the length, so σ(−β log p − γ) = 1/(1 + e^γ 0.25^β).
    given = answers(with_probability(0.25).repeat(length, 1), [0] * length)
    assert float(SimNPO(0.5, gamma)(given)) == pytest.approx(4 * math.log(1 + 0.5 * math.exp(gamma)), rel=1e-6)


def test_dpo_of_known_ratios() -> None:
    """The old answer has doubled and the expected one has halved: log π⁺/π₀⁺ − log π/π₀ = −2 log 2."""
    half = torch.tensor([0.5]).log()
    given = answers(
        with_probability(0.5),
        [0],
        reference_log_prob=torch.tensor([0.25]).log(),
        preferred=answers(with_probability(0.25), [0], reference_log_prob=half),
    )
    assert float(DPO(0.5)(given)) == pytest.approx(4 * math.log(1 + 4**0.5), rel=1e-6)


def test_dpo_pushes_the_old_answer_as_far_as_it_pulls_the_expected_one() -> None:
    old, expected = (with_probability(0.5).requires_grad_() for _ in range(2))
    known = torch.tensor([0.5]).log()
    pair = answers(expected, [0], reference_log_prob=known)
    DPO()(answers(old, [0], reference_log_prob=known, preferred=pair)).sum().backward()
    assert old.grad is not None
    assert expected.grad is not None
    torch.testing.assert_close(old.grad, -expected.grad)
    # At θ = θ₀ with NPO's gradient, which is that of gradient ascent: (1 − p) on the token's own logit.
    assert float(old.grad[0, 0]) == pytest.approx(0.5)


@pytest.mark.parametrize(("term", "sign"), [(GradientAscent(), 1), (CrossEntropy(), -1), (ClusterMean(), -1)])
def test_cross_entropies(term: Any, sign: int) -> None:
    assert float(term(answers(with_probability(0.3), [0]))) == pytest.approx(sign * math.log(0.3), abs=1e-6)


def top(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    found = logits.log_softmax(dim=1).topk(k, dim=1)
    return found.indices, found.values


@pytest.mark.parametrize("k", [1, 4, 12])
def test_kl_is_zero_where_nothing_has_moved(k: int) -> None:
    logits = torch.randn(5, 12, generator=torch.Generator().manual_seed(0)) * 3
    assert top_k_kl(logits, *top(logits, k)).tolist() == pytest.approx([0.0] * 5, abs=2e-6)


def test_kl_of_all_tokens_is_the_full_one_and_of_fewer_a_lower_bound() -> None:
    random = torch.Generator().manual_seed(0)
    before, now = torch.randn(2, 7, 12, generator=random) * 2
    full = (before.softmax(dim=1) * (before.log_softmax(dim=1) - now.log_softmax(dim=1))).sum(dim=1)
    by_k = [top_k_kl(now, *top(before, k)) for k in (1, 3, 6, 11, 12)]
    assert by_k[-1].tolist() == pytest.approx(full.tolist(), abs=1e-5)
    # Eleven tokens and a bucket that holds the twelfth are all tokens again.
    assert by_k[-2].tolist() == pytest.approx(full.tolist(), abs=1e-5)
    for fewer, more in zip(by_k, by_k[1:], strict=False):
        assert bool((fewer <= more + 1e-5).all())
        assert bool((fewer >= -1e-6).all())


def test_kl_of_two_tokens_by_hand() -> None:
    # (0.8, 0.2) against (0.5, 0.5); with k = 1 the second token is the bucket.
    logits = torch.zeros(1, 2)
    loss = top_k_kl(logits, torch.tensor([[0]]), torch.tensor([[math.log(0.8)]]))
    assert float(loss) == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4), abs=1e-6)


def test_js_is_bounded_symmetric_and_zero_where_nothing_has_moved() -> None:
    def js(before: Tensor, now: Tensor, k: int) -> Tensor:
        ids, values = top(before, k)
        given = answers(now, [0] * len(now), reference_top_ids=ids, reference_top_log_probs=values)
        return ReferenceJS()(given)

    random = torch.Generator().manual_seed(0)
    before, now = torch.randn(2, 7, 12, generator=random) * 3
    assert js(before, before, 4).tolist() == pytest.approx([0.0] * 7, abs=2e-6)
    torch.testing.assert_close(js(before, now, 12), js(now, before, 12), rtol=1e-4, atol=1e-5)
    for fewer, more in zip((1, 3, 6), (3, 6, 12), strict=True):
        assert bool((js(before, now, fewer) <= js(before, now, more) + 1e-5).all())
    apart = torch.tensor([[50.0, 0.0, 0.0]])
    assert float(js(apart, apart.roll(1), 2)) == pytest.approx(math.log(2), abs=1e-4)


def test_js_of_two_tokens_by_hand() -> None:
    # (0.8, 0.2) against (0.5, 0.5), m = (0.65, 0.35); with k = 1 the second token is the bucket.
    given = answers(
        torch.zeros(1, 2),
        [0],
        reference_top_ids=torch.tensor([[0]]),
        reference_top_log_probs=torch.tensor([[0.8]]).log(),
    )
    halves = [p * math.log(p / m) / 2 for p, m in ((0.8, 0.65), (0.2, 0.35), (0.5, 0.65), (0.5, 0.35))]
    assert float(ReferenceJS()(given)) == pytest.approx(sum(halves), abs=1e-6)


def test_reference_kl_adds_the_cross_entropy_unless_switched_off() -> None:
    before, now = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(1))
    ids, values = top(before, 4)
    given = answers(now, [0, 1, 2], reference_top_ids=ids, reference_top_log_probs=values)
    kl = ReferenceKL(cross_entropy=False)(given)
    both = ReferenceKL()(given)
    assert both.tolist() == pytest.approx((kl + CrossEntropy()(given)).tolist())


@pytest.mark.parametrize(
    ("normal", "negative", "scale"),
    [(2.0, 4.0, 0.5), (1.0, 1000.0, 0.1), (1000.0, 1.0, 10.0), (1.0, 0.0, 3.0), (0.0, 1.0, 3.0), (0.0, 0.0, 3.0)],
)
def test_balance_is_the_clipped_ratio_and_rests_where_there_is_none(
    normal: float, negative: float, scale: float
) -> None:
    balance = Balance(scale=3.0)
    balance.update(normal, negative)
    assert balance.scale == pytest.approx(scale)


def test_dual_weight_rises_falls_to_its_floor_and_stops_at_its_ceiling() -> None:
    dual = DualWeight(value=1.0, floor=1.0, rate=2.0, budget=1.05)
    dual.update(loss=1.0 + math.log(1.25), reference=1.0)
    assert dual.value == pytest.approx(1.4)
    dual.update(loss=1.0, reference=1.0)
    assert dual.value == pytest.approx(1.3)
    for _ in range(10):
        dual.update(loss=0.5, reference=1.0)
    assert dual.value == 1.0
    dual.update(loss=1e6, reference=1.0)
    assert dual.value == dual.most == 100.0
    # The difference counts, not the size of the loss.
    other = DualWeight(value=1.0, floor=1.0, rate=2.0, budget=1.05)
    other.update(loss=10.0 + math.log(1.25), reference=10.0)
    assert other.value == pytest.approx(1.4)


def test_dual_weight_stays_with_a_rate_of_0() -> None:
    fixed = DualWeight(3.0, 1.0, rate=0.0)
    fixed.update(loss=9.0, reference=1.0)
    assert fixed.value == 3.0
    # Whatever it is: that of RMU's states is above the most that others come to.
    fixed = DualWeight(1200.0, 1200.0, rate=0.0)
    fixed.update(loss=1.0, reference=1.0)
    assert fixed.value == 1200.0


def test_dual_weight_that_starts_high_may_rise_as_well() -> None:
    dual = DualWeight(100.0, 0.0, rate=5.0, budget=1.35)
    dual.update(loss=1.0 + math.log(2.35), reference=1.0)
    assert dual.value == pytest.approx(105)
    floor = DualWeight(2.5, 200.0, rate=5.0)
    floor.update(loss=1.0, reference=1.0)
    assert floor.value == 200.0


def test_objective_by_hand() -> None:
    """Two tokens to forget (one does not count), one normal; mean, weights and scale."""
    batch: Any = {
        "negative": answers(
            torch.cat([with_probability(0.5), with_probability(0.9)]),
            [0, 0],
            counts=torch.tensor([True, False]),
        ),
        "normal": answers(with_probability(0.25), [0]),
    }
    objective = Objective(GradientAscent(), ClusterMean(), CrossEntropy())
    parts = objective(batch)
    assert list(parts) == ["negative", "normal"]
    assert {part: float(loss) for part, loss in parts.items()} == pytest.approx(
        {"negative": math.log(0.5), "normal": -math.log(0.25)}, abs=1e-6
    )
    total = objective.total(parts, {"negative": 2.0, "positive": 7.0, "normal": 3.0}, scale=0.5)
    assert float(total) == pytest.approx(math.log(0.5) - 3 * math.log(0.25), abs=1e-5)
    of_step = objective(batch, {part: Counts(tokens=4, sequences=2) for part in ("negative", "normal")})
    assert float(of_step["negative"]) == pytest.approx(math.log(0.5) / 4)


def test_objective_counts_sequences_where_the_term_does() -> None:
    logits, targets = with_probability(0.5).repeat(4, 1), [0] * 4
    given = answers(
        logits,
        targets,
        sequence=torch.tensor([0, 0, 0, 1]),
        reference_log_prob=log_prob(logits, torch.tensor(targets)),
    )
    loss = Objective(NPO(0.1), None, None)({"negative": given})["negative"]
    assert float(loss) == pytest.approx(20 * math.log(2))


def test_objective_leaves_out_what_has_no_term_and_asks_only_for_what_is_needed() -> None:
    objective = Objective(NPO(), None, ReferenceKL())
    assert objective.needs("negative") == {"reference_log_prob"}
    assert objective.needs("positive") == frozenset()
    assert objective.needs("normal") == {"reference_top"}


def test_an_expected_answer_that_is_held_against_the_old_one_is_scored_too() -> None:
    objective = Objective(DPO(), None, CrossEntropy())
    assert objective.prefers
    assert objective.needs("positive") == {"reference_log_prob"}
    assert objective.needs("normal") == frozenset()
    assert not Objective(NPO()).prefers
    assert Objective(None, None, CrossEntropy())({"negative": answers(with_probability(0.5), [0])}) == {}


@pytest.mark.parametrize("beta", [0.1, 1.0])
@pytest.mark.parametrize(("kept", "rejected"), [(0.5, 0.5), (0.9, 0.01), (0.2, 0.7)])
def test_answer_preservation_by_hand(kept: float, rejected: float, beta: float) -> None:
    """Answers of one and of two tokens: (1/β) log(1 + (π⁺/π°)^β), and its gradient's share σ(β log π⁺/π°)."""
    normal = answers(with_probability(kept).requires_grad_(), [0])
    instead = answers(
        with_probability(rejected).repeat(2, 1).requires_grad_(), [0, 0], sequence=torch.zeros(2, dtype=torch.long)
    )
    (loss,) = AnswerPreservation(beta)(replace(normal, rejected=instead))
    ratio = (rejected**2 / kept) ** beta
    assert float(loss.detach()) == pytest.approx(math.log(1 + ratio) / beta, rel=1e-4)
    up, down = torch.autograd.grad(loss, (normal.logits, instead.logits))  # type: ignore[arg-type]
    share = ratio / (1 + ratio)
    assert float(up[0, 0]) == pytest.approx(-share * (1 - kept), rel=1e-3)
    assert down[:, 0].tolist() == pytest.approx([share * (1 - rejected)] * 2, rel=1e-3)


def test_an_expected_answer_in_the_place_of_the_normal_one_is_asked_nothing() -> None:
    objective = Objective(None, None, AnswerPreservation())
    assert objective.rejects
    assert objective.reads_expected
    assert objective.needs("normal") == objective.needs("rejected") == frozenset()
    assert not Objective(None, None, CrossEntropy()).reads_expected
    level = answers(with_probability(0.5), [0])
    parts = objective({"normal": level, "rejected": level})
    assert {part: float(loss) for part, loss in parts.items()} == {"normal": pytest.approx(10 * math.log(2))}
