"""Normal terms: what keeps the model's ability on dialogues that are fine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from letheon.objective.answers import Answers, log_prob
from letheon.objective.term import Needs, Unit


def top_k_kl(logits: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
    """KL(p_θ₀ ‖ p_θ) on the k likeliest tokens of θ₀ and one bucket for all the rest.

    Merging outcomes never increases a divergence, so this is a lower bound of the full KL, and exact where θ₀'s mass
    lies in its top k. Range [0, ∞), 0 at θ = θ₀, nats per token.

    Args:
        logits: (N, V) of θ.
        top_ids: (N, k) token ids.
        top_log_probs: (N, k) their log-probabilities under θ₀.

    Returns:
        (N,) divergences in float32.
    """
    # One copy: the gradients of two would each be rounded to the logits' type before they nearly cancel.
    now = _log_probs_at(logits.float(), top_ids)
    before = top_log_probs.float()
    return (before.exp() * (before - now)).sum(dim=1) + _bucket(before, now)


def _bucket(before: Tensor, now: Tensor) -> Tensor:
    """(N,) the term of the bucket that holds all tokens outside the top k."""
    rest_before, rest_now = _rest(before), _rest(now)
    return rest_before * (rest_before.log() - rest_now.log())


def _log_probs_at(logits: Tensor, ids: Tensor) -> Tensor:
    """(N, k) log-probabilities of k tokens each."""
    return logits.gather(1, ids) - logits.logsumexp(dim=1, keepdim=True)


def _rest(log_probs: Tensor) -> Tensor:
    """(N,) the mass that (N, k) log-probabilities leave, at least that of a rounding."""
    return (1 - log_probs.exp().sum(dim=1)).clamp(min=torch.finfo(torch.float32).eps)


def top_k_js(logits: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
    """JSD(p_θ₀, p_θ) = ½ KL(p_θ₀ ‖ m) + ½ KL(p_θ ‖ m), m their mean, on θ₀'s k likeliest tokens and one bucket.

    A lower bound of the full divergence, as `top_k_kl` is. Range [0, log 2], 0 at θ = θ₀, nats per token.

    Args:
        logits: (N, V) of θ.
        top_ids: (N, k) token ids.
        top_log_probs: (N, k) their log-probabilities under θ₀.

    Returns:
        (N,) divergences in float32.
    """
    now = _log_probs_at(logits.float(), top_ids)
    both = [torch.cat([p, _rest(p).log()[:, None]], dim=1) for p in (top_log_probs.float(), now)]
    mean = torch.stack(both).logsumexp(dim=0) - math.log(2)
    return torch.stack([(p.exp() * (p - mean)).sum(dim=1) for p in both]).mean(dim=0)


@dataclass(frozen=True)
class CrossEntropy:
    """CE(y° | x°): keep saying the normal answers. Range [0, ∞)."""

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset()

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        return -answers.log_probs()


@dataclass(frozen=True)
class ReferenceKL:
    """KL(p_θ₀ ‖ p_θ) on θ₀'s top-k tokens, plus the cross-entropy unless switched off.

    k is `UnlearnConfig.top_k`.

    Attributes:
        cross_entropy: Whether CE(y° | x°) is added.
    """

    cross_entropy: bool = True
    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"reference_top"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.reference_top_ids is not None
        assert answers.reference_top_log_probs is not None

        def loss(logits: Tensor, targets: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
            # Both read the same copy, or their gradients would be rounded apart.
            logits = logits.float()
            kl = top_k_kl(logits, top_ids, top_log_probs)
            return kl - log_prob(logits, targets) if self.cross_entropy else kl

        return answers.reduce(loss, answers.reference_top_ids, answers.reference_top_log_probs)


@dataclass(frozen=True)
class ReferenceJS:
    """JSD(p_θ₀, p_θ) on θ₀'s top-k tokens: JensUn's normal term (arXiv 2509.02820). Range [0, log 2].

    k is `UnlearnConfig.top_k`.
    """

    unit: ClassVar[Unit] = "token"
    needs: ClassVar[Needs] = frozenset({"reference_top"})

    def __call__(self, answers: Answers) -> Tensor:
        """(N,) losses."""
        assert answers.reference_top_ids is not None
        assert answers.reference_top_log_probs is not None

        def loss(logits: Tensor, targets: Tensor, top_ids: Tensor, top_log_probs: Tensor) -> Tensor:
            return top_k_js(logits, top_ids, top_log_probs)

        return answers.reduce(loss, answers.reference_top_ids, answers.reference_top_log_probs)


@dataclass(frozen=True)
class AnswerPreservation:
    """Answer preservation (AP), −(1/β) log σ(β (log π(y°|x°) − log π(y⁺|x°))), π of the whole answer.

    The normal answer y° stays likelier than an expected answer y⁺ (an abstention) in its place; by how much it
    already is says how much it is pushed. Range (0, ∞), (1/β) log 2 where the two are level. As β → 0 its gradient
    tends to half of that of log π(y⁺) − log π(y°), as β grows it tends to max(0, log π(y⁺) − log π(y°)). No
    reference. Source: arXiv 2410.08109; sail-sg/closer-look-LLM-unlearning (β 0.1), where each normal question has
    an abstention drawn for it: here it is the one that its step teaches in the place of an old answer.

    Attributes:
        beta: Inverse temperature, > 0.
    """

    beta: float = 0.1
    unit: ClassVar[Unit] = "sequence"
    needs: ClassVar[Needs] = frozenset({"rejected"})

    def __call__(self, answers: Answers) -> Tensor:
        """(S,) losses."""
        assert answers.rejected is not None
        kept, rejected = (a.sum_by_sequence(a.log_probs()) for a in (answers, answers.rejected))
        return -logsigmoid(self.beta * (kept - rejected)) / self.beta
