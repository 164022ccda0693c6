from __future__ import annotations

import errno
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from letheon.cli import is_full_disk
from letheon.report.page import write_report
from letheon.stress.make import ATTACKS
from talk import talk_rows

Letheon = Callable[..., tuple[int, str, str]]


def write_log(folder: Path, rows: list[Any]) -> None:
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def refused(letheon: Letheon, *arguments: str, faults: int = 1) -> list[str]:
    """Run a command that must be refused: one line a fault, exit code 2. Returns the lines."""
    code, out, err = letheon(*arguments)
    lines = err.splitlines()
    assert (code, out, len(lines)) == (2, "", faults), err
    assert all(line.startswith("letheon: ") for line in lines)
    return lines


# -- a real process --------------------------------------------------------------------------------------------------


def test_help_names_every_attack(letheon: Any) -> None:
    _, out, _ = letheon("stress", "--help")
    assert ", ".join(ATTACKS) in " ".join(re.sub(r"[│\s]+", " ", out).split())


def test_help_imports_no_torch() -> None:
    code = (
        "import sys\nsys.argv = ['letheon', '--help']\nfrom letheon.cli import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for command in (
        "demo",
        "run",
        "validate",
        "init",
        "screen",
        "expect",
        "unlearn",
        "evaluate",
        "stress",
        "report",
        "export",
        "doctor",
    ):
        assert f"  {command} " in done.stdout


@pytest.mark.slow
def test_libraries_do_not_litter_the_output(talk: Path) -> None:
    command = [sys.executable, "-m", "letheon.cli", "run", "recipe.yaml", "--set", "train.max_steps=4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    told = (
        *("screening", "screened 12", "to forget:", "finding expected answers", "unlearning", "stopped at"),
        *("evaluating before", "evaluating after", "forgotten: ", "report: "),
    )
    assert [line for line in done.stderr.splitlines() if not line.startswith(told)] == []


# -- bad input: one line a fault, exit code 2, nothing written -------------------------------------------------------

CHAT = {"id": "x", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["log.jsonl: no dialogues in it: the file is empty"]),
        (json.dumps(CHAT) + "\n{oops\n", ["log.jsonl:2: bad JSON"]),
        ('{"messages": [{"role": "user", "content": "Hi"}]}', ["log.jsonl:1: no assistant turn"]),
        ('{"messages": [{"role": "assistant", "content": " "}]}', ["content: the assistant's answer is empty"]),
        ('{"messages": []}\n{oops\n', ["log.jsonl:1: no assistant turn", "log.jsonl:2: bad JSON"]),
    ],
)
def test_faulty_dialogues(talk: Path, letheon: Letheon, text: str, faults: list[str]) -> None:
    (talk / "log.jsonl").write_text(text)
    # A faulty file has no labels either; that is no news.
    for line, fault in zip(refused(letheon, "run", "recipe.yaml", faults=len(faults)), faults, strict=True):
        assert fault in line
    assert not (talk / "run").exists()
    code, out, err = letheon("validate", "log.jsonl")
    assert (code, out) == (2, "")
    assert all(fault in err for fault in faults)
    assert err.splitlines()[-1].startswith(f"letheon: {len(faults)} fault")


def test_too_long_dialogues_are_found_before_anything_runs(talk: Path, letheon: Letheon) -> None:
    rows = talk_rows()
    rows[0]["messages"][1]["content"] = "x" * 300
    rows[1]["expected"] = ["y" * 300]
    rows[7]["messages"][0]["content"] = "z" * 300
    write_log(talk, rows)
    lines = refused(letheon, "run", "recipe.yaml", faults=3)
    assert "log.jsonl: dialogue 'bad-0': the answer has 301 tokens" in lines[0]
    assert "at most 256 fit" in lines[0]
    assert "dialogue 'bad-1', expected[0]: the answer has" in lines[1]
    assert "dialogue 'ok-1'" in lines[2]
    assert "shorten the prompt" in lines[2]
    assert not (talk / "run").exists()
    # `train.max_length` counts, too.
    assert "at most 64 fit" in refused(letheon, "screen", "recipe.yaml", "--set", "train.max_length=64", faults=3)[0]


