from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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

    package, models, own, tasks = (
        ModuleType(name) for name in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface", "lm_eval.tasks")
    )
    package.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    own.HFLM = lambda **options: options  # type: ignore[attr-defined]
    tasks.TaskManager = lambda: type("Tasks", (), {"all_tasks": ["arc_easy", "wmdp_bio"]})  # type: ignore[attr-defined]
    for module in (package, models, own, tasks):
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
    harness["fails"] = ConnectionError("Couldn't reach the hub")
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", "arc_easy")
    assert code == 2
    assert "the data set of a task lies on the hub and cannot be had here (ConnectionError: Couldn't reach" in err


def test_without_it(letheon: Command, tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.errors.missing_modules", lambda extra: ["lm_eval"] if extra == "lm-eval" else [])
    code, _, err = letheon("evaluate", tiny_model_dir, "--suite", "lm-eval", "--tasks", "arc_easy")
    assert code == 3
    assert "pip install 'letheon[lm-eval]'" in err
