"""MiniLM tuned on the labelled examples: a second opinion beside the kernel ridge of the embedding judge."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from letheon.console import OnProgress
from letheon.embed import WINDOW, Embedder
from letheon.screen.features import Matrix, Pair
from letheon.screen.head import BACKGROUND, Bools, Data, Fold, Ints, calibrate, softmax

FEWEST = 200
"""Labelled examples that tuning needs, by judgement: with 300 it gained on one set and lost on another."""
LAYERS = 4
"""Of MiniLM's six, from below."""
EPOCHS, BATCH = 4, 16
RATE, DECAY, HEAD_RATE = 4e-4, 0.7, 1e-3
"""Learning rates: layer l of L has RATE · DECAY^(L + 1 − l), the new head its own; word embeddings are left alone."""
WARM_UP = 0.1
"""Share of the steps over which the rates rise, before they fall to nothing in a straight line."""
SETTLED = 0.6
"""Share of the steps after which the weights are near each other; their mean is better than the last of them."""


class TunedEncoder:
    """An encoder and a linear head, tuned end to end on a question and its answer read together.

    f(q, a) = W h̄ + b, where h̄ is the mean over tokens of the fourth layer's states of "[CLS] q [SEP] a [SEP]": each
    word of the answer is seen beside the question's. The loss is −log softmax(f) of the category, by AdamW, and the
    weights are the mean of those after each of the last steps (Izmailov et al., arXiv 1803.05407).

    Args:
        embedder: Whose encoder is copied; its own is left as it is.
        categories: How many scores there are.
    """

    def __init__(self, embedder: Embedder, categories: int):
        import torch

        self._tokenizer, network = embedder.encoder()
        self._network = copy.deepcopy(network).float()
        self._network.encoder.layer = self._network.encoder.layer[:LAYERS]
        self._network.embeddings.requires_grad_(False)
        width = self._network.config.hidden_size
        self._head = torch.nn.Linear(width, categories, device=self._network.device)
        torch.nn.init.normal_(self._head.weight, std=0.02)
        torch.nn.init.zeros_(self._head.bias)

    @classmethod
    def fit(
        cls,
        embedder: Embedder,
        pairs: Sequence[Pair],
        targets: Ints,
        categories: int,
        seed: int = 0,
        stepped: Callable[[], None] = lambda: None,
    ) -> TunedEncoder:
        """Tune a copy of the embedder's encoder.

        Args:
            embedder: Where to begin.
            pairs: Questions and answers.
            targets: (n,) their categories.
            categories: How many there are.
            seed: Of the head, the order and dropout. The global random state is left alone.
            stepped: Called after each of `steps_of(n)` steps.
        """
        import torch

        device = embedder.encoder()[1].device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            tuned, mean = cls(embedder, categories), cls(embedder, categories)
            groups: list[dict[str, Any]] = [
                {"params": layer.parameters(), "lr": RATE * DECAY**below}
                for below, layer in enumerate(reversed(tuned._network.encoder.layer), start=1)
            ]
            groups.append({"params": tuned._head.parameters(), "lr": HEAD_RATE})
            optimizer = torch.optim.AdamW(groups, fused=True)
            total = steps_of(len(pairs))
            schedule = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: min((step + 1) / (WARM_UP * total), (total - step) / ((1 - WARM_UP) * total))
            )
            tuned._network.train()
            for step, batch in enumerate(_batches(pairs, seed), start=1):
                wanted = torch.as_tensor(targets[batch], dtype=torch.long, device=device)
                tuned.loss(tuned.states([pairs[n] for n in batch]), wanted).backward()
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                if (last := step - int(SETTLED * total)) > 0:
                    mean.towards(tuned, 1 / last)
                stepped()
            mean._network.eval()
        return mean

    def loss(self, states: Any, targets: Any) -> Any:
        """What a step lowers, of a batch's h̄ (B, width) and categories (B,): −log softmax(f) of the category."""
        import torch

        dropped = torch.nn.functional.dropout(states, self._network.config.hidden_dropout_prob)
        return torch.nn.functional.cross_entropy(self._head(dropped), targets)

    def towards(self, other: TunedEncoder, share: float) -> None:
        """Move every weight that learns: w ← w + share · (w′ − w). With 1/n for the n-th, it becomes their mean."""
        import torch

        with torch.no_grad():
            for own, new in zip(self._learning(), other._learning(), strict=True):
                own.lerp_(new, share)

    def _learning(self) -> list[Any]:
        return [*self._network.encoder.parameters(), *self._head.parameters()]

    def scores(self, pairs: Sequence[Pair]) -> Matrix:
        """F of each pair, (n, categories)."""
        return self._read(pairs, self._head, self._head.out_features)

    def _read(self, pairs: Sequence[Pair], make: Callable[[Any], Any], width: int) -> Matrix:
        """What `make` makes of h̄ of each pair, (n, width)."""
        import torch

        order = sorted(range(len(pairs)), key=lambda n: _length(pairs[n]))
        made = np.zeros((len(pairs), width))
        with torch.no_grad():
            for start in range(0, len(order), BATCH):
                chosen = order[start : start + BATCH]
                made[chosen] = make(self.states([pairs[n] for n in chosen])).cpu().numpy()
        return made

    def states(self, pairs: Sequence[Pair]) -> Any:
        """The mean h̄ over tokens, (B, width)."""
        import torch

        from letheon.models import fast_bf16

        questions, answers = zip(*pairs, strict=True)
        batch = self._tokenizer(
            list(questions), list(answers), padding=True, truncation=True, max_length=WINDOW, return_tensors="pt"
        ).to(self._network.device)
        with torch.autocast(self._network.device.type, torch.bfloat16, enabled=fast_bf16()):
            states = self._network(**batch).last_hidden_state.float()  # (B, T, width)
        mask = batch["attention_mask"][..., None].float()
        return (states * mask).sum(1) / mask.sum(1)


