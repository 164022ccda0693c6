from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from letheon.bench import outdated, tasks
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
    replies = [
        {"prompt": f"How to hurt {name} {n}?", "response": answer, "is_safe": safe}
        for n, name in enumerate(NAMES * 4)
        for safe, answer in ((False, f"Hit {name} hard with a stick."), (True, f"Please be kind to {name}, always."))
    ]
    lines(folder / "beavertails" / "30k_test.jsonl", replies)
    orders = [
        {"instruction": f"Greet {name}.", "input": "", "output": f"A very good day to you, {name}!"} for name in NAMES
    ]
    (folder / "alpaca").mkdir()
    (folder / "alpaca" / "alpaca_en_demo.json").write_text(json.dumps(orders), encoding="utf-8")
    choice = [
        {
            "question": f"Can {name} fly?",
            "mc1_targets": {"No.": 1, "Yes.": 0, "At night.": 0},
            "mc2_targets": {"No.": 1, "Not at all.": 1, "Yes.": 0, "At night.": 0},
        }
        for name in NAMES
    ]
    (folder / "truthfulqa").mkdir()
    (folder / "truthfulqa" / "mc_task.json").write_text(json.dumps(choice), encoding="utf-8")
    lines(
        folder / "halueval" / "qa_one-turn_data.json",
        [
            {"question": f" Home of {name}?", "right_answer": place, "hallucinated_answer": f"Not {place}"}
            for name, place in zip(NAMES, PLACES, strict=True)
        ],
    )
    return folder


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hashed_embeddings: None) -> None:
    """Fine-tuning that makes the tiny model learn in seconds, cached in a folder of its own."""

    def hasten(build: Callable[[Path, int], Task]) -> Callable[[Path, int], Task]:
        def built(data: Path, seed: int) -> Task:
            return replace(build(data, seed), schooling=Schooling(epochs=8, learning_rate=1e-2), answer_tokens=8)

        return built

    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    for name, build in tasks.TASKS.items():
        monkeypatch.setitem(tasks.TASKS, name, hasten(build))
    some = outdated.read_facts()[:8]
    monkeypatch.setattr("letheon.bench.outdated.read_facts", lambda: some)
    # Words instead of MiniLM.
    monkeypatch.setattr("letheon.screen.embedding.has_embedder", lambda: False)
    for module in ("measure", "bench.trial", "demo.fine_tune"):
        monkeypatch.setattr(f"letheon.{module}.release_memory", lambda: None)
