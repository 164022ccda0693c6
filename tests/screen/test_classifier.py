from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from turns import make_turn

from letheon.errors import InputError
from letheon.recipe import Classifier, Screen
from letheon.records import Turn
from letheon.screen import build_judges, check_judges
from letheon.screen.classifier import ClassifierJudge, worst_category
from letheon.screen.pretrained import judge_name, loaded, longest_input

LABELS = ("toxic", "threat", "neutral")
MAP = {"toxic": "harmful", "threat": "violent", "neutral": "normal"}
TURNS = [make_turn("q" * n, "answer " * n) for n in (3, 1, 6, 2, 4)]


@pytest.fixture(scope="module")
def many_labels(make_bert: Callable[..., Path]) -> Path:
    return make_bert(LABELS, problem_type="multi_label_classification")


@pytest.fixture(scope="module")
def one_label(make_bert: Callable[..., Path]) -> Path:
    return make_bert(LABELS)


@pytest.fixture(scope="module")
def finds_x(make_bert: Callable[..., Path]) -> Path:
    """Says "bad" where there is an X in the text."""
    return make_bert(("fine", "bad"), " X")


def alone(folder: Path, *parts: str) -> torch.Tensor:
    """Logits of one text, by the book."""
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    with torch.no_grad():
        return model.eval()(**tokenizer(*parts, return_tensors="pt")).logits[0]


def scores(folder: Path, turns: list[Turn] = TURNS, **settings: object) -> list[tuple[str, float]]:
    judge = ClassifierJudge(Classifier.model_validate({"model": str(folder), "labels": MAP, **settings}))
    return [(opinion.category, opinion.score) for opinion in judge.judge(turns) if opinion]


def test_labels_that_do_not_exclude_each_other(many_labels: Path) -> None:
    for turn, (category, score) in zip(TURNS, scores(many_labels, batch_size=2), strict=True):
        toxic, threat, _ = alone(many_labels, turn.answer).sigmoid().tolist()
        assert score == pytest.approx(max(toxic, threat), abs=1e-5)
        assert category == ("harmful" if toxic > threat else "violent")


def test_labels_that_exclude_each_other(one_label: Path) -> None:
    both = {"toxic": "harmful", "threat": "harmful", "neutral": "normal"}
    for turn, (category, score) in zip(TURNS, scores(one_label, labels=both), strict=True):
        assert score == pytest.approx(1 - alone(one_label, turn.answer).softmax(dim=0)[2].item(), abs=1e-5)
        assert category == "harmful"


def test_a_single_label_has_a_probability_of_its_own(make_bert: Callable[..., Path]) -> None:
    folder = make_bert(("toxic",))
    ((_, score),) = scores(folder, TURNS[:1], labels={"toxic": "harmful"})
    assert score == pytest.approx(alone(folder, TURNS[0].answer).sigmoid().item(), abs=1e-5)


@pytest.mark.parametrize("text", ["pair", "USER: {question} ASSISTANT:{answer}</s>"])
def test_it_may_read_the_question_too(one_label: Path, text: str) -> None:
    for turn, (_, score) in zip(TURNS, scores(one_label, text=text), strict=True):
        asked = (turn.question, turn.answer)
        parts = asked if text == "pair" else (f"USER: {turn.question} ASSISTANT:{turn.answer}</s>",)
        toxic, threat, _ = alone(one_label, *parts).softmax(dim=0).tolist()
        assert score == pytest.approx(max(toxic, threat), abs=1e-5)


def test_batches_change_nothing(one_label: Path) -> None:
    alone_, together = scores(one_label, batch_size=1), scores(one_label, batch_size=5)
    assert [category for category, _ in alone_] == [category for category, _ in together]
    assert [score for _, score in alone_] == pytest.approx([score for _, score in together], abs=1e-5)
    assert scores(one_label, []) == []


@pytest.mark.parametrize("place", [5, 200, 395])
def test_nothing_of_a_long_answer_is_left_out(finds_x: Path, place: int) -> None:
    answer = "abc " * 100
    settings = Classifier(model=str(finds_x), labels={"fine": "normal", "bad": "harmful"})
    judge = ClassifierJudge(settings)
    good, bad = judge.judge([make_turn("?", answer), make_turn("?", answer[:place] + "X" + answer[place:])])
    assert good is not None
    assert bad is not None
    assert good.score < 0.5 < bad.score
    assert bad.span is not None
    start, end = bad.span
    assert start <= place < end
    assert end - start < 128


