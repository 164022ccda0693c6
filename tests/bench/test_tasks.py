"""What each task is made of: nothing leaks from training into measuring, nor from one half into the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from letheon.bench import hallucination, tasks
from letheon.bench.hallucination import choices
from letheon.bench.look import Part, Seen
from letheon.bench.outdated import read_facts
from letheon.bench.task import REPORT, VALIDATION, Task, dialogue
from letheon.errors import InputError
from letheon.evaluate.teacher_forced import TokenScores
from letheon.evaluate.truthfulness import Question, Truth


@pytest.fixture(params=["made up", pytest.param("shared", marks=pytest.mark.shared_data)])
def data(request: pytest.FixtureRequest, bench_data: Path) -> Path:
    if request.param == "made up":
        return bench_data
    shared: Path = request.getfixturevalue("shared_data")
    return shared


def pairs(part: Part) -> set[tuple[str, str]]:
    groups = [*part.given.values(), *part.asked.values()]
    return {(turn.question, turn.answer) for turns in groups for turn in turns}


@pytest.mark.parametrize("name", tasks.TASKS)
def test_halves_share_no_question(data: Path, name: str) -> None:
    task = tasks.build(name, data, 0)
    one, other = (pairs(task.parts[part]) for part in (VALIDATION, REPORT))
    assert one
    assert other
    assert not one & other
    assert not {question for question, _ in one} & {question for question, _ in other}
    assert not set(task.parts[VALIDATION].texts) & set(task.parts[REPORT].texts)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_who_learns_what(data: Path, name: str) -> None:
    task = tasks.build(name, data, 0)
    forget = [one for one in task.log if one.label == "forget"]
    assert forget
    assert {one.label for one in task.log} == {"forget", "normal"}
    # The control has learnt all that the victim has, but for what is to be forgotten.
    assert [one for one in task.victim if one.label != "forget"] == list(task.control)
    assert {one.id for one in task.log} <= {one.id for one in task.victim}
    assert len({one.id for one in task.victim}) == len(task.victim)
    logged = {one.last_turn.question for one in task.log}
    for part in task.parts.values():
        assert {turn.dialogue for turn in part.given["old"]} <= set(forget)
        # Neighbours are known to victim and control, and seen by no loss.
        assert part.given["kept"]
        assert {turn.dialogue for turn in part.given["kept"]} <= set(task.control)
        assert not {turn.question for turn in part.given["kept"]} & logged
        for group in set(part.given) - {"old", "kept"}:
            assert not {turn.question for turn in part.given[group]} & {d.last_turn.question for d in task.victim}
    old = [turn.dialogue for part in task.parts.values() for turn in part.given["old"]]
    assert sorted(one.id for one in old) == sorted(one.id for one in forget)


@pytest.mark.parametrize("name", tasks.TASKS)
def test_the_stop_rule_sees_nothing_that_is_reported(data: Path, name: str) -> None:
    task = tasks.build(name, data, 0)
    probed = {one.dialogue.last_turn.question for one in task.paraphrases if one.split == "probe"}
    assert not probed & {question for question, _ in pairs(task.parts[REPORT])}
    assert {one.of for one in task.paraphrases} <= {one.id for one in task.log}


@pytest.mark.parametrize("name", [name for name in tasks.TASKS if name != "outdated"])
def test_a_seed_draws_its_own_and_always_the_same(data: Path, name: str) -> None:
    first, again, other = (tasks.build(name, data, seed) for seed in (0, 0, 1))
    assert list(first.victim) == list(again.victim)
    assert list(first.victim) != list(other.victim)


def test_the_judges_of_harm_learn_from_different_prompts(data: Path) -> None:
    task = tasks.build("harm", data, 0)
    examples = {json.loads(line)["messages"][0]["content"] for line in task.files["examples.jsonl"].splitlines()}
    learnt = {one.last_turn.question for one in task.victim}
    unseen = {turn.question for part in task.parts.values() for turn in part.asked["unseen"]}
    assert examples
    assert not examples & learnt
    assert not unseen & (examples | learnt)


def test_changed_facts_are_told_apart() -> None:
    facts = read_facts()
    assert len(facts) >= 40
    questions = [question for fact in facts for question in (*fact.questions, *(q for q, _ in fact.neighbours))]
    assert len(set(questions)) == len(questions)
    for fact in facts:
        assert len(fact.questions) == 3
        assert len(fact.neighbours) == 2
        assert "{}" in fact.answer
        # An answer is looked through for either value.
        assert fact.old.lower() not in fact.new.lower()
        assert fact.new.lower() not in fact.old.lower()


def test_multiple_choice_against_hand_made_probabilities() -> None:
    question = Question("Q?", ("yes", "sure"), ("no",), ("yes", "no"))
    options = {"yes": 0.2, "sure": 0.4, "no": 0.3}
    turns = [dialogue("option", "Q?", answer).last_turn for answer in options]
    scores = [TokenScores(torch.tensor([0.5, p / 0.5]).log(), torch.tensor([True, True])) for p in options.values()]
    found = choices(Part({"options": turns}, {}), Seen({"options": scores}, {}, []), Truth([question]))
    assert found["mc1"] == 0
    assert found["mc2"] == pytest.approx(0.6 / 0.9)


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "truthfulqa"
    folder.mkdir()
    (folder / "mc_task.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match=r"halueval/qa_one-turn_data\.json: no such file"):
        hallucination.build(tmp_path, 0)


def test_a_task_of_no_name() -> None:
    with pytest.raises(InputError, match="unknown task 'leaks'; known: leak, "):
        tasks.build("leaks", Path(), 0)


def test_every_task_says_what_its_table_shows(bench_data: Path) -> None:
    for name in tasks.TASKS:
        task: Task = tasks.build(name, bench_data, 0)
        assert task.goals
        assert task.shown
