"""Loss terms and their gradients against transcriptions of the formulas, one token and one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    BaseOdds,
    ClusterMean,
    CrossEntropy,
    FlatTV,
    GradientAscent,
    InvertedHinge,
    JensUn,
    LogitFlattening,
    LogOddsHinge,
    MaxEntropy,
    ReferenceJS,
    ReferenceKL,
    SatImp,
    SimNPO,
    log_odds_margin,
    log_prob,
    top_k_kl,
)

SHAPES = [(1, 2, 1), (3, 5, 2), (7, 11, 3), (13, 17, 5)]


def made_up(n: int, vocabulary: int, k: int, dtype: torch.dtype = torch.float32, *, pair: bool = True) -> Answers:
    """Answer tokens in sequences of odd lengths, some of which do not count."""
    random = torch.Generator().manual_seed(n * vocabulary + (not pair))
    before = torch.randn(n, vocabulary, generator=random) * 2
    targets = torch.randint(vocabulary, (n,), generator=random)
    top = before.log_softmax(dim=1).topk(k, dim=1)
    other = made_up(n, vocabulary, k, dtype, pair=False) if pair else None
    return Answers(
        logits=(torch.randn(n, vocabulary, generator=random) * 2).to(dtype).requires_grad_(),
        targets=targets,
        sequence=torch.tensor([int(math.sqrt(t)) for t in range(n)]),
        counts=torch.rand(n, generator=random) < 0.7,
        reference_log_prob=log_prob(before, targets),
        reference_top_ids=top.indices,
        reference_top_log_probs=top.values,
        preferred=other,
        rejected=other,
    )


def softmax(row: Tensor) -> list[Tensor]:
    """In float64 and without any trick for stability."""
    powers = [value.double().exp() for value in row]
    return [power / sum(powers) for power in powers]


def naive_hinge(a: Answers, t: int, term: LogOddsHinge | MASC, below: float = 0.0) -> Tensor:
    row, own = a.logits[t].double(), int(a.targets[t])
    rivals = sorted((v for v in range(len(row)) if v != own), key=lambda v: -row[v].item())[: term.rivals]
    margin = row[own] - torch.log(sum((row[v].exp() for v in rivals), torch.zeros(())))
    return torch.clamp(margin - math.log(term.rho / (1 - term.rho)) + below, min=0) / term.eta


def naive_kl(a: Answers, t: int) -> Tensor:
    assert a.reference_top_ids is not None
    assert a.reference_top_log_probs is not None
    now = softmax(a.logits[t])
    ids, before = a.reference_top_ids[t].tolist(), a.reference_top_log_probs[t].double().exp().tolist()
    inside = sum((p * (math.log(p) - now[v].log()) for v, p in zip(ids, before, strict=True)), torch.zeros(()))
    rest, rest_now = 1 - sum(before), torch.ones(()) - sum(now[v] for v in ids)
    return inside + rest * (math.log(rest) - rest_now.log())


def counted(a: Answers, s: int) -> list[int]:
    return [t for t in range(len(a.targets)) if int(a.sequence[t]) == s and bool(a.counts[t])]


def naive_ratio(a: Answers, s: int) -> Tensor:
    assert a.reference_log_prob is not None
    terms = [own_probability(a, t).log() - float(a.reference_log_prob[t]) for t in counted(a, s)]
    return sum(terms, torch.zeros((), dtype=torch.float64))


def naive_npo(a: Answers, term: NPO) -> list[Tensor]:
    ratios = [naive_ratio(a, s) for s in range(a.sequences)]
    return [-2 / term.beta * torch.log(1 / (1 + torch.exp(term.beta * ratio))) for ratio in ratios]


def naive_simnpo(a: Answers, term: SimNPO) -> list[Tensor]:
    losses = []
    for s in range(a.sequences):
        logs = [own_probability(a, t).log() for t in counted(a, s)]
        mean = sum(logs, torch.zeros((), dtype=torch.float64)) / max(len(logs), 1)
        losses.append(-2 / term.beta * torch.log(1 / (1 + torch.exp(term.beta * mean + term.gamma))))
    return losses


def naive_dpo(a: Answers, term: DPO) -> list[Tensor]:
    assert a.preferred is not None
    gains = [naive_ratio(a.preferred, s) - naive_ratio(a, s) for s in range(a.sequences)]
    return [-2 / term.beta * torch.log(1 / (1 + torch.exp(-term.beta * gain))) for gain in gains]


def naive_preservation(a: Answers, term: AnswerPreservation) -> list[Tensor]:
    def nll(b: Answers, s: int) -> Tensor:
        return sum((-own_probability(b, t).log() for t in counted(b, s)), torch.zeros((), dtype=torch.float64))

    assert a.rejected is not None
    leads = [nll(a.rejected, s) - nll(a, s) for s in range(a.sequences)]
    return [-1 / term.beta * torch.log(1 / (1 + torch.exp(-term.beta * lead))) for lead in leads]


def naive_flat_tv(a: Answers) -> list[Tensor]:
    def mean(b: Answers, s: int) -> Tensor:
        found = [own_probability(b, t) for t in counted(b, s)]
        return sum(found, torch.zeros((), dtype=torch.float64)) / max(len(found), 1)

    assert a.preferred is not None
    return [-torch.tanh(mean(a.preferred, s)) / 2 + torch.tanh(mean(a, s)) / 2 for s in range(a.sequences)]


def naive_inverted_hinge(a: Answers, t: int) -> Tensor:
    p, own = softmax(a.logits[t]), int(a.targets[t])
    rivals = [p[v] for v in range(len(p)) if v != own]
    return 1 + p[own] - max(rivals, key=lambda rival: rival.item())


def naive_undial(a: Answers, t: int, beta: float) -> Tensor:
    """Over the cached tokens, the old one and all others as one."""
    assert a.reference_log_prob is not None
    assert a.reference_top_ids is not None
    assert a.reference_top_log_probs is not None
    own, now = int(a.targets[t]), softmax(a.logits[t])
    before = dict(zip(a.reference_top_ids[t].tolist(), a.reference_top_log_probs[t].exp().tolist(), strict=True))
    before[own] = math.exp(float(a.reference_log_prob[t]))
    rest = max(1 - sum(before.values()), 0)
    before[own] *= math.exp(-beta)
    total = sum(before.values()) + rest
    loss = sum((-p / total * now[v].log() for v, p in before.items()), torch.zeros(()))
    if len(before) == len(now):
        return loss
    return loss - rest / total * (torch.ones(()) - sum(now[v] for v in before)).log()


def divergence(p: list[Tensor], q: list[Tensor]) -> Tensor:
    """JSD by its definition, with 0 log 0 = 0."""
    loss = torch.zeros((), dtype=torch.float64)
    for x, y in zip(p, q, strict=True):
        middle = (x + y) / 2
        for one in (x, y):
            if one.item() > 0:
                loss = loss + one * (one / middle).log() / 2
    return loss


def naive_jensun(a: Answers) -> list[Tensor]:
    assert a.preferred is not None
    losses, refusal = [], {s: [] for s in range(a.sequences)}  # type: ignore[var-annotated]
    for s, token in zip(a.preferred.sequence.tolist(), a.preferred.targets.tolist(), strict=True):
        refusal[s].append(token)
    for s in range(a.sequences):
        for place, t in enumerate(t for t in range(len(a.targets)) if int(a.sequence[t]) == s):
            wished = torch.zeros(a.logits.size(1), dtype=torch.float64)
            wished[refusal[s][place % len(refusal[s])]] = 1.0
            losses.append(divergence(softmax(a.logits[t]), list(wished)))
    return losses


def naive_js(a: Answers, t: int) -> Tensor:
    assert a.reference_top_ids is not None
    assert a.reference_top_log_probs is not None
    now, ids = softmax(a.logits[t]), a.reference_top_ids[t].tolist()
    before = list(a.reference_top_log_probs[t].double().exp())
    one = torch.ones((), dtype=torch.float64)
    return divergence([*before, one - sum(before)], [*(now[v] for v in ids), one - sum(now[v] for v in ids)])


def naive_entropy(a: Answers, t: int) -> Tensor:
    p = softmax(a.logits[t])
    return sum((torch.log(1 / len(p) / one) / len(p) for one in p), torch.zeros(()))


def naive_peak(a: Answers, t: int) -> Tensor:
    row = a.logits[t].double()
    return (max(row, key=lambda z: z.item()) - sum(row) / len(row)) ** 2


def own_probability(a: Answers, t: int) -> Tensor:
    return softmax(a.logits[t])[int(a.targets[t])]


def naive_satimp(a: Answers, t: int, beta1: float, beta2: float) -> Tensor:
    p = own_probability(a, t)
    return p.item() ** beta1 * (1 - p.item()) ** beta2 * p.log()


def naive_base_odds(a: Answers, t: int) -> Tensor:
    assert a.reference_log_prob is not None
    p, base = own_probability(a, t), a.reference_log_prob[t].double().exp()
    apart = (p / (1 - p)).log() - 1.25 * (base / (1 - base)).log()
    return apart.square() / 16 if apart.abs() <= 8 else apart.abs() - 4


def by_token(loss: Callable[[Answers, int], Tensor]) -> Callable[[Answers], list[Tensor]]:
    return lambda a: [loss(a, t) for t in range(len(a.targets))]


TERMS: dict[str, tuple[Any, Callable[[Answers], list[Tensor]]]] = {
    "hinge": (LogOddsHinge(), by_token(lambda a, t: naive_hinge(a, t, LogOddsHinge()))),
    "hinge of 2 rivals": (
        LogOddsHinge(0.05, 0.25, 2),
        by_token(lambda a, t: naive_hinge(a, t, LogOddsHinge(0.05, 0.25, 2))),
    ),
    "masc": (MASC(), by_token(lambda a, t: naive_hinge(a, t, MASC(), MASC().eta))),
    "masc of 2 rivals": (MASC(0.3, 1.5, 2), by_token(lambda a, t: naive_hinge(a, t, MASC(0.3, 1.5, 2), 1.5))),
    "inverted hinge": (InvertedHinge(), by_token(naive_inverted_hinge)),
    "wga": (WGA(), by_token(lambda a, t: naive_satimp(a, t, 1, 0))),
    "wga of beta 3": (
        WGA(3.0),
        by_token(lambda a, t: naive_satimp(a, t, 3, 0)),
    ),
    "satimp": (SatImp(), by_token(lambda a, t: naive_satimp(a, t, 5, 1))),
    "satimp of other powers": (SatImp(0.5, 2.0), by_token(lambda a, t: naive_satimp(a, t, 0.5, 2))),
    "undial": (UNDIAL(), by_token(lambda a, t: naive_undial(a, t, 10.0))),
    "undial of beta 0.5": (UNDIAL(0.5), by_token(lambda a, t: naive_undial(a, t, 0.5))),
    "max entropy": (MaxEntropy(), by_token(naive_entropy)),
    "logit flattening": (LogitFlattening(), by_token(naive_peak)),
    "flat-tv": (FlatTV(), naive_flat_tv),
    "jensun": (JensUn(), naive_jensun),
    "js": (ReferenceJS(), by_token(naive_js)),
    "nlul": (NLUL(), by_token(lambda a, t: -torch.log(1 - own_probability(a, t)))),
    "npo": (NPO(), lambda a: naive_npo(a, NPO())),
    "npo of beta 1": (NPO(1.0), lambda a: naive_npo(a, NPO(1.0))),
    "simnpo": (SimNPO(), lambda a: naive_simnpo(a, SimNPO())),
    "simnpo with a margin": (SimNPO(0.7, 1.5), lambda a: naive_simnpo(a, SimNPO(0.7, 1.5))),
    "dpo": (DPO(), lambda a: naive_dpo(a, DPO())),
    "dpo of beta 1": (DPO(1.0), lambda a: naive_dpo(a, DPO(1.0))),
    "ap": (AnswerPreservation(), lambda a: naive_preservation(a, AnswerPreservation())),
    "ap of beta 1": (AnswerPreservation(1.0), lambda a: naive_preservation(a, AnswerPreservation(1.0))),
    "gradient ascent": (GradientAscent(), by_token(lambda a, t: own_probability(a, t).log())),
    "cross-entropy": (CrossEntropy(), by_token(lambda a, t: -own_probability(a, t).log())),
    "cluster mean": (ClusterMean(), by_token(lambda a, t: -own_probability(a, t).log())),
    "base": (BaseOdds(), by_token(naive_base_odds)),
    "kl": (ReferenceKL(cross_entropy=False), by_token(naive_kl)),
    "kl and cross-entropy": (ReferenceKL(), by_token(lambda a, t: naive_kl(a, t) - own_probability(a, t).log())),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", TERMS)
def test_value_and_gradient(name: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    term, naive = TERMS[name]
    given = made_up(*shape, dtype=dtype)
    # Uneven weights, so that a loss in the wrong place is seen.
    found, wanted = term(given), torch.stack(naive(given))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-4, atol=1e-5)
    uneven = torch.arange(1.0, len(found) + 1)
    assert given.preferred is not None
    # Of terms that read the other answer too, its gradient as well.
    read = (given.logits, given.preferred.logits)
    gradients, expected = (
        torch.autograd.grad((losses * uneven).sum(), read, materialize_grads=True) for losses in (found, wanted)
    )
    # The reduction runs in float32 whatever the logits are; only the gradient is rounded to their type.
    rough = dtype == torch.bfloat16
    for one, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=4e-2 if rough else 1e-3, atol=5e-3 if rough else 1e-5)


@pytest.mark.parametrize("rivals", [1, 3, 10])
def test_numeric_gradient_of_the_margin(rivals: int) -> None:
    """Central differences in float32: the functions compute in float32, which is too coarse for gradcheck."""
    given = made_up(3, 7, 2)
    (gradient,) = torch.autograd.grad(log_odds_margin(given.logits, given.targets, rivals).sum(), given.logits)
    step = 1e-2
    for t in range(3):
        for v in range(7):
            moved = [given.logits.detach().clone() for _ in range(2)]
            moved[0][t, v] += step
            moved[1][t, v] -= step
            up, down = (float(log_odds_margin(logits, given.targets, rivals).sum()) for logits in moved)
            assert float(gradient[t, v]) == pytest.approx((up - down) / (2 * step), abs=2e-3)


@pytest.mark.parametrize("p", [0.01, 0.3, 0.9, 0.999])
def test_gradient_of_nlul_is_that_of_ce_u(p: float) -> None:
    """CE-U: cross-entropy to the model's own distribution without the token, detached (methods, §4)."""
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 9, generator=random)
    with torch.no_grad():
        others = logits[0, 1:].logsumexp(dim=0)
        logits[0, 0] = others + math.log(p / (1 - p))
    logits.requires_grad_()
    target = torch.tensor([0])
    given = Answers(logits, target, torch.tensor([0]), torch.tensor([True]))
    (gradient,) = torch.autograd.grad(NLUL()(given).sum(), logits)
    wished = logits.detach().scatter(1, target[:, None], float("-inf")).softmax(dim=1)
    (of_ce_u,) = torch.autograd.grad(-(wished * logits.log_softmax(dim=1)).sum(), logits)
    torch.testing.assert_close(gradient, of_ce_u, rtol=1e-4, atol=1e-6)
    # dL/dz_t = p_t and dL/dz_j = −p_t p_j/(1 − p_t).
    probabilities = logits.detach().softmax(dim=1)[0]
    by_hand = -probabilities * p / (1 - p)
    by_hand[0] = p
    torch.testing.assert_close(gradient[0], by_hand, rtol=1e-3, atol=1e-6)


def test_gradient_of_the_kl_of_all_tokens_is_the_difference_of_the_distributions() -> None:
    given = made_up(5, 9, 9)
    assert given.reference_top_ids is not None
    assert given.reference_top_log_probs is not None
    loss = top_k_kl(given.logits, given.reference_top_ids, given.reference_top_log_probs).sum()
    (gradient,) = torch.autograd.grad(loss, given.logits)
    before = torch.zeros(5, 9).scatter(1, given.reference_top_ids, given.reference_top_log_probs.exp())
    torch.testing.assert_close(gradient, given.logits.detach().softmax(dim=1) - before, rtol=1e-3, atol=1e-5)
