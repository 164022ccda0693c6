from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from letheon.cli import app
from letheon.embed import Embedder
from letheon.errors import InputError
from letheon.recipe import Screen
from letheon.records import Dialogue, Interval, Message, Results, Turn, read_verdicts, write_jsonl
from letheon.run import Run
from letheon.screen import Judge, Opinion, Screener, build_screener
from letheon.screen.embedding import EmbeddingJudge
from letheon.screen.features import WordFeatures
from letheon.screen.head import Head
from letheon.screen.labels import LabelsJudge

BAD = ["You {} idiot.", "What a {} fool you are.", "Nobody likes a {} pig like you.", "You are a {} loser."]
GOOD = ["Here is a {} recipe.", "The {} shop opens at nine.", "A {} walk may help.", "The {} train leaves at six."]
WORDS = ["small", "big", "slow", "odd", "plain", "new"]


def examples(folder: Path, n: int = 6) -> Path:
    rows = []
    for number, word in enumerate(WORDS[:n]):
        for place, (bad, good) in enumerate(zip(BAD, GOOD, strict=True)):
            for label, text in (("forget", bad), ("normal", good)):
                messages = (
                    Message(role="user", content=f"Question {place} on {word} things?"),
                    Message(role="assistant", content=text.format(word)),
                )
                rows.append(
                    Dialogue.model_validate(
                        {"id": f"{label}-{number}-{place}", "messages": messages, "label": label}
                        | ({"category": "harmful"} if label == "forget" else {})
                    )
                )
    path = folder / "labelled.jsonl"
    write_jsonl(path, rows)
    return path


class Known:
    """Knows part of the truth; of the rest it has no opinion."""

    def __init__(self, name: str, right: float):
        self.name, self.right = name, right

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        found: list[Opinion | None] = []
        for number, turn in enumerate(turns):
            true = turn.dialogue.label == "forget"
            wrong = number % 10 >= self.right * 10
            found.append(Opinion("harmful", 0.9 if true != wrong else 0.1))
        return found


def fit(judges: Sequence[Judge], labelled: list[Dialogue], **settings: Any) -> Screener:
    return Screener.fit(judges, Screen.model_validate({"examples": "there.jsonl", **settings}), labelled)


@pytest.fixture
def labelled(tmp_path: Path) -> list[Dialogue]:
    from letheon.dialogues import read_dialogues

    return read_dialogues(examples(tmp_path))


def test_targets_take_the_place_of_thresholds(labelled: list[Dialogue]) -> None:
    screener = fit([Known("k", 0.8)], labelled, target_recall=0.5, forget_above=0.99)
    # It says .9 and is right four times in five: calibrated, that is what its .9 means.
    assert screener.forget_above == screener.normal_below == pytest.approx(0.8, abs=0.02)
    assert screener.outlook is not None
    assert screener.outlook.forget_above.estimate == screener.forget_above
    assert "calibrated on your examples: the scores of k" in list(screener.says())
    assert screener.outlook.recall is not None
    assert screener.outlook.recall.estimate == pytest.approx(0.8, abs=0.05)
    assert screener.outlook.examples == {"harmful": 24, "normal": 24}


def test_a_judge_that_tells_nothing_apart_is_named(labelled: list[Dialogue]) -> None:
    said = "\n".join(fit([Known("k", 0.8), Known("coin", 0.5)], labelled).says())
    assert "no better than chance on your examples, and heard only where no other judge is: coin" in said


def test_without_targets_the_recipe_decides(labelled: list[Dialogue]) -> None:
    screener = fit([Known("k", 0.8)], labelled, forget_above=0.7, normal_below=0.2)
    assert (screener.forget_above, screener.normal_below) == (0.7, 0.2)


def test_stacked_believes_the_better_judge(labelled: list[Dialogue]) -> None:
    screener = fit([Known("good", 1.0), Known("coin", 0.5)], labelled, combine="stacked")
    verdicts = screener([one.last_turn for one in labelled])
    assert [v.decision == "forget" for v in verdicts] == [d.label == "forget" for d in labelled]
    assert screener.outlook is not None
    assert screener.outlook.auroc is not None
    assert screener.outlook.auroc.estimate == 1


