from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from letheon.chat import Encoded
from letheon.train.dataset import ByLength, Collator, Forget, Reference, Sequence_, UnlearnDataset


def encoded(*ids: int, answer: int = 1) -> Encoded:
    """The last `answer` tokens count."""
    return Encoded(list(ids), [False] * (len(ids) - answer) + [True] * answer)


def made_up(forget: int = 5, normal: int = 7, **options: Any) -> UnlearnDataset:
    return UnlearnDataset(
        [Forget(encoded(0, n), tuple(encoded(1, n, k) for k in range(4)), (0.25,) * 4) for n in range(forget)],
        [encoded(2, n) for n in range(normal)],
        **options,
    )


def all_of(dataset: UnlearnDataset, epoch: int) -> list[list[Sequence_]]:
    dataset.set_epoch(epoch)
    return [dataset[n] for n in range(len(dataset))]


def test_an_item_has_the_old_answer_an_expected_one_and_normal_ones() -> None:
    dataset = made_up(normal_per_forget=3)
    assert len(dataset) == 5
    for index in range(5):
        item = dataset[index]
        assert [s.part for s in item] == ["negative", "positive", "normal", "normal", "normal"]
        assert item[0].encoded == encoded(0, index)
        assert item[1].encoded.ids[:2] == [1, index]
        assert all(dataset.normal[s.key] == s.encoded for s in item[2:])
        assert item[0].key == index


def test_what_is_drawn_depends_on_seed_epoch_and_index_alone() -> None:
    first, second = made_up(), made_up()
    in_order = all_of(first, 3)
    second.set_epoch(1)
    _ = second[4], second[0]
    second.set_epoch(3)
    torch.rand(5)
    assert [second[n] for n in reversed(range(5))] == in_order[::-1]
    assert all_of(second, 3) == in_order
    assert all_of(first, 4) != in_order
    assert all_of(made_up(seed=1), 3) != in_order


def test_draws_decks_and_order_are_each_of_the_seed() -> None:
    first, other = (made_up(forget=30, seed=seed) for seed in (0, 1))
    for part in ("positive", "normal"):
        drawn = [
            [one.encoded for item in all_of(dataset, 2) for one in item if one.part == part]
            for dataset in (first, other)
        ]
        assert drawn[0] != drawn[1]
    assert list(ByLength(first, 2)) != list(ByLength(other, 2))


def test_what_is_rejected_is_said_to_the_item_itself() -> None:
    """Another way may have begun the answer: the rest of it alone is no answer to a normal question."""
    way = Forget(encoded(0, 1, 3), (encoded(1, 1, 6),), (1.0,))
    item = Forget(encoded(0, 3), (encoded(1, 5, 6, answer=2),), (1.0,), (way,))
    dataset = UnlearnDataset([item], [encoded(2, 4)], rejecting=True)
    seen = set()
    for epoch in range(20):
        _, positive, _, rejected = all_of(dataset, epoch)[0]
        seen.add(tuple(positive.encoded.ids))
        assert rejected.encoded == encoded(2, 5, 6, answer=2)
    assert seen == {(1, 5, 6), (1, 1, 6)}


@pytest.mark.parametrize("per_forget", [1, 2, 9])
def test_normal_dialogues_are_used_equally(per_forget: int) -> None:
    dataset = made_up(normal_per_forget=per_forget)
    used: Counter[int] = Counter()
    for epoch in range(11):
        used.update(s.key for item in all_of(dataset, epoch) for s in item if s.part == "normal")
    assert used.total() == 11 * 5 * per_forget
    # Decks are dealt out in full but for the last.
    assert len(used) == 7
    assert max(used.values()) - min(used.values()) <= 1


def test_expected_answers_are_drawn_by_their_weights() -> None:
    weights = (0.7, 0.3, 0.0)
    item = Forget(encoded(0, 0), tuple(encoded(1, k) for k in range(3)), weights)
    dataset = UnlearnDataset([item], [])
    drawn = Counter(all_of(dataset, epoch)[0][1].encoded.ids[1] for epoch in range(1000))
    assert [drawn[k] / 1000 for k in range(3)] == pytest.approx(weights, abs=0.05)
    assert drawn[2] == 0


def test_without_anything_to_forget_each_normal_dialogue_is_an_item() -> None:
    dataset = made_up(forget=0)
    assert [[s.encoded for s in item] for item in all_of(dataset, 0)] == [[encoded(2, n)] for n in range(7)]


def test_without_normal_or_expected_there_is_the_old_answer_alone() -> None:
    assert [s.part for s in UnlearnDataset([Forget(encoded(0, 1), (), ())], [])[0]] == ["negative"]


def test_old_answers_that_no_term_reads_are_not_run() -> None:
    item = Forget(encoded(0, 1), (encoded(0, 2),), (1.0,))
    dataset = UnlearnDataset([item], [encoded(7, 8)], pushed=False)
    assert [s.part for s in dataset[0]] == ["positive", "normal"]


