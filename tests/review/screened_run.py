"""A screened run without a model, made in the test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from letheon.records import PersonDecision, Verdict

RECIPE = """model: no-model-is-needed
output: run
data: {dialogues: log.jsonl}
screen: {judges: [privacy], forget_above: 0.7, normal_below: 0.3}
"""
WHEN = datetime(2026, 5, 4, 3, 2, 1, tzinfo=timezone.utc)
SAYINGS = ("Rain is on the way.", "The library opens at nine.", "Bread needs salt.", "Owls hunt at night.")


def talk(name: str, *texts: str, **fields: Any) -> dict[str, Any]:
    """A dialogue whose texts are by user and assistant in turn."""
    messages = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(texts)]
    return {"id": name, "messages": messages, **fields}


def verdict(name: str, score: float, turn: int = 1, **fields: Any) -> dict[str, Any]:
    """What a judge with the recipe's thresholds says."""
    decision = "forget" if score >= 0.7 else "review" if score >= 0.3 else "normal"
    category = "normal" if decision == "normal" else "privacy"
    said = {"decision": decision, "category": category, "score": score, "judge": "privacy"}
    return {"id": name, "turn": turn, **said, **fields}


def write_run(folder: Path, log: Sequence[dict[str, Any]], verdicts: Sequence[dict[str, Any]]) -> Path:
    """A screened run in `folder/run`, whose recipe is `folder/recipe.yaml`."""
    run = folder / "run"
    run.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    for file, rows in ((folder / "log.jsonl", log), (run / "verdicts.jsonl", verdicts)):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "recipe.yaml"


def made(name: str, decision: str, category: str | None = None, **fields: object) -> PersonDecision:
    """A decision on turn 1."""
    raw = {"id": name, "turn": 1, "decision": decision, "category": category, "when": WHEN, **fields}
    return PersonDecision.model_validate(raw)


def judged(name: str, decision: str = "review", category: str = "privacy", score: float = 0.5) -> Verdict:
    """A verdict on turn 1."""
    raw = {"id": name, "turn": 1, "decision": decision, "category": category, "score": score, "judge": "privacy"}
    return Verdict.model_validate({**raw, "span": None if decision == "normal" else (0, 3)})