@pytest.mark.parametrize(
    ("labels", "fault"),
    [
        ({"toxic": "harmful"}, "leaves out 'threat', 'neutral'; map each of 'toxic', 'threat', 'neutral'"),
        ({**MAP, "LABEL_7": "harmful"}, "names 'LABEL_7', which the model does not have"),
        (dict.fromkeys(LABELS, "normal"), "maps every label to normal"),
    ],
)
def test_labels_are_checked_before_weights_load(
    one_label: Path, tmp_path: Path, labels: dict[str, str], fault: str
) -> None:
    shutil.copytree(one_label, tmp_path / "c")
    (tmp_path / "c/model.safetensors").write_bytes(b"no weights")
    settings = Screen(judges=["classifier"], classifier=Classifier(model=str(tmp_path / "c"), labels=labels))
    with pytest.raises(InputError, match=re.escape(fault)):
        check_judges(settings)


def test_weights_that_cannot_be_read(one_label: Path, tmp_path: Path) -> None:
    shutil.copytree(one_label, tmp_path / "c")
    (tmp_path / "c/model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match="cannot load this model"):
        scores(tmp_path / "c")


def test_a_model_made_for_something_else(tiny_model_dir: Path) -> None:
    settings = Screen(judges=["classifier"], classifier=Classifier(model=str(tiny_model_dir), labels=MAP))
    with pytest.raises(InputError, match="made for LlamaForCausalLM .*ForSequenceClassification is needed"):
        build_judges(settings)


def test_a_head_that_the_file_lacks(one_label: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(one_label, tmp_path / "c")
    weights = load_file(tmp_path / "c/model.safetensors")
    del weights["classifier.weight"]
    save_file(weights, tmp_path / "c/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks weights .classifier.weight"):
        scores(tmp_path / "c")


def test_code_beside_a_model_is_not_run(one_label: Path, tmp_path: Path) -> None:
    folder, mark = tmp_path / "c", tmp_path / "mark"
    shutil.copytree(one_label, folder)
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "own.Config", "AutoModelForSequenceClassification": "own.Model"}
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": names}))
    assert scores(folder) == scores(one_label)
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": names, "model_type": "own"}))
    with pytest.raises(InputError, match="cannot load"):
        scores(folder)
    assert not mark.exists()


def test_pickled_weights_are_refused(one_label: Path, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    shutil.copytree(one_label, folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no weights as \*\.safetensors"):
        scores(folder)


def test_nobody_judges_itself(one_label: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(one_label, copy)
    (copy / "README.md").write_text("another file, the same weights")
    link = tmp_path / "link"
    link.symlink_to(one_label)
    settings = Screen(judges=["classifier"], classifier=Classifier(model=str(one_label), labels=MAP))
    for treated in (one_label, copy, link):
        with pytest.raises(InputError, match="is the model under treatment, which cannot judge itself"):
            check_judges(settings, str(treated))


def test_other_weights_of_the_same_size_may_judge(one_label: Path, make_bert: Callable[..., Path]) -> None:
    other = make_bert(LABELS, seed=1)
    check_judges(Screen(judges=["classifier"], classifier=Classifier(model=str(one_label), labels=MAP)), str(other))


def test_the_name_has_the_version(one_label: Path, tmp_path: Path) -> None:
    copy = tmp_path / "tiny-bert"
    shutil.copytree(one_label, copy)
    name = judge_name("classifier", str(copy))
    assert re.fullmatch(r"classifier:tiny-bert@[0-9a-f]{8}", name)
    assert name == judge_name("classifier", str(one_label))
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "problem_type": "multi_label_classification"}))
    assert judge_name("classifier", str(copy)) != name


def test_weights_are_let_go(one_label: Path) -> None:
    with loaded(str(one_label), "SequenceClassification") as (model, _):
        assert not model.training
        assert {weight.device.type for weight in model.parameters()} == {"cpu"}
    assert {weight.device.type for weight in model.parameters()} == {"meta"}


def test_positions_that_start_behind_the_padding() -> None:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(
        vocab_size=300, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
        max_position_embeddings=66, pad_token_id=1,
    )  # fmt: skip
    model = RobertaForSequenceClassification(config).eval()
    tokenizer = type("T", (), {"model_max_length": 10**30})()
    assert longest_input(model, tokenizer, 512) == 64
    assert longest_input(model, tokenizer, 32) == 32
    assert model(input_ids=torch.full((1, 64), 5)).logits.shape == (1, 2)


def test_too_little_room(one_label: Path) -> None:
    with pytest.raises(InputError, match="of the 128 tokens .* 0 are left"):
        scores(one_label, text="x" * 130 + "{answer}")


@pytest.mark.parametrize("exclusive", [True, False])
def test_worst_category_in_closed_form(exclusive: bool) -> None:
    found = worst_category(
        {"a": 0.3, "b": 0.25, "c": 0.35, "d": 0.1}, {"a": "x", "b": "x", "c": "y", "d": "normal"}, exclusive=exclusive
    )
    assert found == (("x", pytest.approx(0.55)) if exclusive else ("y", 0.35))
