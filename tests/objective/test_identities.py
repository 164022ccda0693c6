"""Limits and identities that hold whatever the numbers are."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

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
    Counts,
    CrossEntropy,
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
    log_prob,
)

TERMS: list[Any] = [
    LogOddsHinge(),
    NLUL(),
    NPO(),
    SimNPO(),
    DPO(),
    AnswerPreservation(),
    MASC(rho=0.1, eta=1.0),
    InvertedHinge(),
    WGA(),
    SatImp(beta1=1.0, beta2=1.0),
    UNDIAL(),
    MaxEntropy(),
    LogitFlattening(),
    FlatTV(),
    JensUn(),
    GradientAscent(),
    CrossEntropy(),
    ReferenceJS(),
    ClusterMean(),
    ReferenceKL(),
    BaseOdds(),
    ReferenceKL(cross_entropy=False),
]
OF_PLACES = (MaxEntropy, LogitFlattening, JensUn, ReferenceJS)
"""They read where an answer's tokens are, not which they are."""
LABELLED = [term for term in TERMS if not isinstance(term, OF_PLACES) and getattr(term, "cross_entropy", True)]
names = [f"{type(term).__name__}-{number}" for number, term in enumerate(TERMS)]


def made_up(seed: int = 0, n: int = 9, vocabulary: int = 13, scale: float = 2.0, *, pair: bool = True) -> Answers:
    random = torch.Generator().manual_seed(seed)
    before = torch.randn(n, vocabulary, generator=random)
    targets = torch.randint(vocabulary, (n,), generator=random)
    top = before.log_softmax(dim=1).topk(3, dim=1)
    other = made_up(seed + 100, n, vocabulary, scale, pair=False) if pair else None
    return Answers(
        logits=(torch.randn(n, vocabulary, generator=random) * scale).requires_grad_(),
        targets=targets,
        sequence=torch.arange(n) // 3,
        counts=torch.arange(n) % 4 > 0,
        reference_log_prob=log_prob(before, targets),
        reference_top_ids=top.indices,
        reference_top_log_probs=top.values,
        preferred=other,
        rejected=other,
    )


