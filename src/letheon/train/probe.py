"""Probing: forwards on held-out data that tell how much is still there and what it has cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from letheon.chat import Encoded
from letheon.evaluate.memorisation import extraction_strength, probability
from letheon.evaluate.text import repetition
from letheon.forward import answer_logits, batch_for, batches
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.objective import log_odds_margin, log_prob, share_preferred, top_k_kl
from letheon.prefix import FrozenPrefix
from letheon.split import spread
from letheon.train.dataset import Reference
from letheon.train.stop import Probe

RIVALS = 10
GENERATED = 4
NEW_TOKENS = 24


class Prober:
    """Measures `Probe`s on fixed data.

    Args:
        old: Sequences with undesired answers that training does not see.
        normal: Normal sequences that training does not see.
        reference: What θ₀ said about `normal`.
        tokenizer: For padding and for reading greedy answers.
        rho: Threshold of "still preferred".
        size: Sequences of each kind in a quick probe; the full probe takes all.
        batch_size: Sequences a forward pass.
        prefix: Where forward passes start from.
    """

    def __init__(
        self,
        old: Sequence[Encoded],
        normal: Sequence[Encoded],
        reference: Sequence[Reference],
        *,
        tokenizer: Tokenizer,
        rho: float,
        size: int,
        batch_size: int,
        prefix: FrozenPrefix | None = None,
    ):
        self.old = list(old)
        self.normal = list(normal)
        self.reference = list(reference)
        self.tokenizer = tokenizer
        self.rho = rho
        self.size = size
        self.batch_size = batch_size
        self.prefix = prefix

    def quick(self, model: Model, step: int) -> Probe:
        """Probe evenly spaced dialogues."""
        return self._probe(model, step, spread(self.old, self.size), spread(range(len(self.normal)), self.size))

    def whole(self, model: Model, step: int) -> Probe:
        """Probe all dialogues."""
        return self._probe(model, step, self.old, range(len(self.normal)))

    def with_answers(self, model: Model, probe: Probe) -> Probe:
        """A probe of the model as it is, with the repetition of a few greedy answers added."""
        return replace(probe, repetition=self._repetition(model))

    @torch.no_grad()
    def _probe(self, model: Model, step: int, old: Sequence[Encoded], normal: Sequence[int]) -> Probe:
        margins: list[Tensor] = []
        probabilities: list[float] = []
        strengths: list[float] = []
        loss = before = kl = tokens = 0.0
        with in_eval_mode(model):
            for _, logits, targets, row in self._forwards(model, old):
                margins.append(log_odds_margin(logits, targets, RIVALS))
                matches, log_probs = (logits.argmax(dim=1) == targets).cpu(), log_prob(logits, targets).cpu()
                for number in range(int(row.max()) + 1):
                    own = row.cpu() == number
                    probabilities.append(probability(log_probs[own]))
                    # As in evaluation: the token that ends the turn is no content to have by heart.
                    strengths.append(extraction_strength(matches[own][:-1]))
            for chosen, logits, targets, _ in self._forwards(model, [self.normal[n] for n in normal]):
                known = [self.reference[normal[place]] for place in chosen]
                loss -= float(log_prob(logits, targets).sum())
                before -= float(torch.cat([r.log_prob for r in known]).sum())
                top_ids = torch.cat([r.top_ids for r in known]).long().to(logits.device)
                top = torch.cat([r.top_log_probs for r in known]).to(logits.device)
                kl += float(top_k_kl(logits, top_ids, top).sum())
                tokens += len(targets)
        return Probe(
            step=step,
            probability=sum(probabilities) / len(probabilities),
            share=share_preferred(torch.cat(margins), self.rho),
            extraction_strength=sum(strengths) / len(strengths),
            normal_ratio=_exp((loss - before) / tokens) if tokens else 1.0,
            kl=kl / tokens if tokens else 0.0,
        )

    def _forwards(
        self, model: Model, sequences: Sequence[Encoded]
    ) -> Iterator[tuple[list[int], Tensor, Tensor, Tensor]]:
        for chosen in batches(sequences, self.batch_size):
            batch = batch_for(model, [sequences[n] for n in chosen], self.tokenizer.pad_token_id, self.prefix)
            yield chosen, *answer_logits(model, batch, self.prefix)

    @torch.no_grad()
    def _repetition(self, model: Model) -> float:
        prompts = [s.ids[: s.answer_mask.index(True)] for s in spread(self.old, GENERATED)]
        device = next(model.parameters()).device
        batch = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(device)
        with in_eval_mode(model):
            output = model.generate(
                **batch, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=self.tokenizer.pad_token_id
            )
        answers = self.tokenizer.batch_decode(output[:, batch["input_ids"].size(1) :], skip_special_tokens=True)
        return sum(repetition(answer) for answer in answers) / len(answers)


def _exp(exponent: float) -> float:
    """Infinity where the result is no float any more: a model that far off has diverged."""
    try:
        return math.exp(exponent)
    except OverflowError:
        return math.inf
