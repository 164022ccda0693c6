"""The trainer is a `transformers.Trainer` in what its users know, and refuses input that cannot work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from letheon.chat import Encoded
from letheon.errors import InputError
from letheon.expected import Target
from letheon.objective import LogOddsHinge, Objective
from letheon.records import Dialogue, Message
from letheon.train import UnlearnTrainer
from letheon.train.dataset import ByLength

Make = Callable[..., UnlearnTrainer]


def test_callbacks_fire(make_trainer: Make) -> None:
    fired: list[str] = []

    class Record(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            fired.append("begin")

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            fired.append("step")

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if "loss" in logs:
                assert {"negative", "positive", "normal", "scale", "weight_normal"} <= logs.keys()
                fired.append("log")

        def on_train_end(self, *args: Any, **kwargs: Any) -> None:
            fired.append("end")

    make_trainer(callbacks=[Record()], max_steps=2).train()
    assert fired == ["begin", "step", "log", "step", "log", "end"]


def test_items_of_padded_batches_are_grouped_by_length(make_trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def grouped(**settings: Any) -> bool:
        return isinstance(make_trainer(**settings)._get_train_sampler(), ByLength)

    assert grouped(train_sampling_strategy="group_by_length")
    assert not grouped()
    monkeypatch.setattr("letheon.train.trainer.can_pack", lambda model: False)
    assert grouped()
    assert not grouped(train_sampling_strategy="sequential")
    trainer = make_trainer(max_steps=3)
    trainer.train()
    assert trainer.state.global_step == 3


@pytest.mark.parametrize("rows", [1, 9, 20])
def test_evaluate(make_trainer: Make, rows: int) -> None:
    """The mean cross-entropy of the answers; more rows than there are normal dialogues, in batches of 8."""
    held_out = [dialogue(f"And {n}?", f"yes {n} " * (n % 3 + 1)) for n in range(rows)]
    trainer = make_trainer(
        eval_dataset=held_out, eval_strategy="steps", eval_steps=2, max_steps=4, per_device_eval_batch_size=8
    )
    before = trainer.evaluate()
    assert trainer.evaluate(held_out)["eval_loss"] == pytest.approx(before["eval_loss"])
    losses = []
    for item in trainer.eval_dataset.normal:
        ids, mask = torch.tensor([item.ids]), torch.tensor(item.answer_mask)
        with torch.no_grad():
            logits = trainer.model(ids).logits[0, :-1][mask[1:]]
        losses.append(torch.nn.functional.cross_entropy(logits, ids[0][mask], reduction="none"))
    assert before["eval_loss"] == pytest.approx(float(torch.cat(losses).mean()), rel=1e-4)
    trainer.train()
    # While training, beside the reference of the normal dialogues that training sees.
    assert len([row for row in trainer.state.log_history if "eval_loss" in row]) == 2


def test_trains_once(make_trainer: Make) -> None:
    """What it has measured is of the model as it was: a second time it would be of another."""
    trainer = make_trainer(max_steps=1)
    trainer.train()
    with pytest.raises(InputError, match="make a new UnlearnTrainer"):
        trainer.train()


def test_the_stop_rule_alone_settles_what_is_kept(make_trainer: Make) -> None:
    best = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    with pytest.raises(InputError, match="load_best_model_at_end=True: the stop rule settles"):
        make_trainer(eval_dataset=[dialogue("And?", "yes")], load_best_model_at_end=True, **best)


def detached(result: tuple[torch.Tensor, dict[str, torch.Tensor]]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    loss, outputs = result
    return loss.detach(), {key: value.detach() for key, value in outputs.items()}


def test_compute_loss_returns_its_parts(make_trainer: Make) -> None:
    trainer = make_trainer(max_steps=1)
    trainer.train()
    batch = trainer._collator([trainer.train_dataset[n] for n in range(4)])
    trainer.model.train()
    loss, parts = detached(trainer.compute_loss(trainer.model, batch, return_outputs=True))
    assert parts.keys() == {"negative", "positive", "normal"}
    weights, scale = trainer._weights.of, trainer._weights.balance.scale
    by_hand = (
        scale * parts["negative"] + weights["positive"] * parts["positive"] + weights["normal"] * parts["normal"]
    )
    assert float(loss) == pytest.approx(float(by_hand), rel=1e-5)
    assert float(trainer.compute_loss(trainer.model, batch).detach()) == pytest.approx(float(loss))
    # Twice the counts, half the loss.
    twice = 2 * trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    halved = trainer.compute_loss(trainer.model, batch, num_items_in_batch=twice)
    assert float(halved.detach()) == pytest.approx(float(loss) / 2, rel=1e-5)
    trainer.model.eval()
    loss, outputs = detached(trainer.compute_loss(trainer.model, batch, return_outputs=True))
    assert float(outputs["loss"]) == float(loss)


def test_trackers_are_asked_for(make_trainer: Make) -> None:
    assert make_trainer().args.report_to == []
    with pytest.raises(ValueError, match="nobody is not supported"):
        make_trainer(report_to="nobody")


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_saved_models_load_again(make_trainer: Make, lora: Callable[[], Any], tuning: str, tmp_path: Path) -> None:
    trainer = make_trainer(peft_config=lora() if tuning == "lora" else None, learning_rate=1e-2)
    base = make_trainer("other").model
    trainer.train()
    folder = tmp_path / "saved"
    trainer.save_model(str(folder))
    assert list(folder.glob("*.safetensors"))
    assert not list(folder.glob("*model*.bin"))
    assert (folder / "tokenizer_config.json").is_file()
    if tuning == "lora":
        from peft import PeftModel

        loaded = PeftModel.from_pretrained(base, folder)
    else:
        loaded = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        wanted = trainer.model.eval()(ids).logits
        torch.testing.assert_close(loaded.eval()(ids).logits, wanted)


def test_an_adapter_of_the_callers_own(make_trainer: Make, memorised: Callable[[], Any], lora: Any) -> None:
    from peft import get_peft_model

    model = get_peft_model(memorised(), lora())
    trainer = make_trainer(model=model, learning_rate=None)
    trainer.train()
    assert trainer.model is model
    assert trainer.args.learning_rate == 5e-4


# -- kinds of data ------------------------------------------------------------------------------------------------


def dialogue(question: str, answer: str, **more: Any) -> Dialogue:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Dialogue(**{"id": question, "messages": messages, **more})


FORGET = [dialogue("Code?", "4711", expected=("No.",)), dialogue("Name?", "Ada", category="privacy")]
NORMAL = [dialogue("Sky?", "blue"), dialogue("Sea?", "wet")]


@pytest.fixture
def embedder(monkeypatch: pytest.MonkeyPatch) -> None:
    """All answers are alike; MiniLM takes seconds to load."""

    def encode(self: Any, texts: Sequence[str]) -> Any:
        return np.ones((len(texts), 2), dtype=np.float32) / 2**0.5

    monkeypatch.setattr("letheon.embed.Embedder.encode", encode)


@pytest.mark.usefixtures("embedder")
@pytest.mark.parametrize("kind", ["Dialogue", "dict", "Dataset"])
def test_kinds_of_rows(make_trainer: Make, kind: str) -> None:
    def rows(dialogues: list[Dialogue]) -> Any:
        if kind == "Dialogue":
            return dialogues
        dicts = [row.model_dump(mode="json") for row in dialogues]
        return dicts if kind == "dict" else datasets.Dataset.from_list(dicts)

    given = {
        "forget_dataset": rows(FORGET),
        "normal_dataset": rows(NORMAL),
        "probe_dataset": rows(FORGET[:1]),
        "normal_probe_dataset": rows(NORMAL[1:]),
        "eval_dataset": rows(NORMAL),
    }
    trainer = make_trainer(max_steps=1, stop_rule=True, stop_every=1, **given)
    trainer.train()
    tokenizer = trainer._tokenizer
    assert [turn.answer for turn in trainer._turns] == ["4711", "Ada"]
    replies = [tokenizer.decode(e.ids) for e in trainer.train_dataset.forget[0].expected]
    assert any("assistant\nNo.<|im_end|>" in reply for reply in replies)
    assert len(trainer.train_dataset.forget[1].expected) > 1
    assert len(trainer._watch.watched.normal) == len(trainer._watch.watched.old) == 1
    assert trainer.evaluate()["eval_loss"] > 0


def test_guards_tell_dialogues_from_what_was_rehearsed(make_trainer: Make) -> None:
    rehearsed = Encoded([1, 2, 3, 4], [False, False, True, True])
    watched = make_trainer(normal_probe_dataset=[rehearsed, NORMAL[1], rehearsed])._watch.watched
    assert (len(watched.normal), watched.rehearsed) == (1, [rehearsed, rehearsed])
    # Where nothing is given, those that are trained on stand for them.
    watched = make_trainer(normal_dataset=NORMAL)._watch.watched
    assert (len(watched.normal), watched.rehearsed) == (len(NORMAL), [])
    with pytest.raises(InputError, match="row 1"):
        make_trainer(normal_probe_dataset=[rehearsed, {"question": "?"}])


def test_a_forget_dialogue_without_a_question(make_trainer: Make) -> None:
    """An assistant that speaks first; there is no question to hide for the informative tokens."""
    first = Dialogue(id="1", messages=(Message(role="assistant", content="The code is 4711."),))
    trainer = make_trainer(
        forget_dataset=[Target(first.last_turn, (), "data")], token_choice="informative", max_steps=1
    )
    trainer.train()
    assert bool(trainer._collator.reference["negative"][0].counts.all())


def test_a_tokenizer_without_a_padding_token(
    make_trainer: Make, byte_tokenizer: Callable[..., Any], chatml: str
) -> None:
    tokenizer = byte_tokenizer(chatml, unk_token="<|endoftext|>", bos_token="<|im_start|>", eos_token="<|im_end|>")
    trainer = make_trainer(processing_class=tokenizer, stop_rule=True, max_steps=1)
    trainer.train()
    assert len(trainer.probes) == 2


# -- refusals -----------------------------------------------------------------------------------------------------


def test_nothing_to_forget(make_trainer: Make) -> None:
    with pytest.raises(InputError, match="forget_dataset is empty"):
        make_trainer(forget_dataset=[])


@pytest.mark.parametrize("none", [None, []])
def test_nothing_to_keep(make_trainer: Make, none: Any) -> None:
    with pytest.raises(InputError, match="normal_dataset is empty"):
        make_trainer(normal_dataset=none)


def test_nothing_to_keep_is_fine_where_the_objective_has_no_normal_term(make_trainer: Make) -> None:
    trainer = make_trainer(normal_dataset=None, objective=Objective(LogOddsHinge(), None, None), max_steps=1)
    trainer.train()


@pytest.mark.parametrize("none", [None, []])
def test_nothing_at_all(make_trainer: Make, none: Any) -> None:
    with pytest.raises(InputError, match="nothing to train on"):
        make_trainer(forget_dataset=none, normal_dataset=none)


def test_no_tokenizer(make_trainer: Make) -> None:
    with pytest.raises(InputError, match="processing_class is missing"):
        make_trainer(processing_class=None)


def test_no_chat_template(make_trainer: Make, byte_tokenizer: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="no chat template"):
        make_trainer(processing_class=byte_tokenizer(None, eos_token="<|im_end|>", pad_token="<|im_end|>"))


@pytest.mark.parametrize("which", ["forget_dataset", "normal_dataset", "probe_dataset", "normal_probe_dataset"])
def test_an_answer_longer_than_the_context(make_trainer: Make, which: str) -> None:
    long = dialogue("Why?", "x" * 600)
    rows = [Target(long.last_turn, (), "data")] if which == "forget_dataset" else [long]
    with pytest.raises(InputError, match=r"dialogue 'Why\?'.* at most 512 fit"):
        make_trainer(**{which: rows})


def test_a_setting_may_make_the_context_shorter(make_trainer: Make) -> None:
    with pytest.raises(InputError, match="at most 20 fit"):
        make_trainer(max_length=20)


def test_a_bad_row_is_named(make_trainer: Make) -> None:
    rows = [{"id": "9", "messages": [{"role": "user", "content": "Hi"}]}]
    with pytest.raises(InputError, match="no assistant turn"):
        make_trainer(normal_dataset=rows)