def mean_and_gradient(term: Any, given: Answers, counts: Counts | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    of = None if counts is None else {"negative": counts}
    batch = {"negative": given, "positive": given.preferred}
    loss = Objective(term, None, None)(batch, of)["negative"]  # type: ignore[arg-type]
    return loss.detach(), torch.autograd.grad(loss, given.logits)[0]


@pytest.mark.parametrize("term", LABELLED, ids=lambda term: str(term))
def test_labels_matter(term: Any) -> None:
    given = made_up()
    shuffled = replace(given, targets=given.targets.roll(1))
    loss, gradient = mean_and_gradient(term, given)
    other, other_gradient = mean_and_gradient(term, shuffled)
    assert abs(float(loss - other)) > 1e-3
    assert float((gradient - other_gradient).abs().max()) > 1e-3


@pytest.mark.parametrize("term", [term for term in TERMS if term not in LABELLED], ids=lambda term: str(term))
def test_some_distances_read_places_alone(term: Any) -> None:
    """For them, wrong labels would change nothing: what is forgotten is known by its prompt."""
    given = made_up()
    loss, gradient = mean_and_gradient(term, given)
    other, other_gradient = mean_and_gradient(term, replace(given, targets=given.targets.roll(1)))
    assert float(loss) == float(other)
    assert torch.equal(gradient, other_gradient)
    moved, _ = mean_and_gradient(term, replace(given, logits=given.logits.detach().roll(1, dims=0).requires_grad_()))
    assert abs(float(loss - moved)) > 1e-3


def test_the_refusal_matters_to_jensun() -> None:
    given = made_up()
    assert given.preferred is not None
    other = replace(given, preferred=replace(given.preferred, targets=given.preferred.targets.roll(1)))
    assert abs(float(mean_and_gradient(JensUn(), given)[0] - mean_and_gradient(JensUn(), other)[0])) > 1e-3


@pytest.mark.parametrize("term", TERMS, ids=names)
def test_tokens_that_do_not_count_have_no_gradient_and_no_say(term: Any) -> None:
    given = made_up()
    loss, gradient = mean_and_gradient(term, given)
    assert not gradient[~given.counts].any()
    assert bool(gradient[given.counts].abs().sum() > 0)
    wild = given.logits.detach().clone()
    wild[~given.counts] = 77 * torch.randn(wild.shape, generator=torch.Generator().manual_seed(5))[~given.counts]
    assert float(mean_and_gradient(term, replace(given, logits=wild.requires_grad_()))[0]) == float(loss)


@pytest.mark.parametrize("term", TERMS, ids=names)
def test_nothing_that_counts_is_nothing_lost(term: Any) -> None:
    given = made_up()
    assert given.preferred is not None
    nothing = {"counts": torch.zeros_like(given.counts)}
    pair = replace(given.preferred, **nothing)
    loss, gradient = mean_and_gradient(term, replace(given, **nothing, preferred=pair, rejected=pair))
    # NPO of no token is that of π = π₀, a constant.
    factor = 2 if isinstance(term, NPO | DPO | SimNPO) else 1 if isinstance(term, AnswerPreservation) else 0
    assert float(loss) == pytest.approx(factor and factor / term.beta * 0.6931472)
    assert not gradient.any()


def one_sequence(given: Answers, rows: torch.Tensor) -> Answers:
    """The answer tokens of one sequence, and of its expected one."""
    fields = {name: value[rows] for name, value in vars(given).items() if isinstance(value, torch.Tensor)}
    fields["logits"] = fields["logits"].detach().requires_grad_()
    fields["sequence"] = torch.zeros_like(fields["sequence"])
    other = given.preferred and one_sequence(given.preferred, rows)
    return Answers(**fields, preferred=other, rejected=other)


@pytest.mark.parametrize("term", TERMS, ids=names)
def test_loss_of_a_batch_is_the_sum_of_its_sequences_over_the_same_counts(term: Any) -> None:
    """What makes accumulation exact: each piece is divided by the counts of the whole."""
    given = made_up()
    counts = Counts(tokens=float(given.counts.sum()), sequences=3)
    whole, gradient = mean_and_gradient(term, given)
    loss, pieces = torch.zeros(()), torch.zeros_like(gradient)
    for number in range(3):
        rows = given.sequence == number
        part, pieces[rows] = mean_and_gradient(term, one_sequence(given, rows), counts)
        loss += part
    assert float(loss) == pytest.approx(float(whole), rel=1e-5)
    torch.testing.assert_close(pieces, gradient)


@pytest.mark.parametrize("term", TERMS, ids=names)
def test_adding_a_constant_to_all_logits_changes_nothing(term: Any) -> None:
    given = made_up()
    moved = replace(given, logits=(given.logits.detach() + 30).requires_grad_())
    loss, gradient = mean_and_gradient(term, given)
    other, other_gradient = mean_and_gradient(term, moved)
    assert float(other) == pytest.approx(float(loss), abs=1e-4)
    torch.testing.assert_close(gradient, other_gradient, rtol=1e-3, atol=1e-5)
    assert float(gradient.sum(dim=1).abs().max()) < 1e-5


def test_gradient_of_npo_tends_to_gradient_ascents() -> None:
    given = replace(made_up(), counts=torch.ones(9, dtype=torch.bool))
    # Gradient ascent on whole answers, as in the paper: a sum over tokens, a mean over sequences.
    _, ascent = mean_and_gradient(GradientAscent(), given, Counts(tokens=3, sequences=3))
    distances = [
        float((mean_and_gradient(NPO(beta), given)[1] - ascent).norm() / ascent.norm()) for beta in (1.0, 0.1, 1e-3)
    ]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-2


def both_gradients(term: Any, given: Answers, counts: Counts | None = None) -> torch.Tensor:
    """With respect to the normal answers' logits, and to those of the expected ones in their place."""
    assert given.rejected is not None
    batch: dict[Any, Answers] = {"normal": given, "rejected": given.rejected}
    loss = Objective(None, None, term)(batch, counts and {"normal": counts})["normal"]
    found = torch.autograd.grad(loss, (given.logits, given.rejected.logits), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in found])


