"""Probes against a plain sum over single sequences."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from letheon.chat import Encoded
from letheon.store import Store
from letheon.train.probe import FEW, GENERATED, Prober
from letheon.train.reference import ReferenceCache
from letheon.train.stop import Probe


def drawn(count: int) -> list[Encoded]:
    """Sequences of odd lengths, the second half of each an answer."""
    draw = random.Random(0)
    sequences = []
    for _ in range(count):
        length = draw.randint(5, 11)
        ids = [draw.randint(1, 30) for _ in range(length)]
        sequences.append(Encoded(ids, [place > length // 2 for place in range(length)]))
    return sequences


def moved(before: Any, after: Any, sequence: Encoded) -> tuple[float, float, int]:
    """Sums of KL and of what the log-probability lost, and tokens."""
    ids, answer = torch.tensor(sequence.ids), torch.tensor(sequence.answer_mask)[1:]
    with torch.no_grad():
        old, new = (model(ids[None]).logits[0, :-1].log_softmax(dim=1)[answer] for model in (before, after))
    own = ids[1:][answer][:, None]
    return (
        float((old.exp() * (old - new)).sum()),
        float((old.gather(1, own) - new.gather(1, own)).sum()),
        int(answer.sum()),
    )


def shaken(before: Any) -> Any:
    """The same model with its weights moved."""
    after = copy.deepcopy(before)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return after


COUNT = 9


def test_guards_are_means_over_all_normal_tokens(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    before, normal = tiny_model(), drawn(COUNT)
    cache = ReferenceCache(Store(), None, top_k=before.config.vocab_size, pad_token_id=0, batch_size=5)
    after = shaken(before)
    prober = Prober(normal, normal, cache(before, normal), tokenizer=tiny_tokenizer, size=COUNT, batch_size=5)
    known = [moved(before, after, sequence) for sequence in normal]
    kl, lost, tokens = (sum(values) for values in zip(*known, strict=True))
    found = prober.whole(after, 3)
    assert found.kl == pytest.approx(kl / tokens, rel=1e-4)
    assert found.normal_ratio == pytest.approx(math.exp(lost / tokens), rel=1e-4)
    for parameter in after.parameters():
        parameter.data.fill_(math.nan)
    assert not math.isfinite(prober.whole(after, 3).kl)


def test_a_whole_probe_sees_all_of_either_kind(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model, many = tiny_model(), drawn(COUNT)
    reference = ReferenceCache(Store(), None, top_k=4, pad_token_id=0, batch_size=5)(model, many)
    after = shaken(model)
    found = [
        Prober(old, normal, reference, tokenizer=tiny_tokenizer, size=1, batch_size=5).whole(after, 3)
        for old, normal in ((many[:1], many), (many, many[:1]), (many, many))
    ]
    assert found[0].normal_ratio == pytest.approx(found[2].normal_ratio)
    assert found[1].probability == pytest.approx(found[2].probability)


def test_old_answers_count_alike_and_what_ends_a_turn_is_no_content(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    """One is known by heart but for its end, of the other, longer one nothing is."""
    model = tiny_model()

    def said(size: int, *, by_heart: bool) -> list[int]:
        ids = [5, 6, 7]
        with torch.no_grad():
            for place in range(size):
                logits = model(torch.tensor([ids])).logits[0, -1]
                ids.append(int(logits.argmax() if by_heart and place < size - 1 else logits.argmin()))
        return ids

    old = [
        Encoded(ids, [False] * 3 + [True] * (len(ids) - 3))
        for ids in (said(4, by_heart=True), said(9, by_heart=False))
    ]
    found = Prober(old, [], [], tokenizer=tiny_tokenizer, size=2, batch_size=2).quick(model, 0)
    assert found.extraction_strength == 0.5
    assert found.probability == pytest.approx(sum(math.exp(-mean_loss(model, one)) for one in old) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("size", "own", "pooled"), [(COUNT + 5, range(COUNT), range(COUNT + 5)), (3, (0, 3, 6), (0, 4, 9))]
)
def test_what_the_log_keeps_is_measured_apart_from_what_is_rehearsed(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, size: int, own: Sequence[int], pooled: Sequence[int]
) -> None:
    before, sequences = tiny_model(), drawn(COUNT + 5)
    cache = ReferenceCache(Store(), None, top_k=before.config.vocab_size, pad_token_id=0, batch_size=5)
    after = shaken(before)
    settings: dict[str, Any] = {"tokenizer": tiny_tokenizer, "size": size, "batch_size": 4}
    reference = cache(before, sequences)
    prober = Prober(sequences[:1], sequences[:COUNT], reference, rehearsed=sequences[COUNT:], **settings)
    found = prober.quick(after, 3)
    old, new = (sum(math.exp(-mean_loss(model, sequences[n])) for n in own) for model in (before, after))
    assert found.normal_kept == pytest.approx(new / old, rel=1e-4)
    assert abs(new / old - 1) > 0.01
    kl, lost, tokens = (sum(each) for each in zip(*(moved(before, after, sequences[n]) for n in pooled), strict=True))
    assert found.kl == pytest.approx(kl / tokens, rel=1e-4)
    assert found.normal_ratio == pytest.approx(math.exp(lost / tokens), rel=1e-4)
    assert prober.quick(before, 0).normal_kept == pytest.approx(1, abs=1e-5)
    # Too few to tell.
    few = Prober(sequences[:1], sequences[: FEW - 1], reference, rehearsed=sequences[FEW - 1 :], **settings)
    assert few.quick(after, 3).normal_kept is None


def test_repetition_is_that_of_unpunished_answers(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model, (sequence,) = tiny_model(), drawn(1)
    a, space = tiny_tokenizer("a ", add_special_tokens=False).input_ids

    def say_a_after_a(module: Any, args: Any, given: dict[str, Any], output: Any) -> None:
        likely = torch.where(given["input_ids"][:, -output.logits.size(1) :] == a, space, a)
        output.logits += 100 * torch.nn.functional.one_hot(likely, output.logits.size(-1))

    model.register_forward_hook(say_a_after_a, with_kwargs=True)
    prober = Prober([sequence], [], [], tokenizer=tiny_tokenizer, size=1, batch_size=1)
    # A model's own settings would hide it.
    model.generation_config.no_repeat_ngram_size = 2
    # Ten times "a a a", all of them alike.
    assert prober.with_answers(model, Probe(0, 0.5, 0.5, 1.0, 0.0)).repetition == pytest.approx(0.9)


def test_greedy_answers_are_to_spread_questions(tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[int]] = []

    def generate(model: Any, tokenizer: Any, prompts: Any, *given: Any, **options: Any) -> list[list[int]]:
        asked.extend(prompts)
        return [[5] for _ in prompts]

    monkeypatch.setattr("letheon.train.probe.generate", generate)
    old = drawn(2 * GENERATED)
    prober = Prober(old, [], [], tokenizer=tiny_tokenizer, size=1, batch_size=1)
    assert prober.with_answers(torch.nn.Linear(1, 1), Probe(0, 0.5, 0.5, 1.0, 0.0)).repetition == 0.0
    assert asked == [one.ids[: one.answer_mask.index(True)] for one in old[::2]]


def mean_loss(model: Any, sequence: Encoded) -> float:
    """Nats a token of the answer, by a forward pass of its own."""
    ids, answer = torch.tensor(sequence.ids), torch.tensor(sequence.answer_mask)[1:]
    with torch.no_grad():
        found = model(ids[None]).logits[0, :-1].double().log_softmax(dim=1)
    return -float(found.gather(1, ids[1:, None])[answer].mean())


@pytest.mark.parametrize("size", [4, COUNT])
def test_truth_probability_weighs_the_likeliest_expected_answer_against_the_old_one(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, size: int
) -> None:
    model, (old, others) = tiny_model().eval(), (drawn(COUNT), drawn(3 * COUNT))
    # From none to two expected answers.
    expected = [others[3 * number : 3 * number + number % 3] for number in range(COUNT)]
    cache = ReferenceCache(Store(), None, top_k=4, pad_token_id=0, batch_size=5)
    normal = old[:2]
    prober = Prober(old, normal, cache(model, normal), expected, tokenizer=tiny_tokenizer, size=size, batch_size=5)
    shares = []
    for number in range(COUNT) if size == COUNT else (0, 2, 4, 6):
        if expected[number]:
            best = max(math.exp(-mean_loss(model, one)) for one in expected[number])
            own = math.exp(-mean_loss(model, old[number]))
            shares.append(best / (best + own))
    found = prober.quick(model, 0)
    assert found.truth_probability == pytest.approx(sum(shares) / len(shares), rel=1e-5)
    nobody = Prober(old, normal, cache(model, normal), tokenizer=tiny_tokenizer, size=size, batch_size=5)
    assert nobody.quick(model, 0) == replace(found, truth_probability=None)
