from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from letheon.console import Console
from letheon.material import answer_judge, judge_of_verdicts
from letheon.pipeline import _normal_turns, evaluate_stage, run_all, unlearn_stage
from letheon.recipe import check_recipe
from letheon.records import Dialogue, Interval, NotComputed, Results, write_jsonl
from letheon.rehearsal import everyday_questions
from letheon.report.page import write_report
from letheon.review.settle import settle
from letheon.run import Run
from letheon.screen.privacy.judge import PrivacyJudge
from letheon.train import UnlearnTrainer
from letheon.train.recipe_run import GUARDING
from talk import talk_rows

Letheon = Callable[..., tuple[int, str, str]]
STAGES = ("screen", "unlearn", "evaluate")


def redone(err: str) -> list[str]:
    """The stages that a run has not called up to date."""
    return [stage for stage in STAGES if f"{stage}: up to date" not in err]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(load_file(next(folder.glob("*.safetensors"))))


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], atol: float) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], atol=atol, rtol=0)


# -- a whole run -----------------------------------------------------------------------------------------------------


def test_every_file_of_a_run_folder_is_there(finished: Path) -> None:
    assert {path.name for path in (finished / "run").iterdir()} == {
        *("recipe.yaml", "manifest.json", "verdicts.jsonl", "training.jsonl", "samples.jsonl", "results.json"),
        *("report.html", "model", ".lock"),
    }
    results = json.loads((finished / "run/results.json").read_text())
    assert {"schema", "verdict", "stop", "seconds", "peak_memory_mb", "screening", "metrics"} <= results.keys()
    assert results["verdict"].keys() == {"forgotten", "why"}
    assert results["stop"]["step"] > 0
    guards = {"normal_ratio": 1000, "kl": 1000, "normal_kept": 0.9}
    assert results["stop"]["limits"] == {
        **guards,
        "probability": 0.1,
        "extraction_strength": 0.1,
        "truth_probability": 0.8,
    }
    assert {"screen", "unlearn", "evaluate"} <= results["seconds"].keys()
    assert results["screening"]["precision"] == results["screening"]["recall"] == 1
    for model in ("before", "after"):
        sets = results["metrics"][model]
        assert {"forget", "paraphrase", "normal_trained", "normal_held_out", "general"} <= sets.keys()
        assert {"mean", "stderr", "n"} <= sets["forget"]["probability"].keys()
        assert sets["forget"].keys() >= {"extraction_strength", "exact_memorization", "rouge_l", "loss"}
    # All that were to be forgotten are measured, the one kept from training as a probe too.
    assert results["metrics"]["before"]["forget"]["probability"]["n"] == 6
    assert results["metrics"]["before"]["forget"]["probability"]["mean"] > 0.9
    steps = [json.loads(line) for line in (finished / "run/training.jsonl").read_text().splitlines()]
    assert {"negative", "positive", "normal", "scale"} <= next(s for s in steps if "probe" not in s).keys()