def test_a_report_is_of_a_run(talk: Path, letheon: Letheon) -> None:
    (talk / "recipe.yaml").unlink()
    (line,) = refused(letheon, "report", ".")
    assert "no recipe.yaml in this folder, so it is no run folder" in line
    assert not (talk / "report.html").exists()


def test_nothing_to_forget_and_nothing_to_keep(talk: Path, letheon: Letheon) -> None:
    rows = talk_rows()
    write_log(talk, rows[6:])
    (line,) = refused(letheon, "run", "recipe.yaml")
    assert "no dialogue to forget" in line
    write_log(talk, rows[:6])
    (line,) = refused(letheon, "validate", "recipe.yaml")
    assert "no normal dialogue" in line
    write_log(talk, [CHAT])
    assert len(refused(letheon, "run", "recipe.yaml", faults=2)) == 2
    assert not (talk / "run").exists()


def test_faults_of_a_recipe_are_named_together(talk: Path, letheon: Letheon) -> None:
    lines = refused(
        letheon,
        *("run", "recipe.yaml", "--set", "model=./nowhere", "--set", "data.general=none.txt"),
        *("--set", "train.learning_rte=1", "--set", "train.max_steps=many", "--set", "data.subject=person-7"),
        *("--set", "objective.negative.roh=1", "--set", "stop.every=0"),
        faults=7,
    )
    for fault in (
        "unknown field 'objective.negative.roh'; did you mean 'rho'?",
        "stop.every: Input should be greater than or equal to 1 (got 0)",
        "./nowhere: no such model folder",
        "none.txt: no such text file",
        "unknown setting 'train.learning_rte'; did you mean 'learning_rate'?",
        "'train.max_steps' is 'many', expected a whole number",
        "no dialogue of the log has the subject 'person-7'; did you mean 'person-",
    ):
        assert any(fault in line for line in lines), fault
    assert not (talk / "run").exists()


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("objective.negative.roh=0.1", "unknown field 'objective.negative.roh'; did you mean 'rho'?"),
        ("objectiv.negative.rho=0.1", "unknown field 'objectiv'; did you mean 'objective'?"),
        ("objective.negative.rho=2", "objective.negative.rho: Input should be less than 1 (got 2)"),
        ("seed", "--set 'seed': expected key.path=value"),
        ("model.x=1", "--set 'model.x=1': 'model' is a value, not a section"),
        ("seed=[", "the value is not valid YAML"),
        ("data.subject=2024-13-45", "the value is not valid YAML; quote it"),
        ("output=log.jsonl", "log.jsonl: cannot be the run folder (output): "),
        ("output=mine", "mine: holds a recipe.yaml that no run wrote"),
        ("expected.sources=[model]", "judge 'labels' cannot judge new answers"),
        ("screen.examples=gone.jsonl", "gone.jsonl: no such file"),
        ("screen.knowledge=gone.txt", "gone.txt: no such file (screen.knowledge)"),
        ("train.output_dir=x", "set 'output' instead"),
        ("train.fp16=maybe", "'train.fp16' is 'maybe', expected true or false"),
        ("train.max_steps=2.5", "'train.max_steps' is 2.5, expected a whole number"),
        ("train.report_to=[wandb]", "train.report_to: not installed here: wandb"),
        ("train.lr_scheduler_type=foo", "train: foo is not a valid SchedulerType"),
    ],
)
def test_faulty_settings(talk: Path, letheon: Letheon, override: str, fault: str) -> None:
    recipe = (talk / "recipe.yaml").read_bytes()
    (talk / "mine").mkdir()
    (talk / "mine/recipe.yaml").write_bytes(recipe)
    (line,) = refused(letheon, "run", "recipe.yaml", "--set", override)
    assert fault in line
    assert not (talk / "run").exists()
    assert (talk / "recipe.yaml").read_bytes() == (talk / "mine/recipe.yaml").read_bytes() == recipe


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a: [", "recipe.yaml: not valid YAML"),
        ("[" * 5000, "recipe.yaml: not valid YAML: nested too deep"),
        ("model: m\ndata: {dialogues: 2024-13-45}", "no such timestamp (month must be in 1..12); quote it"),
        ("- 1", "recipe.yaml: expected 'key: value' lines, found list"),
        ("model: m", "recipe.yaml: 'data' is missing"),
        ("schema: letheon/recipe/9\nmodel: model\ndata: {dialogues: log.jsonl}", "letheon/recipe/9"),
    ],
)
def test_faulty_recipes(talk: Path, letheon: Letheon, text: str, fault: str) -> None:
    (talk / "recipe.yaml").write_text(text)
    (line,) = refused(letheon, "run", "recipe.yaml")
    assert fault in line
    assert not (talk / "run").exists()


