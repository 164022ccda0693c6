"""The base: what it said is the level to which old answers go back, and no further."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from letheon.chat import encode_turn
from letheon.errors import InputError
from letheon.expected import Target
from letheon.objective import BaseOdds, Objective
from letheon.objective.negative.base import SURER
from letheon.recipe import check_recipe
from letheon.train import UnlearnTrainer
from letheon.train.base import ABOVE_EXTRACTION, ABOVE_PROBABILITY, BaseSaid, ask_base
from letheon.train.check import check_asked
from letheon.train.recipe_run import probed_of

Make = Callable[..., UnlearnTrainer]


def log_probs(model: Any, ids: list[int], answer: list[bool]) -> torch.Tensor:
    """(n,) of the answer's tokens."""
    given = torch.tensor(ids)
    with torch.no_grad():
        rows = model(given[None]).logits[0, :-1].log_softmax(dim=1)
    mask = torch.tensor(answer)[1:]
    found: torch.Tensor = rows[mask].gather(1, given[1:][mask][:, None])[:, 0]
    return found


@pytest.fixture
def said(tiny_model: Callable[..., Any], tiny_tokenizer: Any, targets: list[Target]) -> BaseSaid:
    return ask_base(tiny_model(), tiny_tokenizer, [target.turn for target in targets])


def test_what_the_base_said_is_its_softmax(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, targets: list[Target], said: BaseSaid
) -> None:
    model, known = tiny_model().eval(), []
    for target, found in zip(targets, said.log_probs, strict=True):
        encoded = encode_turn(tiny_tokenizer, target.turn)
        wanted = log_probs(model, encoded.ids, encoded.answer_mask)
        # bfloat16 where the machine has it.
        torch.testing.assert_close(found, wanted, atol=0.05, rtol=0.05)
        known.append(math.exp(wanted.mean()))
    assert said.probability == pytest.approx(sum(known) / len(known), rel=2e-2)
    assert 0 <= said.extraction_strength < 0.2


def test_the_level_is_that_of_what_is_probed(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, targets: list[Target], said: BaseSaid
) -> None:
    turns = [target.turn for target in targets]
    found, alone = (ask_base(tiny_model(), tiny_tokenizer, asked, turns[:1]) for asked in (turns, turns[:1]))
    assert found.probability == pytest.approx(alone.probability)
    assert found.probability != pytest.approx(said.probability)
    assert len(found.log_probs) == len(turns)
    with pytest.raises(InputError, match="at most 12 fit"):
        ask_base(tiny_model(), tiny_tokenizer, turns[:1], max_length=12)


def test_old_answers_go_back_to_the_base_and_stay(
    make_trainer: Make, tiny_model: Callable[..., Any], tiny_tokenizer: Any, targets: list[Target], said: BaseSaid
) -> None:
    """Not below it, where a hinge or gradient ascent would take them with as many steps."""
    objective = Objective(BaseOdds(), None, None, weights=(1.0, 0.0, 0.0))
    trainer = make_trainer(
        objective=objective, base=said, learning_rate=1e-2, max_steps=80, directions=0, normal_per_forget=0
    )
    encoded = [encode_turn(tiny_tokenizer, target.turn) for target in targets]
    base, before = tiny_model().eval(), trainer.model.eval()
    of_base, known = (
        torch.cat([log_probs(model, one.ids, one.answer_mask) for one in encoded]) for model in (base, before)
    )
    levels = torch.nn.functional.logsigmoid(SURER * of_base.exp().logit())
    trainer.train()
    model = trainer.model.eval()
    now = torch.cat([log_probs(model, one.ids, one.answer_mask) for one in encoded])
    assert float((known - levels).mean()) > 3
    assert abs(float((now - levels).mean())) < 0.3
    assert float((now - levels).abs().mean()) < 1


def test_the_limits_are_the_base_s_level(make_trainer: Make, said: BaseSaid) -> None:
    rule = make_trainer(base=said)._watch.rule
    assert rule.probability == said.probability + ABOVE_PROBABILITY
    assert rule.extraction_strength == said.extraction_strength + ABOVE_EXTRACTION
    assert rule.limits().items() >= {"probability": rule.probability, "normal_ratio": rule.normal_budget}.items()
    # A distance of another kind may end there too.
    assert make_trainer()._watch.rule.probability == 0.1


def test_tokens_that_do_not_count_stay_out(make_trainer: Make, said: BaseSaid) -> None:
    trainer = make_trainer(objective=Objective(BaseOdds()), base=said, token_choice="without-first", max_steps=1)
    trainer.train()
    found = trainer._prepared.reference["negative"]
    assert all(not known.counts[0] and bool(known.counts[1:].all()) for known in found.values())
    assert torch.equal(found[0].log_prob, said.log_probs[0])


def test_without_a_base_there_is_no_going_back(make_trainer: Make) -> None:
    with pytest.raises(InputError, match="BaseOdds needs base"):
        make_trainer(objective=Objective(BaseOdds()))


def test_a_base_that_was_asked_about_others_is_refused(make_trainer: Make, said: BaseSaid) -> None:
    for log_probs in (said.log_probs[:-1], said.log_probs[::-1]):
        with pytest.raises(InputError, match="give ask_base the same turns in the same order"):
            make_trainer(objective=Objective(BaseOdds()), base=replace(said, log_probs=log_probs))


def test_all_that_does_not_go_together_is_told_at_once(make_trainer: Make) -> None:
    with pytest.raises(InputError) as refused:
        make_trainer(
            objective=Objective(BaseOdds()), robust=True, dataloader_persistent_workers=True, dataloader_num_workers=1
        )
    workers, base, robust = refused.value.faults
    assert workers.startswith("dataloader_persistent_workers=True: ")
    assert base == "BaseOdds needs base: what the model said before"
    assert robust.startswith("robust=True: the base knows the old answers")


@pytest.mark.parametrize("asked", [{"sam_rho": 0.1}, {"robust": True}])
def test_weights_go_to_and_fro_in_one_process(asked: dict[str, Any]) -> None:
    plain = {"dataloader_persistent_workers": False, "load_best_model_at_end": False, "sam_rho": 0.0, "robust": False}
    for processes in (1, 2):
        args: Any = SimpleNamespace(**{**plain, **asked}, world_size=processes)
        with nullcontext() if processes == 1 else pytest.raises(InputError, match="in one process"):
            check_asked(args, Objective(), forget=["old"], normal=["kept"], base=None)


@pytest.mark.parametrize(
    ("base", "probe", "looked_at"),
    [("b", ["reworded"], ["reworded", "asked"]), (None, ["reworded"], ["reworded"]), ("b", [], [])],
)
def test_with_a_base_old_answers_are_probed_as_they_were_asked_too(
    base: str | None, probe: list[str], looked_at: list[str]
) -> None:
    recipe = check_recipe({"model": "m", "base": base, "data": {"dialogues": "d"}})
    data: Any = SimpleNamespace(probe=probe, forget=["asked"])
    assert probed_of(recipe, data) == looked_at