def test_afresh_every_stage_is_done_again(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for name in ("screen", "unlearn", "evaluate", "report"):
        monkeypatch.setattr(f"letheon.pipeline.{name}_stage", lambda *_, name=name, **__: done.append(name))
    monkeypatch.setattr(Run, "is_current", lambda run, stage: True)
    for fresh in (False, True):
        run_all(Run.open(talk / "recipe.yaml"), Console(quiet=True), fresh=fresh)
    assert done == ["report", "screen", "unlearn", "evaluate", "report"]


def test_what_the_screening_missed_takes_no_place_of_a_normal_answer() -> None:
    rows = [{**row, "label": label} for row, label in zip(talk_rows(), ["forget", "normal", None] * 4, strict=True)]
    dialogues = [Dialogue.model_validate(row) for row in rows]
    found = [turn.dialogue.id for turn in _normal_turns(dialogues, 3)]
    assert found == [dialogues[place].id for place in (1, 2, 4)]


def test_rerun_redoes_nothing(finished: Path, letheon: Letheon) -> None:
    before = weights(finished / "run/model")
    code, _, err = letheon("run", "recipe.yaml")
    assert (code, redone(err)) == (0, [])
    assert_same(before, weights(finished / "run/model"), 0)


def test_run_folder_is_rerun_from_another_folder(
    finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert letheon("run", "recipe.yaml")[0] == 0  # writes the resolved recipe for this copy
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    code, _, err = letheon("run", finished / "run")
    assert (code, redone(err)) == (0, [])
    assert not list(Path.cwd().iterdir())


def test_evaluate_settings_redo_evaluation_alone(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("run", "run", "--set", "evaluate.max_new_tokens=4")
    assert (code, redone(err)) == (0, ["evaluate"])


UNSEEN = [{"question": f"Phone of {name}?", "answer": f"Call 040-{name}"} for name in ("Gil", "Hal", "Ida", "Jon")]
DRAWN = ("--set", "evaluate.samples=2")
MEMBERS = ("--set", "evaluate.non_members=unseen.jsonl")


def write_unseen(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "unseen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_texts_of_one_evaluation(finished: Path, letheon: Letheon) -> None:
    assert letheon("evaluate", "run", "--show-texts")[0] == 0
    run = Run.open(finished / "run")
    examples = Results.load(run.results_file).examples
    assert all(one.prompt and one.after is not None for one in examples)
    assert '"answer": ' in run.samples_file.read_text(encoding="utf-8")
    # It was for once: the recipe does not say so, and the next run goes by the recipe.
    assert not run.recipe.show_texts
    assert redone(letheon("run", "run")[2]) == ["evaluate"]
    assert not any(one.prompt or one.after for one in Results.load(run.results_file).examples)
    assert '"answer": ' not in run.samples_file.read_text(encoding="utf-8")


def test_draws_and_membership_of_a_run(
    finished: Path,
    letheon: Letheon,
    tiny_model_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    monkeypatch.setattr("letheon.report.write_report", write_report)
    write_unseen(finished, UNSEEN)
    none = Results.load(finished / "run/results.json").metrics["after"]
    assert "no answers were drawn" in none["forget"]["leak_at_k"].not_computed  # type: ignore[union-attr]
    assert "no model was trained on" in none["membership"]["loss_auc"].not_computed  # type: ignore[union-attr]

    control = ("--set", f"evaluate.control={tiny_model_dir}", "--set", "gates.margin=1")
    whole = ("--set", "evaluate.max_new_tokens=14")
    code, out, err = letheon("run", "run", *DRAWN, *MEMBERS, *control, *whole)
    assert (code, redone(err)) == (0, ["evaluate"])
    results = Results.load(finished / "run/results.json")
    assert list(results.metrics) == ["before", "after", "control"]
    for model, sets in results.metrics.items():
        assert sets["forget"]["leak_at_2"].n == 6  # type: ignore[union-attr]
        assert sets["forget"]["leak_at_1"].mean <= sets["forget"]["leak_at_2"].mean  # type: ignore[union-attr]
        for name, value in sets["membership"].items():
            itself = model == "control" and name in ("reference_auc", "privleak")
            assert isinstance(value, NotComputed if itself else Interval), (model, name, value)
    before, after = (results.metrics[model] for model in ("before", "after"))
    assert before["forget"]["leak_at_2"].mean > after["forget"]["leak_at_2"].mean  # type: ignore[union-attr]
    assert before["membership"]["loss_auc"].estimate > 0.9  # type: ignore[union-attr]
    assert before["membership"]["privleak"].estimate < 0  # type: ignore[union-attr]
    samples = [json.loads(line) for line in (finished / "run/samples.jsonl").read_text().splitlines()]
    assert sum(s["set"] == "membership: non_members" for s in samples) == 3 * len(UNSEEN)
    page = (finished / "run/report.html").read_text()
    for text in ("leak@2", "ROUGE-L of the best of 2 answers", "Membership", "PrivLeak", "AUC by Min-K%++"):
        assert text in page
    assert "040-" not in page + out + err + json.dumps(samples) + results.model_dump_json()
    assert json.loads((finished / "run/manifest.json").read_text())["hashes"]["non_members"]

    # The file counts by what is in it, from wherever it is run.
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    assert redone(letheon("run", finished / "run")[2]) == []
    write_unseen(finished, UNSEEN[:3])
    assert redone(letheon("run", finished / "run")[2]) == ["evaluate"]


@pytest.mark.parametrize("row", [0, 7])
def test_non_members_of_the_log_are_refused(finished: Path, letheon: Letheon, row: int) -> None:
    # Those that were to be kept have been learnt as well, also those that unlearning never saw.
    known = talk_rows()[row]["messages"]
    write_unseen(finished, [*UNSEEN, {"question": known[0]["content"].lower(), "answer": known[1]["content"]}])
    code, _, err = letheon("evaluate", "run", *MEMBERS)
    assert code == 2
    (line,) = err.splitlines()
    assert "unseen.jsonl (evaluate.non_members): row 5 stands in " in line
    assert "log.jsonl as well, which was trained on" in line
    assert known[1]["content"] not in err


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"question": "?", "answer": "y" * 300}], "unseen.jsonl: dialogue 'unseen-1': the answer has 301"),
        ([{"question": "?"}], "unseen.jsonl:1"),
    ],
)
def test_faulty_non_members_are_named(
    finished: Path, letheon: Letheon, rows: list[dict[str, Any]], said: str
) -> None:
    write_unseen(finished, rows)
    code, _, err = letheon("evaluate", "run", *MEMBERS)
    assert (code, said in err) == (2, True), err