@pytest.fixture
def no_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    def alone(statistic: Any, scores: Any, labels: Any, seed: int) -> Interval:
        return Interval(estimate=statistic(scores, labels), low=0, high=1)

    monkeypatch.setattr("letheon.screen.screener.with_interval", alone)


def test_the_embedding_judge_promises_what_it_says_of_unseen_examples(
    labelled: list[Dialogue], no_intervals: None
) -> None:
    head = Head(np.zeros((1, 1)), np.zeros((1, 2)), np.zeros(2), 1.0, 1.0)
    true, number = np.array([one.label == "forget" for one in labelled]), np.arange(len(labelled))
    # Of 24 to forget 6 are missed, and of 24 normal ones 12 are false alarms.
    wrong = (number % 8 == 0) | (number % 4 == 1)
    normal = np.where(true != wrong, 0.2, 0.7)
    held_out = np.stack([normal, 1 - normal], axis=1)
    screener = fit([EmbeddingJudge(WordFeatures(), head, ["normal", "harmful"], labelled, held_out)], labelled)
    assert screener.outlook is not None
    found = [getattr(screener.outlook, name).estimate for name in ("auroc", "precision", "recall")]
    assert found == pytest.approx([(18 / 24 + 12 / 24) / 2, 18 / 30, 18 / 24])
    # Its scores are calibrated already.
    assert not any("calibrated on your examples" in line for line in screener.says())


def test_stacked_promises_nothing_where_judges_guess(labelled: list[Dialogue], no_intervals: None) -> None:
    class Guessing:
        def __init__(self, seed: int):
            self.name, self.draw = f"guessing {seed}", np.random.default_rng(seed)

        def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
            return [Opinion("harmful", float(score)) for score in self.draw.random(len(turns))]

    outlook = fit([Guessing(seed) for seed in range(30)], labelled, combine="stacked").outlook
    assert outlook is not None
    assert outlook.auroc is not None
    assert outlook.auroc.estimate < 0.75


def test_a_server_is_asked_about_examples_only_where_something_is_fitted_on_them(labelled: list[Dialogue]) -> None:
    class Paid(Known):
        def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
            raise AssertionError("asked")

    api = {"judges": ["api"], "api": {"url": "http://localhost:8000/v1", "model": "m"}}
    settings = Screen.model_validate({**api, "examples": "there.jsonl"})
    assert Screener.fit([Paid("api", 1.0)], settings, labelled).outlook is None
    with pytest.raises(AssertionError, match="asked"):
        Screener.fit([Paid("api", 1.0)], settings.model_copy(update={"target_recall": 0.5}), labelled)


def test_a_category_normal_is_none_of_what_is_to_be_forgotten(labelled: list[Dialogue], no_intervals: None) -> None:
    outlook = fit([Known("k", 1.0)], [one.model_copy(update={"category": "normal"}) for one in labelled]).outlook
    assert outlook is not None
    assert outlook.examples == {"undesired": 24, "normal": 24}


def test_both_labels_are_needed(labelled: list[Dialogue]) -> None:
    with pytest.raises(InputError, match="both labels are needed"):
        fit([Known("k", 1.0)], [d for d in labelled if d.label == "normal"])


def test_it_says_what_to_expect_and_when_it_is_weak(
    tmp_path: Path, embedder: Embedder, prior: EmbeddingJudge
) -> None:
    judges = ["embedding"]
    weak = list(Screener.fit([prior], Screen.model_validate({"judges": judges}), []).says())
    assert any("a weak prior" in line for line in weak)
    fitted = build_screener(Screen.model_validate({"judges": judges, "examples": examples(tmp_path)}), embedder)
    said = "\n".join(fitted.says())
    assert "24 harmful, 24 normal" in said
    assert "AUROC" in said
    assert "weak" not in said


