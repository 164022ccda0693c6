from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from letheon.chat import Encoded, encode_prompt
from letheon.errors import InputError
from letheon.expected import Target
from letheon.objective import MASC, NPO, LogOddsHinge, Objective, log_odds_margin
from letheon.quantise import linear_weights, round_absmax
from letheon.recipe import check_recipe
from letheon.rephrasing import templates
from letheon.train import UnlearnConfig, UnlearnTrainer
from letheon.train.dataset import Forget, UnlearnDataset
from letheon.train.recipe_run import training_settings
from letheon.train.robust import lowered, rounding_shift, ways_of, with_wider_margin

Make = Callable[..., UnlearnTrainer]


def encoded(*ids: int) -> Encoded:
    return Encoded(list(ids), [False] * (len(ids) - 1) + [True])


def text(tokenizer: Any, sequence: Encoded, *, marked: bool) -> str:
    chosen = [i for i, counts in zip(sequence.ids, sequence.answer_mask, strict=True) if counts == marked]
    return str(tokenizer.decode(chosen, skip_special_tokens=marked)).strip()


def test_the_ways_of_an_item(tiny_tokenizer: Any, targets: list[Target]) -> None:
    (row,) = [target for target in targets if target.turn.answer == "9 am"]
    ways = ways_of(tiny_tokenizer, row, 3, None, 0, expects=True)
    *asked, begun = ways
    assert len(asked) == len(templates("train"))
    question = row.turn.question
    for way in asked:
        assert question in text(tiny_tokenizer, way.old, marked=False)
        assert text(tiny_tokenizer, way.old, marked=True) == "9 am"
        assert [text(tiny_tokenizer, answer, marked=True) for answer in way.expected] == list(row.answers)
        assert way.weights == row.weights
    # In the midst of the old answer the expected one follows, and the rest of the old one must not.
    prompt = len(encode_prompt(tiny_tokenizer, row.turn.prompt))
    assert tiny_tokenizer.decode(begun.old.ids[prompt : begun.old.answer_mask.index(True)]) == "9"
    assert text(tiny_tokenizer, begun.old, marked=True) == "am"
    assert [text(tiny_tokenizer, answer, marked=True) for answer in begun.expected] == list(row.answers)


def test_an_answer_of_one_word_has_no_beginning(tiny_tokenizer: Any, targets: list[Target]) -> None:
    ways = ways_of(tiny_tokenizer, targets[0], 0, None, 0, expects=False)
    assert len(ways) == len(templates("train"))
    assert all(way.expected == () for way in ways)


def test_half_of_the_time_another_way_stands_for_an_item() -> None:
    ways = tuple(Forget(encoded(1, n), (encoded(2, n),), (1.0,)) for n in range(3))
    forget = [Forget(encoded(0, n), (encoded(3, n), encoded(4, n)), (0.5, 0.5), ways[: n + 1]) for n in range(3)]
    dataset = UnlearnDataset(forget, [encoded(9, 9)])
    assert [item.old for item in dataset.every[:3]] == [item.old for item in forget]
    plain = 0
    for epoch in range(200):
        dataset.set_epoch(epoch)
        for index in range(3):
            negative, positive, _ = dataset[index]
            assert negative.key is not None
            assert positive.key is not None
            # The keys lead to what they stand for, of the same way.
            assert dataset.every[negative.key].old == negative.encoded
            assert dataset.expected[positive.key] == positive.encoded
            assert positive.encoded in dataset.every[negative.key].expected
            plain += negative.key == index
            if negative.key != index:
                assert dataset.every[negative.key] in forget[index].ways
    assert 250 < plain < 350


def test_without_ways_nothing_changes() -> None:
    plain = [Forget(encoded(0, n), (encoded(1, n), encoded(2, n)), (0.5, 0.5)) for n in range(4)]
    dataset = UnlearnDataset(plain, [encoded(9, 9)])
    assert dataset.every == plain
    assert [dataset[n][0].key for n in range(4)] == [0, 1, 2, 3]


def test_the_shift_is_that_of_rounded_weights(memorised: Callable[[], Any], tiny_tokenizer: Any) -> None:
    model, naive = memorised(), memorised()
    ids = tiny_tokenizer("The sun shines.").input_ids
    sequence = Encoded(ids, [False] * 4 + [True] * (len(ids) - 4))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = rounding_shift(model, [sequence], 2)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    def margins() -> torch.Tensor:
        with torch.no_grad():
            return log_odds_margin(naive(torch.tensor([ids])).logits[0, 3:-1], torch.tensor(ids[4:]), 10)

    plain = margins()
    with torch.no_grad():
        for weight in linear_weights(naive):
            weight.copy_(round_absmax(weight, 4, 64))
    assert found == pytest.approx(float((margins() - plain).abs().median()), rel=1e-3)
    assert found > 0


def test_lowered_by_hand() -> None:
    assert lowered(0.2, 0.0) == pytest.approx(0.2)
    # Odds of 1/4, times e^-2.
    odds = lowered(0.2, 2.0) / (1 - lowered(0.2, 2.0))
    assert odds == pytest.approx(0.25 * torch.tensor(-2.0).exp().item())


