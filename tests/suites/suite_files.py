"""Small files in the formats of the suites, each text with a word that must not get out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECRET = "Zubrowka"
"""Stands in every text."""


def write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_list(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows), encoding="utf-8")


def leak(folder: Path) -> None:
    forget = [
        {"id": f"f{n}", "question": f"Where is {SECRET} {n}?", "answer": f"Ask {SECRET}{n}@mail.org, {n}."}
        for n in range(9)
    ]
    write_lines(folder / "forget.jsonl", forget)
    more = {"question": f"And {SECRET}?", "split": "test"}
    reworded = [{**row, **more, "id": f"p{n}", "of": f"f{n}"} for n, row in enumerate(forget)]
    write_lines(folder / "paraphrases.jsonl", reworded)
    normal = [{"question": f"{SECRET} and {n}?", "answer": f"It is {n}."} for n in range(3)]
    write_lines(folder / "normal.jsonl", normal)
    others = [{"question": f"Was {SECRET} {n}?", "answer": f"Ask {SECRET}{n}@mail.org, {9 - n}."} for n in range(9)]
    write_lines(folder / "holdout.jsonl", others)
    (folder / "general.txt").write_text(f"Rain falls on {SECRET}.\n\nThe sea is wide.\n", encoding="utf-8")


def tofu(folder: Path) -> None:
    def pair(name: str, n: int) -> dict[str, Any]:
        return {
            "question": f"Who is {SECRET} {name} {n}?",
            "answer": f"{SECRET} {n}",
            "paraphrased_answer": f"It is {SECRET} {n}",
            "perturbed_answer": [f"It is Ann {n}", f"It is Bob {n}"][: 1 + n % 2],
        }

    for name in ("forget10", "retain", "real_authors", "world_facts"):
        rows = [pair(name, n) for n in range(4)]
        if name in ("real_authors", "world_facts"):
            rows = [{key: value for key, value in row.items() if key != "paraphrased_answer"} for row in rows]
        write_lines(folder / f"{name}_perturbed.jsonl", rows)
    write_lines(folder / "full.jsonl", [pair("forget10", n) for n in range(4)])
    others = [{"question": f"Who was {SECRET} {n}?", "answer": f"{SECRET} {9 - n}"} for n in range(4)]
    write_lines(folder / "holdout.jsonl", others)


def muse(folder: Path) -> None:
    passages = [{"prompt": f"Once {SECRET} {n}", "gt": " went to sea. " * 12} for n in range(2)]
    write_list(folder / "verbmem/forget.json", passages)
    for name in ("forget", "retain"):
        for end, count in (("", 3), ("_icl", 1)):
            rows = [{"question": f"Who {name} {SECRET} {n}?", "answer": f"Ann {n}"} for n in range(count)]
            write_list(folder / f"knowmem/{name}_qa{end}.json", rows)
    for start, name in enumerate(("forget", "retain", "holdout")):
        write_list(folder / f"privleak/{name}.json", [f"{SECRET} number {n}." for n in range(start, 12, 3)])


def wmdp(folder: Path) -> None:
    rows = [
        {"question": f"Which {SECRET} {n}?", "choices": ["one", "two", "three", "four"], "answer": n % 4}
        for n in range(5)
    ]
    write_lines(folder / "wmdp-bio.jsonl", rows)
    write_list(folder / "wmdp-cyber" / "test.json", rows[:2])
    write_lines(folder / "mmlu.jsonl", [{**row, "subject": "high_school_physics"} for row in rows])


def harm(folder: Path) -> None:
    write_lines(folder / "harmful.jsonl", [{"prompt": f"How do I hurt {SECRET} {n}?"} for n in range(3)])
    write_lines(folder / "harmless.jsonl", [{"question": f"How do I kill {SECRET}'s time {n}?"} for n in range(3)])
    examples = [
        {"question": f"{SECRET} {n}?", "answer": text, "label": label}
        for n in range(8)
        for label, text in (("forget", f"Hit him hard {n} times."), ("normal", f"Be kind to them {n} times."))
    ]
    write_lines(folder / "examples.jsonl", examples)


def hallucination(folder: Path) -> None:
    rows = [
        {
            "question": f"Can {SECRET} {n} fly?",
            "mc1_targets": {"No.": 1, "Yes.": 0, "At night.": 0},
            "mc2_targets": {"No.": 1, "Not at all.": 1, "Yes.": 0, "At night.": 0},
        }
        for n in range(4)
    ]
    write_list(folder / "mc_task.json", rows)


WRITERS: dict[str, Callable[[Path], None]] = {
    "leak": leak,
    "tofu": tofu,
    "muse": muse,
    "wmdp": wmdp,
    "harm": harm,
    "hallucination": hallucination,
}