def test_tokenizer_without_chat_template(talk: Path, letheon: Letheon, byte_tokenizer: Callable[..., Any]) -> None:
    shutil.copytree(talk / "model", talk / "base", symlinks=False)
    (talk / "base/chat_template.jinja").unlink()
    byte_tokenizer(None, eos_token="<|im_end|>").save_pretrained(talk / "base")
    (line,) = refused(letheon, "run", "recipe.yaml", "--set", "model=base")
    assert "base: no chat template" in line
    assert "use the model's -Instruct version, or put a chat_template.jinja file" in line
    assert not (talk / "run").exists()


@pytest.mark.parametrize("command", ["run", "evaluate", "unlearn", "screen", "report"])
@pytest.mark.parametrize("name", ["results.json", "manifest.json"])
def test_run_folder_of_another_version(
    finished: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch, command: str, name: str
) -> None:
    monkeypatch.setattr("letheon.report.write_report", write_report)
    file = finished / "run" / name
    file.write_text(file.read_text().replace("/1", "/99"))
    before = {path: path.read_bytes() for path in (finished / "run").rglob("*") if path.is_file()}
    (line,) = refused(letheon, command, "run")
    assert name in line
    assert "/99" in line
    assert "start a new run folder" in line
    assert before == {path: path.read_bytes() for path in (finished / "run").rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", ["expect", "evaluate", "unlearn"])
@pytest.mark.parametrize("name", ["verdicts.jsonl", "recipe.yaml"])
def test_run_folder_with_a_file_that_is_not_utf8(finished: Path, letheon: Letheon, command: str, name: str) -> None:
    file = finished / "run" / name
    file.write_bytes(b"\xff\n" + file.read_bytes())
    (line,) = refused(letheon, command, "run")
    assert name in line
    assert "not UTF-8" in line


def test_faulty_verdicts(finished: Path, letheon: Letheon) -> None:
    file = finished / "run/verdicts.jsonl"
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0].replace('"forget"', '"forgett"'), *lines[1:], lines[1]]))
    found = refused(letheon, "unlearn", "run", faults=2)
    assert "verdicts.jsonl:1: decision: " in found[0]
    assert "verdicts.jsonl:13: turn 1 of 'bad-1' has a verdict on line 2 already" in found[1]
    file.write_text("\n".join(lines[1:]))
    (line,) = refused(letheon, "unlearn", "run")
    assert "lacks a verdict on turns of the log (1 of them, the first is turn 1 of 'bad-0')" in line
    assert (finished / "run/model").is_dir()


def test_subject_that_does_not_exist(finished: Path, letheon: Letheon) -> None:
    (line,) = refused(letheon, "unlearn", "run", "--subject", "O'Brien \"\\")
    assert "no dialogue of the log has the subject" in line
    assert "data.subject: null" in (finished / "run/recipe.yaml").read_text().replace("subject:", "data.subject:")


