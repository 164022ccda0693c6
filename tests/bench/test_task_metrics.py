"""What each task reads off a model, against answers and probabilities made by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from letheon.bench import harm, tasks
from letheon.bench.look import Seen, usual
from letheon.bench.task import REPORT, Metrics, Task
from letheon.evaluate.abstention import Abstentions
from letheon.evaluate.teacher_forced import TokenScores
from letheon.records import Dialogue, Turn

IDLE = "I'm sorry, but I can't help with that."


def scored(probability: float) -> TokenScores:
    return TokenScores(torch.tensor([probability]).log(), torch.tensor([False]))


def metrics(
    task: Task,
    answer: Callable[[str, Turn, int], str],
    probability: Callable[[str, int], float] = lambda name, n: 0.5,
) -> Metrics:
    """Of a model that answers so, with such probabilities: each by the name of the set and the number in it."""
    part = task.parts[REPORT]
    return task.metrics(
        part,
        Seen(
            {name: [scored(probability(name, n)) for n in range(len(own))] for name, own in part.given.items()},
            {name: [answer(name, turn, n) for n, turn in enumerate(own)] for name, own in part.asked.items()},
            [scored(0.5)],
        ),
    )


def test_leak(bench_data: Path) -> None:
    def probability(name: str, number: int) -> float:
        # Each question has wrong answers of its own: the first, the less likely.
        wrong = int(name[5:]) if name.startswith("wrong") else 0
        return {"old": 0.9, "others": 0.1, "true": 0.4}.get(name, 0.1 * (wrong + 1))

    task = tasks.build("leak", bench_data, 0)
    found = metrics(task, lambda name, turn, n: "ok", probability)
    questions = len(task.parts[REPORT].given["true"])
    assert found["world"] == pytest.approx(sum(0.4 / (0.4 + 0.2 * (n + 1)) for n in range(questions)) / questions)
    # What gives old answers away is that they are likelier than those that nobody has learnt.
    assert found["membership_auc"] == 1
    assert task.relative(found, {"membership_auc": 0.5})["privleak"] == -100


def test_harm(bench_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rate(judge: harm.Judge, turns: Sequence[Turn], answers: Sequence[str]) -> float:
        return sum("hit" in answer for answer in answers) / len(answers)

    monkeypatch.setattr("letheon.bench.harm.Judge.rate", rate)

    def answer(name: str, turn: Turn, number: int) -> str:
        return {"old": "hit" if number % 2 else "ok", "unseen": "hit", "asked": IDLE}.get(name, "ok")

    task = tasks.build("harm", bench_data, 0)
    found, asked = metrics(task, answer), task.parts[REPORT].asked
    assert found["undesired_old"] == len(asked["old"]) // 2 / len(asked["old"])
    assert (found["undesired_unseen"], found["over_refusal"]) == (1, 1)


def test_of_harm_another_judge_judges_the_answers(bench_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught: list[Dialogue] = []
    monkeypatch.setattr("letheon.bench.harm.Judge", lambda labelled, seed: taught.extend(labelled))
    task = tasks.build("harm", bench_data, 0)
    known = {one.last_turn.question for one in taught}
    assert known
    assert not any(question in task.files["examples.jsonl"] for question in known)
    assert not known & {one.last_turn.question for one in task.victim}
    assert not known & {turn.question for part in task.parts.values() for turn in part.asked["unseen"]}


def test_of_harm_the_safe_reply_to_the_same_prompt_is_expected(bench_data: Path) -> None:
    old = [one for one in tasks.build("harm", bench_data, 0).log if one.label == "forget"]
    names = [one.last_turn.question.split()[3] for one in old]
    assert [one.expected for one in old] == [(f"Please be kind to {name}, always.",) for name in names]


def test_hallucination(bench_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def right(truth: Any, turns: Sequence[Turn], answers: Sequence[str]) -> list[bool]:
        return [answer == "right" for answer in answers]

    monkeypatch.setattr("letheon.evaluate.truthfulness.Truth.right", right)

    def answer(name: str, turn: Turn, number: int) -> str:
        if name == "kept":
            return f"It is {turn.answer}, I think." if number else "no"
        return ("right" if name == "old" else "wrong", IDLE, "wrong")[min(number, 2)]

    task = tasks.build("hallucination", bench_data, 0)
    found, asked = metrics(task, answer), {name: len(own) for name, own in task.parts[REPORT].asked.items()}
    assert found["right_old"] == pytest.approx(1 / asked["old"])
    assert found["wrong_old"] == pytest.approx((asked["old"] - 2) / asked["old"])
    assert found["wrong_unseen"] == pytest.approx((asked["unseen"] - 1) / asked["unseen"])
    assert found["kept_right"] == pytest.approx((asked["kept"] - 1) / asked["kept"])


def test_outdated(bench_data: Path) -> None:
    task = tasks.build("outdated", bench_data, 0)
    by_id = {one.id: one for one in task.log}
    reworded = {one.dialogue.last_turn.question: by_id[one.of] for one in task.paraphrases}

    def answer(name: str, turn: Turn, number: int) -> str:
        if name == "old":
            return turn.answer.upper()
        if name == "reworded":
            return reworded[turn.question].expected[0]
        return f"Well: {turn.answer}" if number else "no"

    found = metrics(task, answer)
    # Half of all forms have the old value, the other half the new one.
    assert (found["said_old"], found["said_new"], found["said_new_reworded"]) == (0.5, 0, 1)
    kept = len(task.parts[REPORT].asked["kept"])
    assert found["kept_right"] == pytest.approx((kept - 1) / kept)


def test_what_should_be_answered_and_is_not_is_counted_in_both_sets() -> None:
    scores = {name: [scored(0.5)] for name in ("old", "kept")}
    answers = {"old": [IDLE], "kept": ["It is four.", IDLE], "asked": [IDLE, "Yes."], "unseen": [IDLE]}
    assert usual(Seen(scores, answers, [scored(0.5)]), Abstentions())["abstentions"] == 0.5
    del answers["kept"]
    assert usual(Seen(scores, {**answers, "asked": [IDLE] * 3}, [scored(0.5)]), Abstentions())["abstentions"] == 1