def test_edited_verdict_redoes_what_stands_on_it(finished: Path, letheon: Letheon) -> None:
    file = finished / "run/verdicts.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["decision"] = "review"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, _, err = letheon("run", "recipe.yaml")
    assert (code, redone(err)) == (0, ["unlearn", "evaluate"])
    assert Results.load(finished / "run/results.json").metrics["after"]["forget"]["probability"].n == 5  # type: ignore[union-attr]


def decide(run: Path, **decisions: str) -> None:
    """As the review page does: decide(run, bad_0="normal")."""
    now = "2026-01-01T00:00:00Z"
    rows = [{"id": n.replace("_", "-"), "turn": 1, "decision": d, "when": now} for n, d in decisions.items()]
    with (run / "decisions.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def verdict_on(run: Path, name: str) -> tuple[str, str, str]:
    lines = [json.loads(line) for line in (run / "verdicts.jsonl").read_text().splitlines()]
    return next((v["decision"], v["category"], v["judge"]) for v in lines if v["id"] == name)


def test_a_persons_decision_redoes_what_stands_on_it(finished: Path, letheon: Letheon) -> None:
    run = finished / "run"
    decide(run, bad_0="normal")
    code, _, err = letheon("run", "recipe.yaml")
    assert (code, redone(err)) == (0, ["unlearn", "evaluate"])
    assert verdict_on(run, "bad-0") == ("normal", "normal", "person")
    results = Results.load(run / "results.json")
    assert results.metrics["after"]["forget"]["probability"].n == 5  # type: ignore[union-attr]
    assert results.screening is not None
    assert (results.screening.forget, results.screening.recall) == (5, 5 / 6)


def test_a_confirmed_verdict_redoes_nothing(finished: Path, letheon: Letheon) -> None:
    decide(finished / "run", bad_0="forget", ok_1="normal")
    code, _, err = letheon("run", "recipe.yaml")
    assert (code, redone(err)) == (0, [])
    assert verdict_on(finished / "run", "bad-0") == ("forget", "privacy", "person")


def test_unlearn_and_evaluate_go_by_decisions(finished: Path, letheon: Letheon) -> None:
    decide(finished / "run", bad_0="normal")
    code, _, err = letheon("evaluate", "run")
    assert (code, "trained with other settings, data or verdicts" in err) == (0, True)
    decide(finished / "run", bad_1="normal", bad_0="undone")
    code, _, err = letheon("unlearn", "run")
    assert (code, "to forget: 4 turns (probed on 1)" in err) == (0, True)
    assert verdict_on(finished / "run", "bad-0") == ("forget", "privacy", "labels")


def test_screening_again_keeps_decisions(finished: Path, letheon: Letheon) -> None:
    run = finished / "run"
    decide(run, bad_0="normal", ok_1="forget", gone="forget")
    code, _, err = letheon("screen", "run")
    assert (code, "that the log does not have: 1" in err, "6 forget, 0 review, 6 normal" in err) == (0, True, True)
    assert verdict_on(run, "bad-0") == ("normal", "normal", "person")
    assert verdict_on(run, "ok-1") == ("forget", "undesired", "person")


def test_an_erasure_request_forgets_nothing_else(finished: Path, letheon: Letheon) -> None:
    run = finished / "run"
    decide(run, ok_1="forget", bad_1="normal")
    code, _, err = letheon("screen", "run", "--set", "data.subject=person-1")
    assert (code, "2 forget, 5 review, 5 normal" in err) == (0, True)
    # Whom it is about decides, and what is not fit to be kept as normal is kept out.
    assert verdict_on(run, "bad-1") == ("forget", "privacy", "subject")
    assert verdict_on(run, "ok-1") == ("review", "privacy", "subject")


def test_damaged_decisions_are_named_before_anything_runs(finished: Path, letheon: Letheon) -> None:
    decide(finished / "run", bad_0="maybe")
    code, _, err = letheon("run", "recipe.yaml", "--fresh")
    assert (code, err) == (
        2,
        "letheon: run/decisions.jsonl:1: decision: Input should be 'forget', 'normal' or 'undone'; mend the line, or "
        "take it out\n",
    )


def test_changed_data_redoes_all(finished: Path, letheon: Letheon) -> None:
    extra = {"id": "new", "label": "normal", "messages": [{"role": "user", "content": "Ice?"}]}
    extra["messages"] += [{"role": "assistant", "content": "It is cold"}]  # type: ignore[operator]
    with (finished / "log.jsonl").open("a") as log:
        log.write(json.dumps(extra) + "\n")
    code, _, err = letheon("run", "recipe.yaml")
    assert (code, redone(err)) == (0, list(STAGES))


@pytest.mark.parametrize("stage", ["screen", "unlearn", "evaluate"])
def test_what_changes_while_a_stage_runs_it_has_not_seen(
    finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from letheon import pipeline

    log, measured = finished / "log.jsonl", pipeline.Measured

    def measure() -> Any:
        log.write_text(log.read_text() + "\n")
        return measured()

    monkeypatch.setattr(pipeline, "Measured", measure)
    assert letheon(stage, "recipe.yaml")[0] == 0
    assert not Run.open(finished / "recipe.yaml").is_current(stage)


def test_verdicts_of_another_screening_are_used_with_a_warning(finished: Path, letheon: Letheon) -> None:
    says = "verdicts.jsonl is not of this log and these judges"
    for override, warned in (("screen.forget_above=0.9", True), ("train.max_steps=2", False)):
        code, _, err = letheon("unlearn", "recipe.yaml", "--set", override)
        assert (code, says in err) == (0, warned)


def test_full_tuning(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("run", "recipe.yaml", "--set", "tuning.kind=full", "--set", "train.learning_rate=1e-3")
    assert (code, redone(err)) == (0, ["unlearn", "evaluate"])
    assert (finished / "run/model/config.json").is_file()
    assert not (finished / "run/model/adapter_config.json").exists()


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_rmu_moves_the_layer_that_it_reads(finished: Path, letheon: Letheon, tuning: str) -> None:
    """The tiny model has two layers, and the first is read."""
    settings = [
        "objective.negative.name=adaptive-rmu",
        "objective.positive.name=none",
        "objective.normal.name=states",
    ]
    settings += ["objective.normal.weight=1200", f"tuning.kind={tuning}"]
    code, _, err = letheon("unlearn", "recipe.yaml", *(part for one in settings for part in ("--set", one)))
    assert code == 0, err
    before, after = weights(finished / "model"), weights(finished / "run/model")
    moved = after.keys() if tuning == "lora" else {n for n in after if not torch.equal(after[n], before[n])}
    assert moved
    assert all("layers.0." in name for name in moved)
    lines = [json.loads(line) for line in (finished / "run/training.jsonl").read_text().splitlines()]
    assert [line["weight_normal"] for line in lines if "normal" in line] == [1200] * 8


@pytest.mark.parametrize(
    ("setting", "fault"),
    [
        ("objective.negative.layer=1", "layer=1: the model has 2 layers"),
        ("tuning.layers=top-1", "the lowest layer that learns is 1, above layer 0"),
        ("tuning.layers=0-5", "tuning.layers=0-5: the model has 2 layers, numbered 0 to 1"),
    ],
)
def test_layers_are_checked_before_anything_runs(talk: Path, letheon: Letheon, setting: str, fault: str) -> None:
    code, _, err = letheon(
        *(
            "run",
            "recipe.yaml",
            "--set",
            "objective.negative.name=rmu",
            "--set",
            setting,
            "--set",
            "evaluate.control=./no",
        )
    )
    assert code == 2
    # Beside other faults, all at once.
    assert fault in err
    assert "./no: no such model folder" in err
    assert not (talk / "run").exists()


@pytest.mark.slow
def test_what_the_model_said_before_is_kept_if_asked(finished: Path, letheon: Letheon) -> None:
    assert not (finished / "run/cache").exists()
    assert letheon("unlearn", "run", "--keep-cache")[0] == 0
    assert list((finished / "run/cache").glob("*.safetensors"))
    assert letheon("unlearn", "run")[0] == 0
    assert not (finished / "run/cache").exists()


# -- each stage alone ------------------------------------------------------------------------------------------------


def test_back_to_the_level_of_a_base(finished: Path, letheon: Letheon, tiny_model_dir: Path) -> None:
    given = ("unlearn", "run", "--set", "objective.negative.name=base")
    code, _, err = letheon(*given)
    assert code == 2
    assert "objective.negative.name is 'base', but no base is named" in err
    code, _, err = letheon(*given, "--set", f"base={tiny_model_dir}", "--set", "train.max_steps=2")
    assert code == 0, err
    assert f"base: {tiny_model_dir}" in (finished / "run/recipe.yaml").read_text()
    probes = [json.loads(line).get("probe") for line in (finished / "run/training.jsonl").read_text().splitlines()]
    before, *_, after = [probe for probe in probes if probe]
    assert after["probability"] < before["probability"]


def test_stages_one_by_one(talk: Path, letheon: Letheon, finished_source: Path) -> None:
    assert letheon("screen", "recipe.yaml")[0] == 0
    assert (talk / "run/verdicts.jsonl").is_file()
    code, _, err = letheon("evaluate", "run")
    assert (code, "run 'letheon unlearn run' first" in err) == (2, True)
    assert letheon("unlearn", "run")[0] == 0
    assert letheon("evaluate", "run")[0] == 0
    assert letheon("report", "run")[0] == 0
    assert_same(weights(talk / "run/model"), weights(finished_source / "model"), 1e-6)
    code, _, err = letheon("run", "run")
    assert (code, redone(err)) == (0, [])


@pytest.mark.parametrize("command", ["unlearn", "expect"])
def test_stages_need_the_screening(talk: Path, letheon: Letheon, command: str) -> None:
    code, _, err = letheon(command, "recipe.yaml")
    assert code == 2
    assert "not screened yet; run 'letheon screen run' first" in err


def test_expect_shows_who_is_pulled_where(finished: Path, letheon: Letheon) -> None:
    before = (finished / "run/recipe.yaml").read_bytes()
    code, out, err = letheon("expect", "run")
    assert code == 0
    assert "bad-" in out
    assert "I cannot say" not in out + err
    # Without a probe each of them is trained on.
    only = ("--set", "expected.sources=[data]", "--set", "data.probe=0")
    code, out, err = letheon("expect", "run", "--id", "bad-2", *only)
    assert code == 0
    assert "I cannot say." in out
    assert "1.000" in out
    code, _, err = letheon("expect", "run", "--id", "nobody")
    assert code == 2
    assert "--id 'nobody': not among the" in err
    assert (finished / "run/recipe.yaml").read_bytes() == before


def test_erasure_request_forgets_one_subject(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("unlearn", "run", "--subject", "person-1")
    assert code == 0
    verdicts = [json.loads(line) for line in (finished / "run/verdicts.jsonl").read_text().splitlines()]
    decisions = {verdict["id"]: verdict["decision"] for verdict in verdicts}
    assert {name for name, decision in decisions.items() if decision == "forget"} == {"bad-1", "bad-5"}
    # What is undesired but was not asked for is trained on in neither way.
    assert {name for name, decision in decisions.items() if decision == "review"} == {
        *("bad-0", "bad-2", "bad-3", "bad-4")
    }
    assert "to forget: 2 turns (and probed)" in err
    results = Results.load(finished / "run/results.json")
    assert results.stop is not None
    # They belong to the model before.
    assert results.metrics == {}
    assert results.verdict is results.screening is None
    assert letheon("evaluate", "run")[0] == 0


def test_evaluation_says_that_the_model_is_of_other_settings(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("evaluate", "run", "--set", "seed=5")
    assert code == 0
    assert "warning: the model was trained with other settings" in err
    shutil.rmtree(finished / "run/model")
    code, _, err = letheon("evaluate", "run")
    assert code == 2
    assert "the trained model is gone" in err


def test_what_the_screening_missed_is_no_normal_answer(finished: Path, letheon: Letheon) -> None:
    file = finished / "run/verdicts.jsonl"
    verdicts = [json.loads(line) for line in file.read_text().splitlines()]
    missed = next(verdict for verdict in verdicts if verdict["decision"] == "forget")
    missed |= {"decision": "normal", "category": "normal"}
    file.write_text("".join(json.dumps(verdict) + "\n" for verdict in verdicts))
    assert letheon("evaluate", "run")[0] == 0
    samples = [json.loads(line) for line in (finished / "run/samples.jsonl").read_text().splitlines()]
    assert {sample["set"] for sample in samples} >= {"normal_trained", "normal_held_out"}
    assert missed["id"] not in {sample["id"] for sample in samples}


# -- interrupted, and equal by another way ---------------------------------------------------------------------------


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    from letheon.train.recipe_run import TrainingLog

    log = TrainingLog.on_log

    def on_log(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= step:
            raise KeyboardInterrupt
        log(self, args, state, control, **kwargs)

    monkeypatch.setattr(TrainingLog, "on_log", on_log)


def test_resumed_training_ends_where_the_unbroken_one_does(talk: Path, letheon: Letheon) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(6, patch)
        # Never within the guards: the negative loss rests after the first probe, here before the kill.
        code, _, err = letheon(
            *("run", "recipe.yaml", "--set", "train.save_steps=2", "--set", "stop.every=2"),
            *("--set", "stop.kl_budget=1e-9"),
        )
    assert (code, "letheon: interrupted; 'letheon run … --resume'" in err) == (130, True)
    assert not (talk / "run/model").exists()
    assert {path.name for path in (talk / "run/checkpoints").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}
    # A kill in the middle of writing a checkpoint.
    shutil.copytree(talk / "run/checkpoints/checkpoint-4", talk / "run/checkpoints/checkpoint-6")
    (talk / "run/checkpoints/checkpoint-6/letheon_state.json").unlink()
    code, _, err = letheon("run", "run", "--resume")
    assert (code, redone(err)) == (0, ["unlearn", "evaluate"])
    resumed = weights(talk / "run/model")
    assert not (talk / "run/checkpoints").exists()
    assert letheon("run", "run", "--fresh")[0] == 0
    assert_same(resumed, weights(talk / "run/model"), 1e-6)
    # Where nothing was cut off there is nothing to go on with.
    code, _, err = letheon("unlearn", "run", "--resume", "--set", "train.max_steps=1")
    assert "no training was cut off here" in err
    assert {row["step"] for row in map(json.loads, (talk / "run/training.jsonl").open())} <= {0, 1}


AUTO = ("--set", "tuning.layers=auto")


def watch_layers(patch: pytest.MonkeyPatch) -> list[str]:
    """The layers of each training from now on, and a "trial" for each that is tried."""
    from letheon.train import depth, recipe_run

    seen: list[str] = []

    def watched(name: str) -> Callable[..., Any]:
        real = getattr(recipe_run, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append("trial" if name == "choose_layers" else args[1].layers)
            return real(*args, **kwargs)

        return call

    for name in ("choose_layers", "adapter_for"):
        patch.setattr(recipe_run, name, watched(name))
    # Whatever the figures are here, and not the default.
    pick = depth.pick
    patch.setattr(depth, "pick", lambda tried, default: pick(tried, default).model_copy(update={"chosen": "top-33%"}))
    return seen


@pytest.mark.slow
def test_layers_chosen_by_a_trial(finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = watch_layers(monkeypatch)
    code, _, err = letheon("run", "run", *AUTO)
    assert (code, redone(err), seen) == (0, ["unlearn", "evaluate"], ["trial", "top-33%"])
    chosen = Results.load(finished / "run/results.json").layers
    assert chosen is not None
    assert [one.layers for one in chosen.tried] == ["all", "top-33%"]
    lines = [line for line in err.splitlines() if line.startswith("layers ")]
    assert len(lines) == 3
    assert all("s a step, after" in line for line in lines[:2])
    assert lines[2] == f"layers chosen: top-33%: {chosen.why}"
    # It is the run that it would have been without the trial, to the bit.
    tried = weights(finished / "run/model")
    assert redone(letheon("run", "run")[2]) == []
    assert letheon("run", "run", "--set", "tuning.layers=top-33%")[0] == 0
    assert_same(tried, weights(finished / "run/model"), 0)
    assert Results.load(finished / "run/results.json").layers is None


@pytest.mark.slow
def test_a_resumed_training_keeps_the_layers_chosen(
    talk: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        seen = watch_layers(patch)
        assert letheon("run", "recipe.yaml", *AUTO, "--set", "train.save_steps=2")[0] == 130
    assert seen == ["trial", "top-33%"]
    recorded = (talk / "run/checkpoints/layers.json").read_text()
    with monkeypatch.context() as patch:
        seen = watch_layers(patch)
        code, _, err = letheon("run", "run", "--resume")
    assert (code, seen, "layers chosen: top-33%" in err) == (0, ["top-33%"], True)
    layers = Results.load(talk / "run/results.json").layers
    assert layers is not None
    assert layers.model_dump_json() + "\n" == recorded
    # Without --resume all is done anew.
    with monkeypatch.context() as patch:
        interrupt_at(4, patch)
        letheon("unlearn", "run")
        seen = watch_layers(patch)
        assert letheon("unlearn", "run")[0] == 130
    assert seen == ["trial", "top-33%"]


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [False, True])
def test_resume_with_other_settings_starts_anew(talk: Path, letheon: Letheon, damaged: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(4, patch)
        assert letheon("run", "recipe.yaml", "--set", "train.save_steps=2")[0] == 130
    if damaged:
        # What it was given can no longer be read.
        (talk / "run/checkpoints/inputs.txt").write_bytes(b"\xff\xfe")
    code, _, err = letheon("unlearn", "run", "--resume", "--set", "train.max_steps=2", "--set", "train.save_steps=1")
    assert code == 0
    assert "warning: settings or data have changed since the training was cut off: it starts anew" in err
    assert "stopped at step 2" in err


@pytest.mark.parametrize("size", [3, 8])
def test_accumulated_batches_equal_a_large_one(talk: Path, letheon: Letheon, size: int) -> None:
    found = []
    for batch, accumulation in ((1, size), (size, 1)):
        settings = {
            "per_device_train_batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "max_steps": 4,
            "learning_rate": 1e-3,
            "stop_rule": "false",
            "bf16": "false",
        }
        overrides = [word for name, value in settings.items() for word in ("--set", f"train.{name}={value}")]
        # Adapters that start from the data depend on the last bits of a forward pass.
        overrides += ["--set", "data.probe=0", "--set", "tuning.lora.init=random"]
        assert letheon("screen", "recipe.yaml", *overrides)[0] == 0
        assert letheon("unlearn", "run")[0] == 0
        found.append(weights(talk / "run/model"))
    assert_same(*found, 1e-5)


# -- outcomes --------------------------------------------------------------------------------------------------------


def test_clean_model_is_left_alone(talk: Path, letheon: Letheon, tiny_model_dir: Path) -> None:
    code, _, err = letheon("run", "recipe.yaml", "--set", f"model={tiny_model_dir}")
    assert code == 0
    assert "stopped at step 0: already clean" in err
    assert not (talk / "run/model").exists()
    results = Results.load(talk / "run/results.json")
    assert results.verdict is not None
    assert results.verdict.forgotten == "yes"
    before, after = (results.metrics[name]["forget"]["probability"] for name in ("before", "after"))
    assert before == after
    assert redone(letheon("run", "run")[2]) == []


def test_failed_gate_is_exit_code_1(finished: Path, letheon: Letheon) -> None:
    for _ in range(2):
        code, _, err = letheon("run", "run", "--set", "gates.max_probability=0")
        assert code == 1
        assert "letheon: gate failed: " in err
    assert redone(err) == []
    assert (finished / "run/report.html").is_file()


def test_a_model_that_broke_the_guards_is_exit_code_1(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("unlearn", "run", "--set", "stop.kl_budget=1e-12")
    assert code == 1
    assert "letheon: the model is not fit for use: " in err
    assert "no state passed the guards" in err


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"),
    ],
)
def test_full_disk_leaves_the_old_model(
    finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    before = weights(finished / "run/model")

    def save(model: Any, tokenizer: Any, folder: Path) -> None:
        folder.mkdir()
        (folder / "half").write_text("written")
        raise error

    monkeypatch.setattr("letheon.pipeline.save_model", save)
    code, _, err = letheon("unlearn", "run", "--set", "train.max_steps=1")
    assert code == 2
    assert err.splitlines()[-1].startswith("letheon: the disk is full")
    assert "Traceback" not in err
    assert not (finished / "run/model.new").exists()
    assert_same(before, weights(finished / "run/model"), 0)
    # It is not taken for a model of the new settings.
    assert not Run.open(finished / "run").is_current("unlearn")


@pytest.mark.slow
def test_rehearsal_is_kept_beside_the_normal_dialogues(
    finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Any] = []
    guarded: list[Any] = []
    start = UnlearnTrainer.__init__

    def watch(self: Any, *args: Any, **kwargs: Any) -> None:
        start(self, *args, **kwargs)
        kept.append(self.train_dataset.normal)
        guarded.append(self._watch.watched)

    monkeypatch.setattr(UnlearnTrainer, "__init__", watch)
    command = ("unlearn", "run", "--set", "train.max_steps=1")
    assert letheon(*command)[0] == 0
    code, _, err = letheon(*command, "--set", "objective.normal.rehearsal=true")
    assert code == 0
    (number,) = re.findall(r"the model's own answers to (\d+) everyday questions", err)
    assert 0 < int(number) < len(everyday_questions())
    # Some of them are for the guards, and not trained on.
    assert len(kept[1]) - len(kept[0]) == int(number) - -(-int(number) // GUARDING)
    assert guarded[1].normal == guarded[0].normal
    assert (len(guarded[0].rehearsed), len(guarded[1].rehearsed)) == (0, -(-int(number) // GUARDING))
    assert not any(answer in kept[1] for answer in (*guarded[1].normal, *guarded[1].rehearsed))


def test_verdicts_teach_a_judge_of_new_answers(finished: Path) -> None:
    run = Run.open(finished / "run")
    judge = judge_of_verdicts(run)
    assert judge is not None
    turns = [dialogue.last_turn for dialogue in run.dialogues]
    told = run.verdicts()
    decided = {verdict.id: verdict.decision for verdict in told}
    agreed = sum(verdict.decision == decided[verdict.id] for verdict in judge(turns))
    assert agreed > 0.8 * len(turns)
    # One dialogue to forget is too few to learn from.
    one = [
        v if v.decision == "normal" or v.id == "bad-0" else v.model_copy(update={"decision": "review"}) for v in told
    ]
    write_jsonl(run.verdicts_file, one)
    assert judge_of_verdicts(Run.open(finished / "run")) is None


def test_a_judge_learns_from_a_sample_of_a_long_log(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[Any] = []
    monkeypatch.setattr("letheon.screen.judge_from", lambda labelled, seed: taught.append(labelled))
    run = Run.open(finished / "run")
    judge_of_verdicts(run)
    assert [one.id for one in taught[0]] == [one.id for one in run.log()]
    monkeypatch.setattr("letheon.material.TAUGHT", 3)
    judge_of_verdicts(run)
    assert sorted(one.label for one in taught[1]) == ["forget"] * 3 + ["normal"] * 3


def test_of_many_normal_dialogues_some_are_used(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("run", "run", "--set", "data.most_normal=4", "--set", "train.max_steps=1")
    assert (code, redone(err)) == (0, ["unlearn", "evaluate"])
    assert "to keep: 2 dialogues, 1 for the guards, 1 held out" in err
    run = Run.open(finished / "run")
    normal = sum(verdict.decision == "normal" for verdict in run.verdicts())
    assert f"the log has {normal - 4} normal dialogues more: 4 are used, drawn at random (data.most_normal)" in err
    found = Results.load(run.results_file).metrics["after"]["normal_held_out"]["probability"]
    assert found.n == 1  # type: ignore[union-attr]


def test_the_log_is_not_held_whole(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.run.read_dialogues", lambda path: pytest.fail("the log was read whole"))
    run, console = Run.open(finished / "run"), Console(quiet=True)
    decide(run.folder, bad_0="normal")
    settle(run, console.warn)
    unlearn_stage(run, console)
    evaluate_stage(run, console)


def test_a_judge_that_selected_the_data_is_named_in_what_is_handed_on(
    finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who confirmed its verdicts makes it no other judge."""
    monkeypatch.setattr("letheon.report.write_report", write_report)
    privacy = ("--set", "screen.judges=[labels, privacy]")
    assert letheon("screen", "run", *privacy)[0] == 0
    run = Run.open(finished / "run")
    verdicts = [
        one.model_copy(update={"judge": "person", "judged": one.model_copy(update={"judge": PrivacyJudge().name})})
        for one in run.verdicts()
    ]
    write_jsonl(run.verdicts_file, verdicts)
    code, _, err = letheon("evaluate", "run")
    assert code in (0, 1), err
    (note,) = Results.load(run.results_file).notes
    assert note.startswith(f"undesired_rate: SAME JUDGE: {PrivacyJudge().name} selected the data")
    assert note in err
    assert letheon("report", "run")[0] == 0
    assert "SAME JUDGE" in (finished / "run/report.html").read_text()
    assert "SAME JUDGE" in (finished / "run/model/README.md").read_text()


def test_answer_judge_needs_more_than_labels() -> None:
    recipe = check_recipe({"model": "m", "data": {"dialogues": "d"}})
    assert answer_judge(recipe) is None


# -- privacy ---------------------------------------------------------------------------------------------------------

SECRETS = ("zebraquestion", "zebraanswer", "zebraexpected")


def texts(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in files
        if path.suffix not in (".safetensors", ".bin")
    }


def leaks(found: dict[str, str]) -> set[str]:
    return {name for name, text in found.items() if any(secret in text for secret in SECRETS)}


def test_texts_stay_out_unless_asked_for(talk: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.report.write_report", write_report)
    rows = talk_rows()
    for row in rows[:6]:
        row["messages"][0]["content"] += " zebraquestion"
        row["messages"][1]["content"] = "a@zebraanswer.com"
        row["expected"] = ["No zebraexpected."]
    (talk / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, out, err = letheon(
        *("run", "recipe.yaml", "--set", "train.stop_rule=false", "--set", "train.max_steps=2"),
        *("--set", "screen.judges=[labels, privacy]"),
    )
    assert code == 0
    assert leaks({**texts(talk / "run"), "stdout": out, "stderr": err}) == set()
    code, out, err = letheon("expect", "run")
    assert (code, leaks({"stdout": out, "stderr": err})) == (0, set())

    code, out, err = letheon("run", "run", "--set", "show_texts=true")
    assert (code, redone(err)) == (0, ["evaluate"])
    shown = leaks({**texts(talk / "run"), "stdout": out, "stderr": err})
    assert "results.json" in shown
    assert shown <= {"results.json", "samples.jsonl", "report.html"}
    results = json.loads((talk / "run/results.json").read_text())
    assert any("zebraquestion" in (example["prompt"] or "") for example in results.pop("examples"))
    assert "zebra" not in json.dumps(results)

    assert letheon("run", "run", "--set", "show_texts=false")[0] == 0
    assert leaks(texts(talk / "run")) == set()