def test_characters_beyond_the_basic_plane(finished: Path, letheon: Letheon) -> None:
    (line,) = refused(letheon, "unlearn", "run", "--subject", "𠮷田 太郎", "--alias", "😀")
    assert "no dialogue of the log has the subject '𠮷田 太郎'" in line
    (line,) = refused(letheon, "screen", "run", "--fit", "😀.jsonl")
    assert line == "letheon: 😀.jsonl: no such file"


def test_model_in_the_run_folder_is_not_overwritten(finished: Path, letheon: Letheon) -> None:
    (line,) = refused(letheon, "run", "recipe.yaml", "--set", "model=run/model")
    assert "would overwrite the model it starts from" in line


def test_permission_denied(talk: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any) -> None:
        raise PermissionError(13, "Permission denied", "run/recipe.yaml")

    monkeypatch.setattr("letheon.run.Run.save_recipe", refuse)
    why = "permission denied; change its permissions, or choose another path"
    assert refused(letheon, "run", "recipe.yaml") == [f"letheon: run/recipe.yaml: {why}"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("init", "log.jsonl", "model", "-o", "run", "--force"), "run: is a directory; name a file, not a folder"),
        (
            ("init", "log.jsonl", "model", "-o", "log.jsonl/x.yaml"),
            "log.jsonl: file exists; it is in the way; choose",
        ),
        (("export", "run", "log.jsonl/x"), "log.jsonl/x: not a directory; a part of this path is a file; choose"),
        (("export", "run", "x" * 300), "file name too long; choose a shorter one"),
    ],
)
def test_paths_that_cannot_be_written(
    finished: Path, letheon: Letheon, arguments: tuple[str, ...], line: str
) -> None:
    assert line in refused(letheon, *arguments)[0]


def test_an_error_without_a_path_keeps_its_traceback(
    talk: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        raise OSError(errno.EIO, "no path")

    monkeypatch.setattr("letheon.run.Run.save_recipe", fail)
    with pytest.raises(OSError, match="no path"):
        letheon("run", "recipe.yaml")


def test_our_own_faults_keep_their_traceback(talk: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("letheon.run.Run.save_recipe", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        letheon("run", "recipe.yaml")
    assert not is_full_disk(RuntimeError("a bug"))


# -- missing extras --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("module", "extra"), [("jinja2", "report"), ("sentence_transformers", "screen")])
def test_missing_extra_is_said_before_the_work(
    talk: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch, module: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    code, _, err = letheon("run", "recipe.yaml")
    assert (code, len(err.splitlines())) == (3, 1)
    assert err.rstrip().endswith(f"needs the extra '{extra}': pip install 'letheon[{extra}]'")
    assert not (talk / "run").exists()


# -- validate --------------------------------------------------------------------------------------------------------


def test_validate(talk: Path, letheon: Letheon) -> None:
    code, _, err = letheon("validate", "log.jsonl")
    assert code == 0
    assert err == (
        "log.jsonl: fine; 12 dialogues, 12 assistant turns; labelled 6 forget, 6 normal, 0 without a label\n"
    )
    code, _, err = letheon("validate", "recipe.yaml")
    assert (code, err) == (0, "recipe.yaml: fine; 12 dialogues\n")
    assert not (talk / "run").exists()


def test_validate_quotes_no_text(talk: Path, letheon: Letheon) -> None:
    rows = talk_rows()
    rows[0]["messages"][1] = {"role": "asistant", "content": "zebra"}
    rows[1]["messages"][1]["content"] = {"text": "zebra"}
    rows[2]["label"] = "zebra"
    write_log(talk, rows)
    code, out, err = letheon("validate", "log.jsonl")
    assert code == 2
    assert "zebra" not in out + err
    assert all(f"log.jsonl:{number}: " in err for number in (1, 2, 3))


def test_usage_errors(letheon: Letheon) -> None:
    assert letheon("run")[0] == 2
    assert letheon("forget")[0] == 2
    code, out, _ = letheon("doctor")
    assert code == 0
    assert "letheon doctor" in out