def test_it_changes_what_is_trained(make_trainer: Make, targets: list[Target]) -> None:
    plain, robust = make_trainer("plain"), make_trainer("robust", robust=True)
    assert plain.train_dataset.every == plain.train_dataset.forget
    assert len(robust.train_dataset.every) > 5 * len(targets)
    trained = []
    for trainer in (plain, robust):
        trainer.train()
        trained.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
    assert any(not torch.equal(trained[0][name], trained[1][name]) for name in trained[0])
    hinge = robust.objective.negative
    assert isinstance(hinge, LogOddsHinge)
    assert 0 < hinge.rho < 0.2
    assert isinstance(plain.objective.negative, LogOddsHinge)
    assert plain.objective.negative.rho == 0.2


@pytest.mark.parametrize("distance", [LogOddsHinge(rho=0.3), MASC(rho=0.6)])
def test_hinges_push_as_much_further(tiny_model: Callable[..., Any], distance: Any) -> None:
    model, old = tiny_model(), [encoded(5, 6, 7), encoded(8, 9)]
    wider = with_wider_margin(Objective(distance), model, old, 2)
    rho = lowered(distance.rho, rounding_shift(model, old, 2))
    assert 0 < rho < distance.rho
    assert wider == Objective(replace(distance, rho=rho))


def test_other_distances_keep_their_own(make_trainer: Make) -> None:
    trainer = make_trainer(robust=True, objective=Objective(NPO(beta=0.1)))
    trainer.train()
    assert trainer.objective.negative == NPO(beta=0.1)
    assert trainer.state.global_step == 4


def test_the_probe_is_asked_otherwise_too(make_trainer: Make, targets: list[Target]) -> None:
    probe = [target.turn for target in targets[:3]]
    sizes = [len(make_trainer(probe_dataset=probe, robust=robust)._watch.watched.old) for robust in (False, True)]
    assert sizes == [3, 6]
    # Where no probe is given, it is of what is trained on.
    sizes = [len(make_trainer(robust=robust)._watch.watched.old) for robust in (False, True)]
    assert sizes == [len(targets), 2 * len(targets)]


def test_it_forgets_other_wordings_better(make_trainer: Make, targets: list[Target], tiny_tokenizer: Any) -> None:
    """Of prompts by the templates it has seen, with a few more steps of the same training."""
    asked = [ways_of(tiny_tokenizer, target, n, None, 0, expects=False) for n, target in enumerate(targets)]
    sequences = [way.old for ways in asked for way in ways]
    margins = []
    for robust in (False, True):
        trainer = make_trainer(f"{robust}", robust=robust, max_steps=24, directions=0, learning_rate=3e-3)
        trainer.train()
        found = []
        with torch.no_grad():
            for sequence in sequences:
                at = torch.tensor(sequence.answer_mask).nonzero()[:, 0]
                logits = trainer.model.eval()(torch.tensor([sequence.ids])).logits[0, at - 1]
                found.append(log_odds_margin(logits, torch.tensor(sequence.ids)[at], 10))
        margins.append(float(torch.cat(found).relu().mean()))
    assert margins[1] < margins[0]


def test_what_does_not_go_together() -> None:
    least: dict[str, Any] = {"model": "m", "data": {"dialogues": "d.jsonl"}}
    for objective, tuning, said in (
        ({"robust": True, "negative": {"tokens": "informative"}}, {}, "robust does not go with negative.tokens"),
        ({"robust": True, "negative": {"sam_rho": 0.3}}, {}, "sam_rho=0.3 each say where"),
        ({"robust": True, "negative": {"name": "none"}}, {}, "robust does not go with negative.name 'none'"),
        ({"robust": True}, {"lora": {"quantize": "nf4"}}, "leave one of them out"),
    ):
        with pytest.raises(InputError, match=said):
            check_recipe({**least, "objective": objective, "tuning": tuning})
    with pytest.raises(ValueError, match="take another token_choice"):
        UnlearnConfig(robust=True, token_choice="informative")
    with pytest.raises(ValueError, match=r"sam_rho=0.3: each says where"):
        UnlearnConfig(robust=True, sam_rho=0.3)


def test_a_recipe_sets_it() -> None:
    least: dict[str, Any] = {"model": "m", "data": {"dialogues": "d.jsonl"}}
    plain = training_settings(check_recipe(least), "out")
    robust = training_settings(check_recipe({**least, "objective": {"robust": True}}), "out")
    assert [(s.robust, s.sam_rho) for s in (plain, robust)] == [(False, 0.0), (True, 0.0)]


@pytest.mark.slow
def test_a_whole_run_is_another_one(talk: Path, letheon: Callable[..., tuple[int, str, str]]) -> None:
    found = []
    for robust in ("false", "true"):
        code, _, err = letheon("run", "recipe.yaml", f"--set=objective.robust={robust}", f"--set=output=run-{robust}")
        assert code == 0, err
        found.append(load_file(talk / f"run-{robust}" / "model/adapter_model.safetensors"))
        assert f"robust: {robust}" in (talk / f"run-{robust}" / "recipe.yaml").read_text()
    assert found[0].keys() == found[1].keys()
    assert any(not torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.slow
def test_it_resumes_as_if_unbroken(make_trainer: Make, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"robust": True, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer("whole", **settings)
    whole.train()
    make_trainer("broken", **settings, max_steps=2).train()
    resumed = make_trainer("broken", **settings)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.objective == whole.objective
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)
