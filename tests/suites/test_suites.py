"""Every suite, from its files to its results, on a tiny model and a control."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest
from suite_files import SECRET, WRITERS, write_lines, write_list

from letheon.records import Estimate, Interval
from letheon.suites.options import OF, Options
from letheon.suites.results import SuiteResults
from letheon.suites.trained_on import folders_of, logs_of

EXPECTED = {
    "leak": {
        "forget": [
            "probability",
            "extraction_strength",
            "rouge_l",
            "leak_at_1",
            "leak_at_2",
            "rouge_l_best_of_2",
            "leaked_spans",
        ],
        "paraphrase": ["probability", "leaked_spans"],
        "normal": ["probability", "abstentions"],
        "general": ["loss"],
        "membership": ["loss_auc", "zlib_auc", "reference_auc", "grad_norm_auc", "min_k_plus_plus_auc", "privleak"],
    },
    "tofu": {
        "forget": ["forgotten_truth", "truth_probability", "paraphrased_probability", "forget_quality", "leak_at_2"],
        "retain": ["kept_truth", "probability"],
        "real_authors": ["option_probability", "kept_truth"],
        "world_facts": ["option_probability", "rouge_l"],
        "overall": ["model_utility"],
        "membership": ["min_k_auc", "privleak"],
    },
    "muse": {
        "verbatim": ["verbatim_memorisation"],
        "knowledge_forget": ["knowledge_memorisation"],
        "knowledge_retain": ["knowledge_memorisation"],
        "membership": ["min_k_auc", "privleak"],
    },
    "wmdp": {"wmdp-bio": ["accuracy"], "wmdp-cyber": ["accuracy"], "mmlu": ["accuracy"]},
    "harm": {"harmful": ["harmful_rate", "refusal_rate"], "harmless": ["over_refusal"]},
    "hallucination": {"questions": ["mc1", "mc2", "hallucination_rate", "right_rate", "abstentions"]},
}

Data = Callable[[str], Path]
Command = Callable[..., tuple[int, str, str]]
Measured = Callable[..., tuple[SuiteResults, str, str]]


@pytest.fixture
def measured(letheon: Command, tmp_path: Path) -> Measured:
    """Measure a model with a suite by the command: its results, which lie in found.json, and what it printed."""

    def measure(name: str, data: Path, model: Path, samples: int, *more: Any) -> tuple[SuiteResults, str, str]:
        output = tmp_path / "found.json"
        arguments = ["--suite", name, "--data", data, "--output", output]
        arguments += ["--samples", samples] if name in OF["--samples"] else []
        code, out, err = letheon("evaluate", model, *arguments, *more)
        assert code == 0, err
        return SuiteResults.model_validate_json(output.read_text(encoding="utf-8")), out, err

    return measure


@pytest.mark.parametrize("name", WRITERS)
def test_a_suite_from_files_to_results(
    name: str, measured: Measured, suite_data: Data, tiny_model_dir: Path, control_dir: Path, tmp_path: Path
) -> None:
    found, out, err = measured(name, suite_data(name), tiny_model_dir, 2, "--control", control_dir)
    assert set(found.metrics) == {"model", "control"}
    for group, metrics in EXPECTED[name].items():
        for metric in metrics:
            value = found.metrics["model"][group][metric]
            assert not hasattr(value, "not_computed"), (group, metric, value)
    assert found.models["model"].hash != found.models["control"].hash
    assert found.data
    # It says first how long it will take, and no text gets out.
    assert err.index(" in all, by what a few took") < err.index("written: ")
    lines = (tmp_path / "found.samples.jsonl").read_text(encoding="utf-8")
    assert all(
        SECRET not in text for text in (out, err, (tmp_path / "found.json").read_text(encoding="utf-8"), lines)
    )
    assert {row["model"] for row in map(json.loads, lines.splitlines())} == {"model", "control"}


def test_rewordings_of_one_dialogue_are_no_news_of_each_other(
    measured: Measured, suite_data: Data, tiny_model_dir: Path
) -> None:
    folder = suite_data("leak")
    once, _, _ = measured("leak", folder, tiny_model_dir, 0)
    path = folder / "paraphrases.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    write_lines(path, [*rows, *({**row, "id": f"again-{row['id']}"} for row in rows)])
    twice, _, _ = measured("leak", folder, tiny_model_dir, 0)
    one, two = (found.metrics["model"]["paraphrase"]["loss"] for found in (once, twice))
    assert isinstance(one, Estimate)
    assert isinstance(two, Estimate)
    assert two.n == 2 * one.n
    assert two.stderr == pytest.approx(one.stderr, rel=1e-4)


@pytest.mark.parametrize("name", ["leak", "tofu", "muse"])
def test_without_a_control(
    name: str, letheon: Command, suite_data: Data, tiny_model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "found.json"
    arguments = ["--suite", name, "--data", suite_data(name), "--output", output]
    arguments += ["--samples", 0] if name in OF["--samples"] else []
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert code == 0, err
    found = SuiteResults.model_validate_json(output.read_text(encoding="utf-8")).metrics["model"]
    missing = [found["membership"]["privleak"], found["membership"]["reference_auc"]]
    missing += [found["forget"]["forget_quality"]] if name == "tofu" else []
    assert all("no control was given" in value.not_computed for value in missing)  # type: ignore[union-attr]
    assert "not computed: " in err
    assert "--control" in err
    if name != "muse":
        assert "--samples 0" in found["forget"]["leak_at_k"].not_computed  # type: ignore[union-attr]


def test_without_the_embedder(
    measured: Measured, suite_data: Data, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = suite_data("hallucination")
    whole, _, _ = measured("hallucination", folder, tiny_model_dir, 0)
    monkeypatch.setattr("letheon.suites.hallucination.missing_modules", lambda extra: ["sentence_transformers"])
    monkeypatch.setattr("letheon.embed.Embedder.encode", None)
    found, _, err = measured("hallucination", folder, tiny_model_dir, 0)
    metrics, known = (one.metrics["model"]["questions"] for one in (found, whole))
    lacking = {"hallucination_rate", "right_rate"}
    assert {name: metrics[name] for name in metrics.keys() - lacking} == {
        name: known[name] for name in known.keys() - lacking
    }
    assert {"mc1", "mc2", "abstentions"} < metrics.keys()
    assert "not computed: questions hallucination_rate, questions right_rate: " in err
    assert "pip install 'letheon[screen]'" in err


@pytest.mark.parametrize("name", WRITERS)
def test_a_broken_model_has_no_numbers(
    name: str,
    measured: Measured,
    suite_data: Data,
    tiny_model: Callable[..., Any],
    tiny_tokenizer: Any,
    tmp_path: Path,
) -> None:
    model = tiny_model()
    model.lm_head.weight.data.fill_(float("nan"))
    model.save_pretrained(tmp_path / "broken")
    tiny_tokenizer.save_pretrained(tmp_path / "broken")
    found, _, err = measured(name, suite_data(name), tmp_path / "broken", 2)
    numbers = [(group, metric) for group, own in found.metrics["model"].items() for metric in own]
    assert all(hasattr(found.metrics["model"][group][metric], "not_computed") for group, metric in numbers), numbers
    assert "the model is broken" in err


KEPT = {
    "leak": ["normal", "general"],
    "tofu": ["retain", "real_authors", "world_facts"],
    "muse": ["knowledge_retain"],
}


@pytest.mark.parametrize("name", ["leak", "tofu", "muse", "wmdp"])
def test_beside_the_model_before(
    name: str, measured: Measured, suite_data: Data, tiny_model_dir: Path, control_dir: Path, tmp_path: Path
) -> None:
    data = suite_data(name)
    found, out, _ = measured(name, data, tiny_model_dir, 0, "--before", control_dir)
    assert list(found.metrics) == list(found.models) == ["model", "before"]
    assert out.index("model") < out.index("before")
    for group in KEPT.get(name, []):
        kl = found.metrics["model"][group]["kl"]
        assert kl.mean > 0  # type: ignore[union-attr]
        others = (value.n for value in found.metrics["model"][group].values() if isinstance(value, Estimate))
        assert kl.n in others  # type: ignore[union-attr]
        assert "the model before itself" in found.metrics["before"][group]["kl"].not_computed  # type: ignore[union-attr]
    rows = [json.loads(line) for line in (tmp_path / "found.samples.jsonl").read_text(encoding="utf-8").splitlines()]
    with_kl = {row["set"] for row in rows if "kl" in row["scores"]}
    assert with_kl == set(KEPT.get(name, []))
    # Its own numbers are those that it would have alone.
    alone = measured(name, data, control_dir, 0)[0].metrics["model"]
    for group, metrics in alone.items():
        for metric, value in metrics.items():
            beside = found.metrics["before"][group][metric]
            if isinstance(value, Estimate):
                assert beside.mean == pytest.approx(value.mean, abs=1e-5), metric  # type: ignore[union-attr]
            elif metric == "kl":
                assert "no model before was given: name it with --before" in value.not_computed  # type: ignore[union-attr]


def test_no_kl_to_a_model_with_other_tokens(
    letheon: Command,
    suite_data: Data,
    tiny_model: Callable[..., Any],
    tiny_tokenizer: Any,
    tiny_model_dir: Path,
    tmp_path: Path,
) -> None:
    tiny_model(vocab_size=300).save_pretrained(tmp_path / "wider")
    tiny_tokenizer.save_pretrained(tmp_path / "wider")
    output = tmp_path / "found.json"
    arguments = ["--suite", "leak", "--data", suite_data("leak"), "--output", output, "--samples", 0]
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments, "--before", tmp_path / "wider")
    assert code == 2
    assert "has other tokens than" in err
    assert len(err.splitlines()) == 1
    # A control may be of another kind.
    arguments += ["--before", tiny_model_dir, "--control", tmp_path / "wider"]
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert code == 0, err
    found = SuiteResults.model_validate_json(output.read_text(encoding="utf-8")).metrics
    assert found["model"]["normal"]["kl"].mean == 0  # type: ignore[union-attr]
    assert "other tokens" in found["control"]["normal"]["kl"].not_computed  # type: ignore[union-attr]


def test_texts_only_where_they_are_wanted(
    letheon: Command, suite_data: Data, tiny_model_dir: Path, tmp_path: Path
) -> None:
    output = tmp_path / "found.json"
    arguments = ["--suite", "harm", "--data", suite_data("harm"), "--output", output, "--show-texts", "--limit", 2]
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert code == 0, err
    rows = [json.loads(line) for line in (tmp_path / "found.samples.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 4
    assert all(SECRET in row["prompt"] and "answer" in row for row in rows)
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["limit"] == 2
    assert "at most 2 rows" in found["notes"][-1]


def test_the_numbers_are_those_of_the_evaluation(letheon: Command, talk_source: Path, tmp_path: Path) -> None:
    from letheon.dialogues import read_dialogues
    from letheon.evaluate import EvalSets, evaluate_model
    from letheon.models import load_model, load_tokenizer

    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "forget.jsonl").write_bytes((talk_source / "log.jsonl").read_bytes())
    rows = [{"question": f"Phone of {name}?", "answer": f"Call 040-{name}"} for name in ("Gil", "Hal", "Ida")]
    write_lines(folder / "holdout.jsonl", rows)
    model = talk_source / "model"
    output = tmp_path / "found.json"
    code, _, err = letheon("evaluate", model, "--suite", "leak", "--data", folder, "-o", output, "--samples", 2)
    assert code == 0, err
    metrics = SuiteResults.model_validate_json(output.read_text(encoding="utf-8")).metrics["model"]
    own = metrics["forget"]
    turns = [dialogue.last_turn for dialogue in read_dialogues(talk_source / "log.jsonl")]
    others = [dialogue.last_turn for dialogue in read_dialogues(folder / "holdout.jsonl")]
    sets = EvalSets(forget=turns, non_members=others)
    wanted = evaluate_model(load_model(str(model)), load_tokenizer(str(model)), sets)
    for metric, value in wanted.metrics["membership"].items():
        if isinstance(value, Interval):
            assert metrics["membership"][metric].estimate == pytest.approx(value.estimate), metric  # type: ignore[union-attr]
    for metric, value in wanted.metrics["forget"].items():
        if hasattr(value, "mean"):
            assert own[metric].mean == pytest.approx(value.mean, abs=1e-5), metric  # type: ignore[union-attr]
    # The model says its dialogues by heart: draws do, too.
    assert own["leak_at_2"].mean >= own["leak_at_1"].mean > 0.5  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--suite", "leak"], "needs --data FOLDER"),
        (["--suite", "tofuu", "--data", "."], "--suite tofuu: known suites: leak, harm,"),
        (["--suite", "leak", "--data", "nowhere"], "--data nowhere: no such folder"),
        (["--suite", "leak", "--data", "."], "forget.jsonl: no such file"),
        (["--suite", "tofu", "--data", "."], "forget10_perturbed.jsonl: no such file"),
        (["--suite", "muse", "--data", "."], "privleak/holdout.json: no such file"),
        (["--suite", "wmdp", "--data", "."], "none of wmdp-bio"),
        (["--suite", "harm", "--data", "."], "harmful.jsonl: no such file"),
        (["--suite", "hallucination", "--data", "."], "mc_task.json: no such file"),
        (["--suite", "leak", "--data", ".", "--set", "seed=1"], "--set changes a recipe"),
        (["--suite", "leak", "--data", ".", "--output", "found.txt"], "ends in .json"),
        (["--data", "."], "--data: of the suites leak, harm, hallucination, tofu, muse, wmdp; name one with --suite"),
        (["--limit", "5"], "--limit: of the suites"),
        (["--samples", "5"], "name one with --suite; of a run, set evaluate.samples in the recipe"),
        (["--suite", "leak", "--data", ".", "--judge", "r.yaml"], "--judge: of the suite harm; leave it out"),
        (["--suite", "wmdp", "--data", ".", "--samples", "2"], "--samples: of the suites leak, tofu; leave it out"),
        (["--suite", "lm-eval", "--show-texts", "--tasks", "x"], "--show-texts: of the suites"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str],
    said: str,
    letheon: Command,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "file", "row", "said"),
    [
        ("tofu", "forget10_perturbed.jsonl", {"question": "Q?", "answer": "A"}, "expected an object with"),
        (
            "tofu",
            "retain_perturbed.jsonl",
            {"question": "Q?", "answer": "A", "paraphrased_answer": "B", "perturbed_answer": []},
            "row 1: question, ",
        ),
        ("tofu", "holdout.jsonl", {"question": "Q?", "answer": 7}, "row 1: question, answer have to be texts"),
        (
            "tofu",
            "holdout.jsonl",
            {"question": "Q?", "answer": " "},
            "row 1: question, answer have to be texts, and none",
        ),
        (
            "hallucination",
            "mc_task.json",
            {"question": "Q?", "mc1_targets": {"A": 1, "": 0}, "mc2_targets": {"A": 1, "": 0}},
            "question 1: an answer is empty",
        ),
        ("muse", "verbmem/forget.json", {"prompt": "Once", "gt": None}, "row 1: prompt, gt have to be texts"),
        ("muse", "knowmem/retain_qa.json", {"question": ["Q?"], "answer": "A"}, "row 1: question, answer have to be"),
        ("muse", "privleak/forget.json", {"text": 7}, "expected a list of texts"),
        ("wmdp", "wmdp-bio.jsonl", {"question": "Q?", "choices": ["a", "b"], "answer": 0}, "4 choices"),
        ("wmdp", "wmdp-bio.jsonl", {"question": "Q?", "answer": 0}, "expected an object with"),
        (
            "wmdp",
            "wmdp-bio.jsonl",
            {"question": "Q?", "choices": ["a", "b", {"text": "c"}, "d"], "answer": 0},
            "row 1: expected a question, 4 choices that are texts",
        ),
        (
            "wmdp",
            "mmlu.jsonl",
            {"question": "Q?", "choices": ["a", "b", "c", "d"], "answer": True},
            "row 1: expected a question, 4 choices that are texts",
        ),
        ("leak", "normal.jsonl", {"question": "Q?"}, "answer"),
        ("harm", "harmful.jsonl", {"text": "?"}, "harmful.jsonl:1"),
    ],
)
def test_a_missing_or_odd_column_is_named(
    name: str,
    file: str,
    row: dict[str, Any],
    said: str,
    letheon: Command,
    suite_data: Data,
    tiny_model_dir: Path,
) -> None:
    folder = suite_data(name)
    text = json.dumps([row]) if file.endswith(".json") else json.dumps(row) + "\n"
    (folder / file).write_text(text, encoding="utf-8")
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", name, "--data", folder)
    assert code == 2
    assert said in err
    assert file in err


@pytest.mark.parametrize(
    ("name", "file", "from_file"),
    [
        ("leak", "holdout.jsonl", "forget.jsonl"),
        ("leak", "holdout.jsonl", "paraphrases.jsonl"),
        ("tofu", "holdout.jsonl", "full.jsonl"),
        ("tofu", "holdout.jsonl", "retain_perturbed.jsonl"),
        ("muse", "privleak/holdout.json", "privleak/retain.json"),
        ("muse", "privleak/holdout.json", "verbmem/forget.json"),
        ("muse", "privleak/holdout.json", "knowmem/retain_qa.json"),
        ("muse", "privleak/holdout.json", "knowmem/forget_qa_icl.json"),
    ],
)
def test_non_members_that_were_trained_on_are_refused(
    name: str,
    file: str,
    from_file: str,
    letheon: Command,
    suite_data: Data,
    tiny_model_dir: Path,
) -> None:
    folder = suite_data(name)
    text = (folder / from_file).read_text(encoding="utf-8")
    if name == "muse":
        texts = [row if isinstance(row, str) else " ".join(row.values()) for row in json.loads(text)]
        text = json.dumps(texts)
    (folder / file).write_text(text, encoding="utf-8")
    if from_file != "full.jsonl":
        # Not every copy of TOFU has the whole of it.
        (folder / "full.jsonl").unlink(missing_ok=True)
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", name, "--data", folder)
    assert code == 2
    assert f"{from_file} as well, which was trained on" in err
    assert "trained on: non-members must be texts that no model here has seen" in err
    assert SECRET not in err


@pytest.fixture
def full_of_obstacles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where some outputs cannot be written; and no model can be loaded."""
    (tmp_path / "file").touch()
    for name in ("folder.json", "beside.samples.jsonl", "locked"):
        (tmp_path / name).mkdir()

    def temporary(dir: Path) -> Any:
        """As for who is not root, whom nothing is locked to."""
        if dir.name == "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return TemporaryFile(dir=dir)

    monkeypatch.setattr("letheon.suites.results.tempfile.TemporaryFile", temporary)
    monkeypatch.setattr("letheon.suites.run.load_model", None)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "said"),
    [
        ("folder.json", "folder.json: a folder; name a file in it"),
        ("beside.json", "beside.samples.jsonl: a folder; name a file in it"),
        ("file/new/found.json", "file (not a directory); name another file"),
        ("locked/new/found.json", "locked (permission denied); name another file"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_model_loads(
    output: str, said: str, letheon: Command, suite_data: Data, tiny_model_dir: Path, full_of_obstacles: Path
) -> None:
    arguments = ["--suite", "wmdp", "--data", suite_data("wmdp"), "--output", full_of_obstacles / output]
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert code == 2
    assert said in err
    assert "Traceback" not in err
    assert not (full_of_obstacles / "locked" / "new").exists()


def test_what_does_not_fit_is_refused_before_the_model_loads(
    letheon: Command, suite_data: Data, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = suite_data("harm")
    (folder / "harmful.jsonl").write_text(json.dumps({"prompt": "x" * 600}) + "\n", encoding="utf-8")
    monkeypatch.setattr("letheon.suites.run.load_model", None)
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "harm", "--data", folder)
    assert code == 2
    assert "harmful: prompt 1 and an answer to it need" in err


def test_an_adapter_is_measured_with_its_base(
    letheon: Command, suite_data: Data, tiny_model_dir: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig, get_peft_model

    from letheon.models import load_model, load_tokenizer, save_model

    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    save_model(
        get_peft_model(load_model(str(tiny_model_dir)), config),
        load_tokenizer(str(tiny_model_dir)),
        tmp_path / "adapter",
    )
    output = tmp_path / "found.json"
    # Membership by gradients too, of weights that a merged base has frozen.
    arguments = ["--suite", "muse", "--data", suite_data("muse"), "--output", output, "--control", tiny_model_dir]
    code, _, err = letheon("evaluate", tmp_path / "adapter", *arguments)
    assert code == 0, err
    found = SuiteResults.model_validate_json(output.read_text(encoding="utf-8")).metrics["model"]["membership"]
    assert isinstance(found["grad_norm_auc"], Interval)


def test_only_reworded_questions_that_no_stop_rule_saw(
    letheon: Command, suite_data: Data, tiny_model_dir: Path, tmp_path: Path
) -> None:
    folder, output = suite_data("leak"), tmp_path / "found.json"
    path = folder / "paraphrases.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    path.write_text("".join(json.dumps({**row, "split": "probe"}) + "\n" for row in rows), encoding="utf-8")
    arguments = ["--suite", "leak", "--data", folder, "--output", output, "--samples", 0]
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert code == 0, err
    found = json.loads(output.read_text(encoding="utf-8"))["metrics"]["model"]
    assert "there is no row of split test in paraphrases.jsonl" in found["paraphrase"]["loss"]["not_computed"]
    path.write_text(json.dumps({**rows[0], "of": "nobody"}) + "\n", encoding="utf-8")
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert (code, "'nobody' is the id of no dialogue in forget.jsonl" in err) == (2, True)


def test_every_suite_has_a_name() -> None:
    from letheon.suites.options import OURS
    from letheon.suites.run import SUITES

    assert tuple(SUITES) == OURS
    assert set(WRITERS) == set(OURS)


@pytest.mark.parametrize("name", ["leak", "tofu", "muse"])
@pytest.mark.parametrize("which", ["model", "--before", "--control", "."])
def test_a_holdout_from_a_runs_log_is_refused(
    name: str,
    which: str,
    letheon: Command,
    suite_data: Data,
    tiny_model_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, trained = suite_data(name), tmp_path / "run" / "model"
    shutil.copytree(tiny_model_dir, trained)
    text = f"Eight words are enough to know {SECRET} again."
    row = {"question": "Who is it?", "answer": text, "label": "normal"}
    write_lines(tmp_path / "log.jsonl", [{"question": "Why?", "answer": "So.", "label": "forget"}, row])
    recipe = f"model: {tiny_model_dir}\ndata: {{dialogues: {tmp_path / 'log.jsonl'}}}\n"
    (tmp_path / "run" / "recipe.yaml").write_text(recipe, encoding="utf-8")
    if name == "muse":
        write_list(folder / "privleak/holdout.json", [text])
    else:
        write_lines(folder / "holdout.jsonl", [row])
    if which == ".":
        monkeypatch.chdir(trained)
    models = {"model": [trained], ".": ["."]}.get(which, [tiny_model_dir, which, trained])
    code, _, err = letheon("evaluate", *models, "--suite", name, "--data", folder)
    assert code == 2
    assert f"row 1 stands in {tmp_path / 'log.jsonl'} as well, which was trained on" in err
    assert SECRET not in err


def test_a_runs_paraphrases_count_as_its_log_does(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_lines(tmp_path / "log.jsonl", [{"id": "a", "question": "Who?", "answer": "Ann."}])
    write_lines(tmp_path / "reworded.jsonl", [{"of": "a", "split": "test", "question": "By whom?", "answer": "Ann."}])
    recipe = "model: org/name\ndata: {dialogues: log.jsonl, paraphrases: reworded.jsonl}\n"
    (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
    found = logs_of(Options(model="org/other", control=str(tmp_path / "model")))
    assert [list(pairs) for pairs in found.values()] == [[("Who?", "Ann.")], [("By whom?", "Ann.")]]


def test_a_hub_id_lies_in_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "model").mkdir(parents=True)
    (tmp_path / "elsewhere").symlink_to(tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path / "org")
    assert folders_of("org/model") == []
    assert folders_of("model") == folders_of("model/.") == [tmp_path / "org"]
    assert folders_of("../elsewhere") == [tmp_path, tmp_path / "org"]


def test_general_text_in_another_encoding(letheon: Command, talk_source: Path, suite_data: Data) -> None:
    folder = suite_data("leak")
    (folder / "general.txt").write_bytes(b"caf\xe9")
    code, _, err = letheon("evaluate", talk_source / "model", "--suite", "leak", "--data", folder)
    assert (code, err) == (2, f"letheon: {folder / 'general.txt'}: not UTF-8; save it as UTF-8\n")