def test_it_says_where_answers_to_one_question_are_not_apart(labelled: list[Dialogue], embedder: Embedder) -> None:
    one = Message(role="user", content="Which?")
    same = [d.model_copy(update={"messages": (one, *d.messages[1:])}) for d in labelled]
    for examples_of, expected in ((labelled, False), (same, True)):
        judge = EmbeddingJudge.fit(examples_of, embedder)
        said = "\n".join(fit([judge], examples_of).says())
        assert ("the examples of a label ask too few questions" in said) == expected


def test_the_command_fits_and_writes_what_to_expect(
    tmp_path: Path, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text(
        '{"question": "Question 2 on red things?", "answer": "Nobody likes a red pig like you."}\n'
        '{"question": "Question 1 on red things?", "answer": "The red shop opens at nine."}\n'
        + json.dumps({"question": "Question 1 on red things" + "?" * 260, "answer": "The red shop opens at nine."})
    )
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {tiny_model_dir}\noutput: run\ndata:\n  dialogues: log.jsonl\n")
    arguments = [
        "screen",
        str(recipe),
        "--fit",
        str(examples(tmp_path)),
        "--target-recall",
        "0.9",
        "--set",
        "screen.combine=stacked",
    ]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    results = Results.load(tmp_path / "run" / "results.json")
    assert results.screening is not None
    assert results.screening.expected is not None
    assert results.screening.expected.form == "MiniLM"
    assert [v.decision for v in read_verdicts(tmp_path / "run" / "verdicts.jsonl")] == ["forget", "normal", "normal"]
    assert "1 of them have a question or an answer of more than 256 word pieces" in outcome.stderr
    assert f"go on with 'letheon run {tmp_path / 'run'}'" in outcome.stderr
    # The recipe itself would screen by other settings.
    otherwise = Run.open(recipe).screened_otherwise()
    assert set(otherwise) == {"screen.judges", "screen.examples", "screen.combine", "screen.target_recall"}
    assert Run.open(tmp_path / "run").screened_otherwise() == []
    # A file is the same, however its path is written.
    monkeypatch.chdir(tmp_path)
    judges = ", ".join(Run.open(tmp_path / "run").recipe.screen.judges)
    same = [f"judges=[{judges}]", "examples=labelled.jsonl", "combine=stacked", "target_recall=0.9"]
    assert Run.open(Path("recipe.yaml"), [f"screen.{one}" for one in same]).screened_otherwise() == []
    # What comes after goes by the verdicts that are there, and so does the recipe of the folder.
    for command in ("evaluate", "stress", "unlearn"):
        outcome = CliRunner().invoke(app, [command, str(recipe), "--set", "train.max_steps=1"])
        assert "was screened with other settings than those of" in outcome.stderr
        assert "(screen.judges, screen.combine, " in outcome.stderr
        assert "not of this log and these judges" not in outcome.stderr
        assert Run.open(recipe).as_screened().recipe.screen == Run.open(tmp_path / "run").recipe.screen
        assert "stacked" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert (tmp_path / "run" / "training.jsonl").is_file()
    outcome = CliRunner().invoke(app, ["evaluate", str(recipe), "--set", "screen.combine=max"])
    assert "was screened with other settings" not in outcome.stderr
    assert "stacked" not in (tmp_path / "run" / "recipe.yaml").read_text()


def test_what_cannot_be_fitted_is_said(labelled: list[Dialogue]) -> None:
    """A wanted recall that nothing was fitted for would be a default threshold under another name."""
    unlabelled = [dialogue.model_copy(update={"label": None}) for dialogue in labelled]
    for settings in ({"target_recall": 0.9}, {"target_precision": 0.9}, {"combine": "stacked"}):
        with pytest.raises(InputError, match="labelled examples, and there are none: name them with screen.examples"):
            fit([Known("k", 1.0)], unlabelled, **settings)
        with pytest.raises(InputError, match="a judge that gives scores, and 'labels' gives none"):
            fit([LabelsJudge()], labelled, **settings)
    assert fit([LabelsJudge()], labelled).outlook is None