def test_the_loader_of_accelerate_passes_the_epoch_on() -> None:
    dataset = made_up()
    loader = Accelerator(cpu=True).prepare(torch.utils.data.DataLoader(dataset, batch_size=2, collate_fn=list))
    drawn = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        drawn.append([[s.encoded.ids for s in item] for batch in loader for item in batch])
        assert dataset.epoch == epoch
    assert drawn[0] != drawn[1] != drawn[2]


def reference(size: int, fill: float, counts: list[bool] | None = None) -> Reference:
    return Reference(
        torch.full((size,), fill),
        torch.full((size, 2), int(-fill)),
        torch.full((size, 2), fill),
        torch.tensor(counts or [True] * size),
    )


def test_collator_sorts_by_part_and_keeps_each_token_beside_its_reference() -> None:
    items = [
        [Sequence_("negative", encoded(5, 6, 7, answer=2), 1), Sequence_("normal", encoded(8, 9), 0)],
        [
            Sequence_("negative", encoded(3, 4), 0),
            Sequence_("positive", encoded(1, 1, 2), 0),
            Sequence_("normal", encoded(8, 8, 9, 9, answer=3), 2),
        ],
    ]
    collator = Collator(
        0,
        {
            "negative": [reference(1, -1), reference(2, -2, [False, True])],
            "normal": [reference(1, -3), reference(9, -4), reference(3, -5)],
        },
        tops=frozenset({"normal"}),
    )
    batch = collator(items)
    assert batch["part"].tolist() == [0, 0, 1, 2, 2]
    assert batch["input_ids"].tolist() == [
        [0, 5, 6, 7],
        [0, 0, 3, 4],
        [0, 1, 1, 2],
        [0, 0, 8, 9],
        [8, 8, 9, 9],
    ]
    assert batch["attention_mask"].sum(dim=1).tolist() == [3, 2, 3, 2, 4]
    # Row by row, as `answer_logits` gives the tokens.
    assert len(batch["targets"]) == 8
    assert batch["reference_log_prob"].tolist() == [-2, -2, -1, 0, -3, -5, -5, -5]
    assert batch["counts"].tolist() == [False, True, True, True, True, True, True, True]
    assert batch["reference_top_ids"].tolist() == [[3, 3], [5, 5], [5, 5], [5, 5]]
    collator.tops = frozenset({"negative", "normal"})
    found = collator(items)["reference_top_log_probs"]
    assert found[:, 0].tolist() == [-2, -2, -1, -3, -5, -5, -5]
    collator.tops = frozenset()
    assert "reference_top_ids" not in collator(items)
    assert "again" not in collator(items)


def test_collator_puts_what_is_passed_through_again_beside() -> None:
    negative, normal = Sequence_("negative", encoded(5, 6, 7, answer=2), 0), Sequence_("normal", encoded(8, 9), 0)
    collator = Collator(0, {"negative": {0: reference(2, -2)}}, again=frozenset({"negative"}))
    batch, alone = collator([[negative, normal]]), collator([[negative]])
    assert batch["part"].tolist() == [0, 2]
    again = alone.pop("again")
    assert batch["again"].keys() == again.keys() == alone.keys()
    for key, value in alone.items():
        assert torch.equal(batch["again"][key], value)
    # An evaluation has normal answers alone.
    assert "again" not in collator([[normal]])


def test_lengths_are_those_of_the_longest_sequences() -> None:
    short, long = Encoded([1, 2], [False, True]), Encoded([1, 2, 3, 4], [False, True, True, True])
    assert UnlearnDataset([], [short, long]).lengths() == [2, 4]
    assert UnlearnDataset([Forget(long, (short,), (1.0,))], [short, short]).lengths() == [4]
    assert UnlearnDataset([Forget(short, (long,), (1.0,))], [short]).lengths() == [4]
    dealt = UnlearnDataset([Forget(short, (), ())], [short, long])
    by_epoch = []
    for epoch in range(2):
        dealt.set_epoch(epoch)
        by_epoch += dealt.lengths()
    assert sorted(by_epoch) == [2, 4]


def test_by_length_a_step_has_little_padding_and_an_epoch_one_order() -> None:
    lengths = [2 + 7 * n % 31 for n in range(310)]
    dataset = UnlearnDataset([], [Encoded([1] * n, [False] + [True] * (n - 1)) for n in lengths])
    sampler = ByLength(dataset, 4)
    first = list(sampler)
    assert sorted(first) == list(range(len(sampler)))
    assert list(sampler) == first
    dataset.set_epoch(1)
    assert list(sampler) != first

    def padding(order: Sequence[int]) -> int:
        steps = [[lengths[n] for n in order[at : at + 4]] for at in range(0, len(order), 4)]
        return sum(max(step) - length for step in steps for length in step)

    # The longest item of all comes first.
    assert lengths[first[0]] == max(lengths)
    assert padding(first) < padding(range(310)) / 4