@dataclass(frozen=True)
class SecondOpinion:
    """Averages what the kernel ridge thinks with what a tuned encoder thinks.

    P = softmax((log P_ridge + log softmax(f / T₁)) / (2 T₂)): the mean of their log-probabilities, sharpened where
    both together know more than either.

    Attributes:
        encoder: Gives f.
        own: T₁ > 0.
        both: T₂ > 0.
    """

    encoder: TunedEncoder
    own: float
    both: float

    def beside(self, ridge: Matrix, pairs: Sequence[Pair]) -> Matrix:
        """Probabilities (n, categories) of pairs, given those of the kernel ridge."""
        return softmax(_mean_log(ridge, softmax(self.encoder.scores(pairs) / self.own)) / self.both)


def fit_second_opinion(
    embedder: Embedder,
    pairs: Sequence[Pair],
    data: Data,
    folds: Sequence[Fold],
    ridge: Matrix,
    seed: int = 0,
    progress: OnProgress | None = None,
) -> tuple[SecondOpinion, Matrix]:
    """Tune on each fold's training examples; the mean of their weights is the encoder.

    All begin alike, so that their mean is as good as an encoder tuned once more on everything, and nothing is tuned
    that does not also say what it thinks of examples it has not seen.

    Args:
        embedder: Where to begin.
        pairs: The rows of `data` as texts.
        data: Targets and owners are used.
        folds: Those of the kernel ridge.
        ridge: (labelled examples, categories), its probabilities out of fold.
        seed: Of the tuning.
        progress: Called with steps done and all steps.

    Returns:
        The second opinion, and probabilities (labelled examples, categories) out of fold.
    """
    rows = [np.flatnonzero(np.isin(data.owners, [*train, BACKGROUND])) for train, _ in folds]
    total, done = sum(steps_of(len(own)) for own in rows), 0

    def stepped() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    if progress is not None:
        progress(0, total)
    scores, encoder = np.zeros_like(ridge), None
    for number, (own, (_, test)) in enumerate(zip(rows, folds, strict=True), start=1):
        known = [pairs[int(n)] for n in own]
        tuned = TunedEncoder.fit(embedder, known, data.targets[own], len(data.categories), seed, stepped)
        scores[test] = tuned.scores([pairs[int(n)] for n in test])
        encoder = encoder or tuned
        encoder.towards(tuned, 1 / number)
    assert encoder is not None
    undesired: Bools = data.targets[: len(ridge)] != 0
    first = calibrate(scores, undesired)
    mean = _mean_log(ridge, softmax(scores / first))
    second = calibrate(mean, undesired)
    return SecondOpinion(encoder, first, second), softmax(mean / second)


def steps_of(examples: int) -> int:
    """Steps that tuning on so many examples takes."""
    return EPOCHS * -(-examples // BATCH)


def _batches(pairs: Sequence[Pair], seed: int) -> Iterator[NDArray[np.int_]]:
    """Each epoch's batches: of nearly equal length, so that little is padding, in any order."""
    draw = np.random.default_rng(seed)
    lengths = np.array([_length(pair) for pair in pairs])
    for _ in range(EPOCHS):
        order = np.argsort(lengths * draw.uniform(0.8, 1.25, len(pairs)))
        for start in draw.permutation(range(0, len(pairs), BATCH)):
            yield order[start : start + BATCH]


def _length(pair: Pair) -> int:
    return len(pair[0]) + len(pair[1])


def _mean_log(left: Matrix, right: Matrix) -> Matrix:
    return np.asarray((np.log(np.maximum(left, 1e-12)) + np.log(np.maximum(right, 1e-12))) / 2)
