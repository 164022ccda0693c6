from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from letheon.models import load_model, load_tokenizer

FOUND = {
    "results": {
        "wmdp_bio": {"alias": "wmdp_bio", "acc,none": 0.25, "acc_stderr,none": 0.1},
        "arc_easy": {"acc,none": 0.5, "acc_stderr,none": "N/A", "acc_norm,none": 0.75, "em,strict-match": 1.0},
    },
    "n-samples": {"wmdp_bio": {"original": 9, "effective": 4}, "arc_easy": {"original": 9, "effective": 8}},
}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Stands for lm-eval: what it was asked, and what it does."""
    asked: dict[str, Any] = {"fails": None}

    def simple_evaluate(**options: Any) -> Any:
        if asked["fails"]:
            raise asked["fails"]
        asked.update(options)
        return FOUND

    names = ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks", "lm_eval.api")
    package, models, own, tasks, api, task = map(ModuleType, (*names, "lm_eval.api.task"))
    package.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    own.HFLM = lambda **options: options  # type: ignore[attr-defined]
    tasks.TaskManager = lambda: type("Tasks", (), {"all_tasks": ["arc_easy", "wmdp_bio"]})  # type: ignore[attr-defined]
    fields = ["task", "dataset_path", "dataset_kwargs", "test_split", "output_type", "metric_list"]
    task.TaskConfig = make_dataclass(  # type: ignore[attr-defined]
        "TaskConfig", [*fields, "doc_to_text", "doc_to_choice", "doc_to_target"]
    )
    for module in (package, models, own, tasks, api, task):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("letheon.suites.lm_eval.require_extra", lambda what, extra: None)
    return asked


def test_tasks_by_name(harness: dict[str, Any], letheon: Command, tiny_model_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    arguments = ["--suite", "lm-eval", "--tasks", "wmdp_bio, arc_easy", "--limit", 8, "-o", output]
    code, out, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert code == 0, err
    assert harness["tasks"] == ["wmdp_bio", "arc_easy"]
    assert harness["limit"] == 8
    assert type(harness["model"]["pretrained"]).__name__ == "LlamaForCausalLM"
    found = json.loads(output.read_text(encoding="utf-8"))["metrics"]["model"]
    assert found["wmdp_bio"] == {"acc": {"mean": 0.25, "stderr": 0.1, "n": 4}}
    assert found["arc_easy"]["acc"] == {"mean": 0.5, "stderr": None, "n": 8}
    assert set(found["arc_easy"]) == {"acc", "acc_norm", "em (strict-match)"}
    assert "wmdp_bio: acc" in out
    assert "at most 8 questions" in err


def test_what_it_cannot_do(harness: dict[str, Any], letheon: Command, tiny_model_dir: Path) -> None:
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval")
    assert (code, "needs --tasks NAMES" in err) == (2, True)
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", "arc_esy,wmdp_bio")
    assert (code, "lm-eval has no such task; did you mean arc_easy?" in err) == (2, True)
    arguments = ["--suite", "lm-eval", "--tasks", "arc_easy", "--output", tiny_model_dir]
    code, _, err = letheon("evaluate", tiny_model_dir, *arguments)
    assert (code, "a folder; name a file in it" in err, "model" in harness) == (2, True, False)
    harness["fails"] = ConnectionError("Couldn't reach the hub")
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", "arc_easy")
    assert code == 2
    assert "the data set of a task cannot be had here (ConnectionError: Couldn't reach" in err
    harness["fails"] = ValueError("no such output_type")
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", "arc_easy")
    assert (code, "a task cannot be run here (ValueError: no such output_type)" in err) == (2, True)


def test_without_it(letheon: Command, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.errors.missing_modules", lambda extra: ["lm_eval"] if extra == "lm-eval" else [])
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", "arc_easy")
    assert code == 3
    assert "pip install 'letheon[lm-eval]'" in err


CAPITALS = {"France": "Paris", "Italy": "Rome", "Germany": "Berlin"}


@pytest.fixture
def own_task(tmp_path: Path) -> Path:
    """A task in lm-eval's format whose data set is a file."""
    rows = [
        {"question": f"What is the capital of {land}?", "choices": [*CAPITALS.values()], "label": number}
        for number, land in enumerate(CAPITALS)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = tmp_path / "capitals.yaml"
    file.write_text(
        "task: capitals\n"
        "dataset_path: json\n"
        f"dataset_kwargs: {{data_files: {{test: {tmp_path / 'rows.jsonl'}}}}}\n"
        "test_split: test\n"
        "output_type: multiple_choice\n"
        'doc_to_text: "Question: {{question}}\\nAnswer:"\n'
        'doc_to_choice: "{{choices}}"\n'
        'doc_to_target: "{{label}}"\n'
        "metric_list: [{metric: acc}]\n",
        encoding="utf-8",
    )
    return file


def test_a_task_of_ones_own_is_named_by_its_file(
    harness: dict[str, Any], letheon: Command, tiny_model_dir: Path, own_task: Path, tmp_path: Path
) -> None:
    asked = ["--suite", "lm-eval", "-o", tmp_path / "found.json", "--tasks"]
    code, _, err = letheon("evaluate", tiny_model_dir, *asked, f"{own_task},arc_easy")
    assert code == 0, err
    own, theirs = harness["tasks"]
    assert (own["task"], theirs) == ("capitals", "arc_easy")
    (tmp_path / "none.yaml").write_text("- 1\n", encoding="utf-8")
    (tmp_path / "code.yaml").write_text("task: !function utils.name\n", encoding="utf-8")
    (tmp_path / "other.yaml").write_text("task: a\ninclude: b.yaml\n", encoding="utf-8")
    (tmp_path / "group.yaml").write_text("task: a\ngroup: b\ndoc_to_txt: c\n", encoding="utf-8")
    files = ("gone.yaml", "none.yaml", "code.yaml", "other.yaml", "group.yaml")
    wrong = [*(tmp_path / name for name in files), "arc_esy"]
    code, _, err = letheon("evaluate", tiny_model_dir, *asked, ",".join(map(str, wrong)))
    assert code == 2
    for reason in (
        "no such file",
        "no field 'task'",
        "line 1: could not determine a constructor",
        "other.yaml: include: other files are not read; put their fields into this one",
        "group.yaml: doc_to_txt, group: a task of lm-eval's has no such field",
        "did you mean arc_easy",
    ):
        assert reason in err


@pytest.mark.slow
def test_the_harness_itself(letheon: Command, tiny_model_dir: Path, own_task: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", own_task, "-o", output)
    assert code == 0, err
    found = json.loads(output.read_text(encoding="utf-8"))["metrics"]["model"]["capitals"]["acc"]
    model, tokenizer = load_model(str(tiny_model_dir)), load_tokenizer(str(tiny_model_dir))

    def score(prompt: str, answer: str) -> float:
        before, ids = (tokenizer(text, return_tensors="pt").input_ids for text in (prompt, prompt + answer))
        with torch.no_grad():
            said = model(ids).logits[0, :-1].log_softmax(dim=1).gather(1, ids[0, 1:, None])
        return float(said[before.size(1) - 1 :].sum())

    right = 0
    for number, land in enumerate(CAPITALS):
        scores = [
            score(f"Question: What is the capital of {land}?\nAnswer:", f" {city}") for city in CAPITALS.values()
        ]
        right += scores.index(max(scores)) == number
    assert found["mean"] == pytest.approx(right / 3)
    assert found["n"] == 3
    # One of its own tasks, where there is no network.
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", "arc_easy")
    assert (code, "the data set of a task cannot be had here" in err) == (2, True)
