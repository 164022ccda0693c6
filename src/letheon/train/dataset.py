"""What one training example is: a dialogue to forget, an answer to expect instead, and normal dialogues beside it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

from letheon.chat import Encoded, answered_by
from letheon.forward import collate
from letheon.objective import GROUPS, Group
from letheon.prefix import FrozenPrefix


@dataclass(frozen=True)
class Forget:
    """A tokenised item of the forget set.

    Attributes:
        old: The prompt with the undesired answer.
        expected: The prompt with each expected answer.
        weights: Probability of drawing each of them (the cluster's weights).
        ways: The same asked in other ways: half of the time one of them stands for it.
    """

    old: Encoded
    expected: tuple[Encoded, ...]
    weights: tuple[float, ...]
    ways: tuple[Forget, ...] = ()


@dataclass(frozen=True)
class Sequence_:
    """A sequence in a batch: which part of the objective it serves, and its place in the reference cache, if any."""

    part: Group
    encoded: Encoded
    key: int | None


def _nothing(epoch: int) -> None:
    pass


class UnlearnDataset(torch.utils.data.Dataset[list[Sequence_]]):
    """Map-style dataset, one item per dialogue to forget; without any, one per normal dialogue (fine-tuning).

    What is drawn beside a dialogue depends on seed, epoch and index alone: not on the batch size, nor on what was
    drawn before, so a resumed run sees what the unbroken one would have seen.

    Args:
        forget: What to forget.
        normal: What to keep.
        normal_per_forget: Normal dialogues beside each one to forget.
        seed: Of the draws.
        cached: Whether the reference cache is about these data; not so for those of an evaluation.
        pushed: Whether the old answers are in the batches; not so where no term reads them.
        rejecting: Whether the expected answer that is drawn is also put in the place of the normal ones, for a term
            that reads it there; they are sequences of one answer then.
    """

    def __init__(
        self,
        forget: Sequence[Forget],
        normal: Sequence[Encoded],
        *,
        normal_per_forget: int = 1,
        seed: int = 0,
        cached: bool = True,
        pushed: bool = True,
        rejecting: bool = False,
    ):
        self.forget = list(forget)
        self.normal = list(normal)
        self.normal_per_forget = normal_per_forget
        self.seed = seed
        self.cached = cached
        self.pushed = pushed
        self.rejecting = rejecting
        self.epoch = 0
        self.on_epoch: Callable[[int], None] = _nothing
        """Called before an epoch's data are taken."""

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader at the start of each epoch."""
        self.epoch = epoch
        self.on_epoch(epoch)

    def __getstate__(self) -> dict[str, Any]:
        """What the data loader's workers get."""
        return {**vars(self), "on_epoch": _nothing}

    def __len__(self) -> int:
        return len(self.forget) or len(self.normal)

    def lengths(self) -> list[int]:
        """Tokens of the longest sequence of each item in this epoch."""
        return [max((len(one.encoded.ids) for one in self[index]), default=0) for index in range(len(self))]

    def __getitem__(self, index: int) -> list[Sequence_]:
        return self._item(index, self.epoch)

    def _item(self, index: int, epoch: int) -> list[Sequence_]:
        if not self.forget:
            return [Sequence_("normal", self.normal[index], index if self.cached else None)]
        draw = random.Random(f"{self.seed}-{epoch}-{index}")
        number, ways = index, len(self.forget[index].ways)
        if ways and (way := draw.randrange(2 * ways)) < ways:
            number = self._first_way[index] + way
        item = self.every[number]
        sequences = [Sequence_("negative", item.old, number)] if self.pushed else []
        if item.expected:
            chosen = draw.choices(range(len(item.expected)), item.weights)[0]
            sequences.append(Sequence_("positive", item.expected[chosen], self._first_expected[number] + chosen))
        if self.normal:
            # Dealt in turn from shuffled decks, so that all normal dialogues are used equally often.
            first = (epoch * len(self.forget) + index) * self.normal_per_forget
            for place in range(first, first + self.normal_per_forget):
                deck, card = divmod(place, len(self.normal))
                number = self._deck(deck)[card]
                sequences.append(Sequence_("normal", self.normal[number], number))
                if self.rejecting:
                    # As it is said to the item itself: other ways may have begun it.
                    said = answered_by(self.normal[number], self.forget[index].expected[chosen])
                    sequences.append(Sequence_("rejected", said, None))
        return sequences

    def sequences(self, epoch: int) -> list[Encoded]:
        """All that an epoch takes, in the order of the items."""
        return [sequence.encoded for index in range(len(self)) for sequence in self._item(index, epoch)]

    def dealt(self, epoch: int) -> set[int]:
        """The numbers of the normal dialogues that an epoch takes."""
        size = len(self.forget) * self.normal_per_forget
        places = range(epoch * size, (epoch + 1) * size) if self.normal else ()
        return {self._deck(place // len(self.normal))[place % len(self.normal)] for place in places}

    def _deck(self, number: int) -> list[int]:
        if self._decks.get(number) is None:
            order = list(range(len(self.normal)))
            random.Random(f"{self.seed}-deck-{number}").shuffle(order)
            self._decks[number] = order
        return self._decks[number]

    @property
    def expected(self) -> list[Encoded]:
        """The expected answers of all items and ways, in the order of their keys."""
        return [answer for item in self.every for answer in item.expected]

    @cached_property
    def every(self) -> list[Forget]:
        """All items, then the ways of each: their places are the keys of old answers."""
        return [*self.forget, *(way for item in self.forget for way in item.ways)]

    @cached_property
    def _first_way(self) -> list[int]:
        """The key of each item's first way."""
        return list(accumulate((len(item.ways) for item in self.forget), initial=len(self.forget)))

    @cached_property
    def _first_expected(self) -> list[int]:
        """The key of the first expected answer of each item and way."""
        return [0, *accumulate(len(item.expected) for item in self.every)]

    @cached_property
    def _decks(self) -> dict[int, list[int]]:
        return {}


class ByLength(Sampler[int]):
    """Items in random order, those of like length in one step.

    An epoch has one order, also where a run resumes in it.

    Args:
        dataset: The items.
        size: How many make a step.
    """

    def __init__(self, dataset: UnlearnDataset, size: int):
        self.dataset, self.size = dataset, size

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[int]:
        # Not the global state, which a resumed run comes with as another.
        draw = random.Random(f"{self.dataset.seed}-order-{self.dataset.epoch}")
        generator = torch.Generator().manual_seed(draw.getrandbits(32))
        return iter(get_length_grouped_indices(self.dataset.lengths(), self.size, generator=generator))


@dataclass(frozen=True)
class Reference:
    """What θ₀ said about one sequence's n answer tokens, on the CPU.

    Attributes:
        log_prob: (n,) log-probability of each token.
        top_ids: (n, k) int32, likeliest tokens.
        top_log_probs: (n, k) their log-probabilities.
        counts: (n,) bool, which tokens the loss counts.
    """

    log_prob: Tensor
    top_ids: Tensor
    top_log_probs: Tensor
    counts: Tensor


@dataclass
class Collator:
    """Collates items into one batch of all parts, with what the reference cache holds for them.

    Attributes:
        pad_token_id: Padding token.
        reference: By part, the reference of each key that occurs; parts without one get none.
        states: By part, the (n, d) states under θ₀ of each key that occurs, for parts whose term needs them.
        tops: The parts whose likeliest tokens under θ₀ are read.
        packed: Whether to pack, as of `letheon.forward.collate`.
        prefix: As of there.
        again: The parts that go through the model once more: a batch of theirs is put beside, as "again".
    """

    pad_token_id: int
    reference: dict[Group, dict[int, Reference]]
    states: dict[Group, dict[int, Tensor]] = field(default_factory=dict)
    tops: frozenset[Group] = frozenset()
    packed: bool = False
    prefix: FrozenPrefix | None = None
    again: frozenset[Group] = frozenset()

    def __call__(self, items: Sequence[list[Sequence_]]) -> dict[str, Any]:
        """Flatten, group by part (negative, positive, normal, rejected)."""
        sequences = sorted((s for item in items for s in item), key=lambda s: GROUPS.index(s.part))
        batch = self._batch(sequences)
        if again := [s for s in sequences if s.part in self.again]:
            batch["again"] = self._batch(again)
        return batch

    def _batch(self, sequences: Sequence[Sequence_]) -> dict[str, Any]:
        batch: dict[str, Any] = collate(
            [s.encoded for s in sequences], self.pad_token_id, packed=self.packed, prefix=self.prefix
        )
        batch["part"] = torch.tensor([GROUPS.index(s.part) for s in sequences])
        counts, log_probs = [], []
        for sequence in sequences:
            size = sum(sequence.encoded.answer_mask)
            cache = self.reference.get(sequence.part)
            found = cache[sequence.key] if cache and sequence.key is not None else None
            counts.append(found.counts if found else torch.ones(size, dtype=torch.bool))
            log_probs.append(found.log_prob if found else torch.zeros(size))
        batch["counts"] = torch.cat(counts)
        batch["reference_log_prob"] = torch.cat(log_probs)
        tops = [
            self.reference[s.part][s.key]
            for s in sequences
            if s.part in self.tops and s.key is not None and s.part in self.reference
        ]
        if tops:
            batch["reference_top_ids"] = torch.cat([r.top_ids for r in tops]).long()
            batch["reference_top_log_probs"] = torch.cat([r.top_log_probs for r in tops])
        states = [self.states[s.part][s.key] for s in sequences if s.part in self.states and s.key is not None]
        if states:
            batch["reference_states"] = torch.cat(states)
        return batch
