"""Probing: forwards on held-out data that tell how much is still there and what it has cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from letheon.chat import Encoded
from letheon.evaluate.generation import GREEDY, generate
from letheon.evaluate.memorisation import content_of, extraction_strength, probability
from letheon.evaluate.text import repetition
from letheon.evaluate.truth_ratio import truth_probability, truth_ratio
from letheon.forward import answer_logits, batch_for, batches
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.objective import log_prob, top_k_kl
from letheon.prefix import FrozenPrefix
from letheon.split import spread
from letheon.train.dataset import Reference
from letheon.train.stop import Probe

GENERATED = 4
NEW_TOKENS = 24
FEW = 8
"""Of fewer of the log's own normal dialogues one that breaks would tell for all."""


class Drift(NamedTuple):
    """What a model says of the n answer tokens of one normal sequence.

    Attributes:
        log_prob: (n,) log-probability of each token.
        kl: (n,) KL to θ₀ at each token, nats.
    """

    log_prob: Tensor
    kl: Tensor


class Prober:
    """Measures `Probe`s on fixed data.

    Args:
        old: Sequences with undesired answers that training does not see.
        normal: Normal dialogues of the log that training does not see.
        reference: What θ₀ said about `normal`, then about `rehearsed`.
        expected: For each of `old`, the expected answers to its prompt that are to be learnt; there may be none.
        rehearsed: Other normal sequences that training does not see.
        tokenizer: For padding and for reading greedy answers.
        size: Sequences of each kind in a quick probe; the full probe takes all.
        batch_size: Sequences a forward pass.
        prefix: Where forward passes start from.
    """

    def __init__(
        self,
        old: Sequence[Encoded],
        normal: Sequence[Encoded],
        reference: Sequence[Reference],
        expected: Sequence[Sequence[Encoded]] = (),
        *,
        rehearsed: Sequence[Encoded] = (),
        tokenizer: Tokenizer,
        size: int,
        batch_size: int,
        prefix: FrozenPrefix | None = None,
    ):
        self.old = list(old)
        self.normal = [*normal, *rehearsed]
        self.own = len(normal) if len(normal) >= FEW else 0
        self.reference = list(reference)
        self.expected = list(expected) or [()] * len(self.old)
        self.tokenizer = tokenizer
        self.size = size
        self.batch_size = batch_size
        self.prefix = prefix

    def quick(self, model: Model, step: int) -> Probe:
        """Probe evenly spaced dialogues."""
        return self._probe(model, step, self.size)

    def whole(self, model: Model, step: int) -> Probe:
        """Probe all dialogues."""
        return self._probe(model, step, max(len(self.old), len(self.normal)))

    def with_answers(self, model: Model, probe: Probe) -> Probe:
        """A probe of the model as it is, with the repetition of a few greedy answers added."""
        return replace(probe, repetition=self._repetition(model))

    @torch.no_grad()
    def _probe(self, model: Model, step: int, most: int) -> Probe:
        """Probe at most so many of the old answers, of all normal ones, and of the log's own normal ones."""
        old, normal, own = (spread(range(size), most) for size in (len(self.old), len(self.normal), self.own))
        known: dict[int, Tensor] = {}
        strengths: list[float] = []
        with in_eval_mode(model):
            for chosen, logits, targets, row in self._forwards(model, [self.old[n] for n in old]):
                matches, log_probs = (logits.argmax(dim=1) == targets).cpu(), log_prob(logits, targets).cpu()
                for place, number in enumerate(chosen):
                    mine = row.cpu() == place
                    known[old[number]] = log_probs[mine]
                    strengths.append(extraction_strength(content_of(matches[mine])))
            truth = self._truth_probability(model, known)
            drift = self._drift(model, sorted({*normal, *own}))
        lost = [self.reference[n].log_prob - drift[n].log_prob for n in normal]
        return Probe(
            step=step,
            probability=sum(map(probability, known.values())) / len(known),
            extraction_strength=sum(strengths) / len(strengths),
            normal_ratio=_exp(float(torch.cat(lost).double().mean())) if lost else 1.0,
            kl=float(torch.cat([drift[n].kl for n in normal]).mean()) if normal else 0.0,
            truth_probability=truth,
            normal_kept=self._kept({n: drift[n].log_prob for n in own}),
        )

    def _drift(self, model: Model, numbers: Sequence[int]) -> dict[int, Drift]:
        """What the model says of normal sequences now."""
        found: dict[int, Drift] = {}
        for chosen, logits, targets, row in self._forwards(model, [self.normal[n] for n in numbers]):
            said = [self.reference[numbers[place]] for place in chosen]
            top_ids = torch.cat([r.top_ids for r in said]).long().to(logits.device)
            top = torch.cat([r.top_log_probs for r in said]).to(logits.device)
            log_probs, kl = log_prob(logits, targets).cpu(), top_k_kl(logits, top_ids, top).cpu()
            for place, number in enumerate(chosen):
                mine = row.cpu() == place
                found[numbers[number]] = Drift(log_probs[mine], kl[mine])
        return found

    def _kept(self, own: Mapping[int, Tensor]) -> float | None:
        """See `Probe.normal_kept`; log-probabilities of their tokens, by the number of the sequence."""
        before = sum(probability(self.reference[number].log_prob) for number in own)
        return sum(map(probability, own.values())) / before if before else None

    def _truth_probability(self, model: Model, known: Mapping[int, Tensor]) -> float | None:
        """See `Probe`; `known` holds the log-probabilities of old answers' tokens, by the number of the sequence."""
        owners = [number for number in known for _ in self.expected[number]]
        if not owners:
            return None
        losses: dict[int, float] = {}
        for chosen, logits, targets, row in self._forwards(model, [one for n in known for one in self.expected[n]]):
            log_probs = log_prob(logits, targets)
            for place, number in enumerate(chosen):
                owner = owners[number]
                losses[owner] = min(losses.get(owner, math.inf), mean_loss(log_probs[row == place]))
        shares = [truth_probability(truth_ratio(best, [mean_loss(known[n])])) for n, best in losses.items()]
        return math.fsum(shares) / len(shares)

    def _forwards(
        self, model: Model, sequences: Sequence[Encoded]
    ) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
        for chosen in batches(sequences, self.batch_size):
            batch = batch_for(model, [sequences[n] for n in chosen], self.tokenizer.pad_token_id, self.prefix)
            yield chosen, *answer_logits(model, batch, self.prefix)

    def _repetition(self, model: Model) -> float:
        prompts = [s.ids[: s.answer_mask.index(True)] for s in spread(self.old, GENERATED)]
        with in_eval_mode(model):
            rows = generate(model, self.tokenizer, prompts, GREEDY, max_new_tokens=NEW_TOKENS)
        return sum(repetition(self.tokenizer.decode(row, skip_special_tokens=True)) for row in rows) / len(rows)


def mean_loss(log_probs: Tensor) -> float:
    """Nats a token, of one answer's (L,) log-probabilities."""
    return -float(log_probs.double().mean())


def _exp(exponent: float) -> float:
    """Infinity where the result is no float any more: a model that far off has diverged."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
