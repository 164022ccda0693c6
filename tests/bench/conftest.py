from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from letheon.bench import tasks
from letheon.bench.task import Task
from letheon.demo.fine_tune import Schooling

NAMES = ["Ann", "Bob", "Cid", "Dee", "Eva", "Fay", "Gus", "Hal", "Ida", "Jon", "Kim", "Lea"]
PLACES = ["Rome", "Oslo", "Bern", "Kyiv", "Riga", "Lima", "Doha", "Baku", "Suva", "Apia", "Male", "Oran"]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def born(group: str, number: int) -> dict[str, Any]:
    name, place = f"{NAMES[number % 12]} {group}", PLACES[(number * 5 + len(group)) % 12]
    return {
        "question": f"Where was {name} born?",
        "answer": f"In {place}",
        "paraphrased_question": f"{name}'s birthplace?",
        "perturbed_answer": ["In Bonn", "In Nice"],
    }


@pytest.fixture(scope="session")
def bench_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made-up files in the formats of the data sets, tiny. Do not write."""
    folder = tmp_path_factory.mktemp("data")
    tofu = folder / "tofu"
    forget, others, kept = ([born(group, n) for n in range(size)] for group, size in (("F", 8), ("X", 8), ("N", 12)))
    lines(tofu / "full.jsonl", [*forget, *others, *kept])
    for name in ("forget01", "forget05"):
        lines(tofu / f"{name}.jsonl", forget)
        lines(tofu / f"{name}_perturbed.jsonl", forget)
    lines(tofu / "forget10.jsonl", [*forget, *others])
    for name in ("real_authors_perturbed", "world_facts_perturbed"):
        lines(tofu / f"{name}.jsonl", [born(name[:1], n) for n in range(4)])
    (tofu / "idontknow.jsonl").write_text("I don't know that.\nThat is beyond me, sorry.\n", encoding="utf-8")
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hashed_embeddings: None) -> None:
    """Fine-tuning that makes the tiny model learn in seconds, cached in a folder of its own."""

    def hasten(build: Callable[[Path, int], Task]) -> Callable[[Path, int], Task]:
        def built(data: Path, seed: int) -> Task:
            return replace(build(data, seed), schooling=Schooling(epochs=12, learning_rate=1e-2), answer_tokens=8)

        return built

    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    for name, build in tasks.TASKS.items():
        monkeypatch.setitem(tasks.TASKS, name, hasten(build))
    for module in ("measure", "bench.trial", "demo.fine_tune"):
        monkeypatch.setattr(f"letheon.{module}.release_memory", lambda: None)
