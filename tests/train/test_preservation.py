"""IDK+AP through the trainer: abstentions in the place of normal answers, and what a step makes of them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from letheon.chat import Encoded, encode_reply
from letheon.errors import InputError
from letheon.expected import Target
from letheon.objective import AnswerPreservation, ClusterMean, CrossEntropy, Objective
from letheon.records import Dialogue, Message
from letheon.train import UnlearnTrainer

Make = Callable[..., UnlearnTrainer]
IDK_AP = Objective(None, ClusterMean(), AnswerPreservation(beta=0.5), weights=(0.0, 0.25, 2.0))
LONG = Dialogue(
    id="long",
    messages=tuple(
        Message(role=role, content=text)
        for role, text in [("user", "Hi"), ("assistant", "Hello"), ("user", "2 + 2?"), ("assistant", "four")]
    ),
)


def log_prob(model: Any, sequence: Encoded) -> Tensor:
    """log π of the marked tokens, one sequence alone."""
    ids, at = torch.tensor([sequence.ids]), torch.tensor(sequence.answer_mask).nonzero()[:, 0]
    found: Tensor = model(ids).logits[0, at - 1].log_softmax(dim=1).gather(1, ids[0, at][:, None]).sum()
    return found


def test_each_normal_answer_has_the_drawn_abstention_in_its_place(
    make_trainer: Make, tiny_tokenizer: Any, normal: list[Dialogue], targets: list[Target]
) -> None:
    dataset = make_trainer(objective=IDK_AP, normal_dataset=[LONG, *normal], normal_per_forget=2).train_dataset
    # Of a dialogue with two answers, each stands for itself.
    assert len(dataset.normal) == len(normal) + 2
    prompts = [LONG.messages[:1], LONG.messages[:3], *(dialogue.messages[:1] for dialogue in normal)]
    said = set()
    for number, target in enumerate(targets):
        positive, *rest = dataset[number]
        assert [s.part for s in rest] == ["normal", "rejected"] * 2
        drawn = next(
            a for a in target.answers if encode_reply(tiny_tokenizer, target.turn.prompt, a) == positive.encoded
        )
        said.add(drawn)
        for kept, rejected in zip(rest[::2], rest[1::2], strict=True):
            assert kept.key is not None
            assert rejected.encoded == encode_reply(tiny_tokenizer, prompts[kept.key], drawn)
            assert rejected.key is None
    assert len(said) == 2


def test_a_step_is_that_of_the_formula(
    make_trainer: Make, one_descent: dict[str, Any], normal: list[Dialogue]
) -> None:
    """Against passes by hand, one sequence at a time: prompts and padding have no loss."""
    own = {"objective": IDK_AP, "dual_rate": 0.0, "normal_dataset": [LONG, *normal]}
    trainer = make_trainer(**one_descent, **own)
    model = copy.deepcopy(trainer.model)
    sequences = [s for number in range(8) for s in trainer.train_dataset[number]]

    def of(part: str) -> Sequence[Encoded]:
        return [s.encoded for s in sequences if s.part == part]

    tokens = sum(sum(s.answer_mask) for s in of("positive"))
    loss = -0.25 * torch.stack([log_prob(model, s) for s in of("positive")]).sum() / tokens
    leads = [
        log_prob(model, kept) - log_prob(model, rejected)
        for kept, rejected in zip(of("normal"), of("rejected"), strict=True)
    ]
    loss = loss + 2.0 * torch.stack([torch.log1p(torch.exp(-0.5 * lead)) / 0.5 for lead in leads]).mean()
    loss.backward()
    trainer.train()
    for (name, start), (_, end) in zip(model.named_parameters(), trainer.model.named_parameters(), strict=True):
        assert start.grad is not None
        torch.testing.assert_close(end.detach(), (start - start.grad).detach(), rtol=1e-3, atol=2e-5, msg=name)


def test_eight_micro_batches_of_1_are_one_batch_of_8(make_trainer: Make) -> None:
    whole = make_trainer("whole", objective=IDK_AP, per_device_train_batch_size=8)
    split = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8}
    pieces = make_trainer("pieces", objective=IDK_AP, **split)
    whole.train()
    pieces.train()
    for one, other in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        assert float((one - other).detach().abs().max()) < 2e-5
    for key in ("positive", "normal", "grad_norm"):
        logged = [[row[key] for row in t.state.log_history if key in row] for t in (whole, pieces)]
        assert logged[0] == pytest.approx(logged[1], rel=1e-3), key


def test_it_teaches_abstentions_and_keeps_normal_answers_from_them(make_trainer: Make) -> None:
    """Beside refusal alone, which spreads."""

    def lead(objective: Objective) -> tuple[float, float]:
        trainer = make_trainer(objective=objective, max_steps=24, learning_rate=3e-3, directions=0, dual_rate=0.0)
        trainer.train()
        model, data = trainer.model.eval(), make_trainer("look", objective=IDK_AP).train_dataset
        items = [s for number in range(8) for s in data[number]]
        with torch.no_grad():
            taught, kept, rejected = (
                float(torch.stack([log_prob(model, s.encoded) for s in items if s.part == part]).mean())
                for part in ("positive", "normal", "rejected")
            )
        return taught, kept - rejected

    alone, preserved = (
        lead(Objective(None, ClusterMean(), None)),
        lead(Objective(None, ClusterMean(), AnswerPreservation())),
    )
    assert preserved[1] > alone[1] + 5
    # Some ten tokens: before, each of them has −10.
    assert preserved[0] > -10


def test_what_it_cannot_read_is_refused(make_trainer: Make, targets: list[Target], normal: list[Dialogue]) -> None:
    bare = [Target(target.turn, (), "data") for target in targets]
    with pytest.raises(InputError, match="AnswerPreservation needs an expected answer for each to forget"):
        make_trainer(objective=IDK_AP, forget_dataset=bare)
    with pytest.raises(InputError, match="AnswerPreservation needs an expected answer for each to forget"):
        make_trainer(objective=IDK_AP, forget_dataset=None)
    asked = normal[0].model_copy(
        update={"messages": (Message(role="user", content="?" * 60), *normal[0].messages[1:])}
    )
    rows = [asked, *normal]
    # Twelve tokens of the longer abstention and the one that ends it do not fit where "four" does.
    longest = max(len(sequence.ids) for sequence in make_trainer(normal_dataset=rows).train_dataset.normal)
    with pytest.raises(InputError, match=r"normal_dataset: a prompt has \d+ tokens and an expected answer \d+, but"):
        make_trainer(objective=IDK_AP, normal_dataset=rows, max_length=longest)
    assert make_trainer(objective=Objective(None, None, CrossEntropy()), normal_dataset=rows, max_length=longest)
    assert make_trainer(objective=IDK_AP, normal_dataset=rows, max_length=longest + 8)
