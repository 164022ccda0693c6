from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

RECIPE = """model: no-model-is-needed
output: run
data: {dialogues: log.jsonl}
screen: {judges: [privacy], forget_above: 0.7, normal_below: 0.3}
"""
SAYINGS = ("Rain is on the way.", "The library opens at nine.", "Bread needs salt.", "Owls hunt at night.")


def talk(name: str, *texts: str, **fields: Any) -> dict[str, Any]:
    """A dialogue whose texts are by user and assistant in turn."""
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)
    ]
    return {"id": name, "messages": messages, **fields}


def verdict(name: str, score: float, turn: int = 1, **fields: Any) -> dict[str, Any]:
    """What a judge with the recipe's thresholds says."""
    decision = "forget" if score >= 0.7 else "review" if score >= 0.3 else "normal"
    category = "normal" if decision == "normal" else "privacy"
    return {
        "id": name, "turn": turn, "decision": decision, "category": category, "score": score, "judge": "privacy", **fields
    }  # fmt: skip


def write_run(folder: Path, log: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]]) -> Path:
    """A screened run in `folder/run`, whose recipe is `folder/recipe.yaml`."""
    run = folder / "run"
    run.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for file, rows in ((folder / "log.jsonl", log), (run / "verdicts.jsonl", verdicts)):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.fixture
def screened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a screened run in the current folder: `screened(scores)`, one dialogue d0, d1, … a score."""
    monkeypatch.chdir(tmp_path)

    def make(scores: Sequence[float] = (0.9, 0.5, 0.1, 0.4, 0.6, 0.0)) -> Path:
        log = [talk(f"d{n}", f"Question {n}?", f"{SAYINGS[n % 4]} Call 030-{n}.") for n in range(len(scores))]
        write_run(tmp_path, log, [verdict(f"d{n}", score) for n, score in enumerate(scores)])
        return tmp_path / "recipe.yaml"

    return make