def test_gradient_of_answer_preservation_tends_to_half_of_the_two_cross_entropies() -> None:
    """As β → 0: the normal answer is learned, the one in its place unlearned, whatever their probabilities."""
    given, per_answer = made_up(), Counts(tokens=3, sequences=3)
    assert given.rejected is not None
    rejected = replace(given.rejected, rejected=given)
    up, down = both_gradients(CrossEntropy(), given, per_answer), both_gradients(CrossEntropy(), rejected, per_answer)
    wanted = (up - down.roll(len(down) // 2)) / 2
    distances = [
        float((both_gradients(AnswerPreservation(beta), given) - wanted).norm() / wanted.norm())
        for beta in (1.0, 0.1, 1e-4)
    ]
    assert distances[0] > distances[1] > distances[2]
    assert distances[2] < 1e-2


def test_answer_preservation_of_a_large_beta_is_a_hinge() -> None:
    """max(0, log π(y⁺) − log π(y°)): nothing is pushed where the normal answer is the likelier one."""
    given = made_up()
    assert given.rejected is not None
    lead = given.rejected.sum_by_sequence(given.rejected.log_probs()) - given.sum_by_sequence(given.log_probs())
    assert bool((lead > 0.1).any())
    assert bool((lead < -0.1).any())
    torch.testing.assert_close(AnswerPreservation(1e4)(given), lead.clamp(min=0), rtol=1e-4, atol=1e-3)


def test_what_is_rejected_matters_to_answer_preservation() -> None:
    given = made_up()
    assert given.rejected is not None
    other = replace(given, rejected=replace(given.rejected, targets=given.rejected.targets.roll(1)))
    assert (
        float((both_gradients(AnswerPreservation(), given) - both_gradients(AnswerPreservation(), other)).norm())
        > 1e-3
    )


@pytest.mark.parametrize(("rho", "spread"), [(0.2, 0.5), (0.5, 3.0)])
def test_a_satisfied_hinge_has_exactly_no_gradient(rho: float, spread: float) -> None:
    given = made_up(scale=spread)
    low = given.logits.detach().scatter(1, given.targets[:, None], -9.0).requires_grad_()
    loss, gradient = mean_and_gradient(LogOddsHinge(rho=rho), replace(given, logits=low))
    assert float(loss) == 0.0
    assert not gradient.any()


def test_push_of_each_distance_where_memorised_and_where_forgotten() -> None:
    """The table in the module's docstring: who pushes a memorised answer, and who leaves a forgotten one alone."""
    memorised, forgotten = 20.0, -20.0

    def push(term: Any, logit: float) -> float:
        logits = torch.zeros(1, 100)
        logits[0, 0] = logit
        before = torch.tensor([[memorised, *[0.0] * 99]]).log_softmax(dim=1)
        given = Answers(
            logits.requires_grad_(),
            torch.tensor([0]),
            torch.tensor([0]),
            torch.tensor([True]),
            # θ₀ has the answer by heart.
            reference_log_prob=torch.tensor([before[0, 0]]),
            reference_top_ids=torch.arange(100)[None],
            reference_top_log_probs=before,
        )
        return float(mean_and_gradient(term, given)[1].norm())

    assert push(LogOddsHinge(), memorised) == pytest.approx(push(LogOddsHinge(), 10.0), rel=1e-4)
    assert push(LogOddsHinge(), forgotten) == 0.0
    assert push(NLUL(), memorised) > 1.0
    assert push(NLUL(), forgotten) < 1e-6
    assert push(GradientAscent(), memorised) < 1e-6
    assert push(GradientAscent(), forgotten) > 1.0
    for term in (MASC(), InvertedHinge(), WGA(), SatImp(), UNDIAL(30.0), MaxEntropy(), LogitFlattening()):
        strong = isinstance(term, MASC | UNDIAL | MaxEntropy | LogitFlattening)
        assert (push(term, memorised) > 0.5) == strong, term
    assert push(MASC(), forgotten) == 0.0
    assert push(WGA(), forgotten) < 1e-6
    assert push(SatImp(), forgotten) < 1e-6
    # Lowered by 10 of 20 the token is still preferred, and θ is there already.
    assert push(UNDIAL(10.0), memorised) < 0.01
    assert push(UNDIAL(30.0), forgotten) < 1e-3
    assert push(NPO(1.0), memorised) < 1e-6
    assert push(NPO(1.0), forgotten) < 1e-6


def test_identities_between_distances() -> None:
    def same(one: Any, other: Any) -> None:
        for found, wanted in zip(mean_and_gradient(one, made_up()), mean_and_gradient(other, made_up()), strict=True):
            torch.testing.assert_close(found, wanted)

    same(WGA(beta=0.0), GradientAscent())
    same(SatImp(beta1=2.0, beta2=0.0), WGA(beta=2.0))
    # MASC's corner lies a scale lower: with ρ' so that logit ρ' = logit ρ − η it is the other hinge.
    same(MASC(rho=0.5, eta=math.log(4)), LogOddsHinge(rho=0.2, eta=math.log(4)))


def test_undial_where_nothing_is_lowered_distils_the_model_before() -> None:
    """Without demotion the gradient is that of KL(p_θ₀ ‖ p_θ), and zero at θ = θ₀."""
    given = made_up()
    _, gradient = mean_and_gradient(UNDIAL(beta=0.0), given)
    inside = (given.targets[:, None] == given.reference_top_ids).any(dim=1)
    assert inside.any()
    _, of_kl = mean_and_gradient(ReferenceKL(cross_entropy=False), given)
    # Where the old token is not among the top ones, it is an outcome more.
    torch.testing.assert_close(gradient[inside], of_kl[inside])


def test_drawing_a_member_is_unbiased() -> None:
    """Σ_k w_k CE(y^k) is the mean over draws of the item that the dataset makes, and so is its gradient."""
    from letheon.chat import Encoded
    from letheon.train.dataset import Forget, UnlearnDataset

    weights = (0.6, 0.3, 0.1)
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    losses = []
    for token in range(3):
        given = Answers(logits[[token]], torch.tensor([token]), torch.tensor([0]), torch.tensor([True]))
        losses.append(ClusterMean()(given).sum())
    (exact,) = torch.autograd.grad(
        sum((w * loss for w, loss in zip(weights, losses, strict=True)), torch.zeros(())), logits, retain_graph=True
    )
    members = tuple(Encoded([9, token], [False, True]) for token in range(3))
    dataset = UnlearnDataset([Forget(Encoded([9, 9], [False, True]), members, weights)], [])
    drawn = []
    for epoch in range(3000):
        dataset.set_epoch(epoch)
        drawn.append(next(s.encoded.ids[1] for s in dataset[0] if s.part == "positive"))
    share = [drawn.count(token) / len(drawn) for token in range(3)]
    # Three standard errors of 3000 draws.
    assert share == pytest.approx(weights, abs=3 * 0.5 / 3000**0.5)
    (found,) = torch.autograd.grad(
        sum((s * loss for s, loss in zip(share, losses, strict=True)), torch.zeros(())), logits
    )
    torch.testing.assert_close(found, exact, rtol=0.2, atol=0.03)
