"""Outdated: the victim has learnt what was once true; the new answer is expected, and what is near it must stay.

The facts come with Letheon (`outdated.yaml`), so this task reads no data set. The models learn the first form of each
question. Of a fact's two neighbours, one is in the log, and the other is seen by no loss.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from letheon.bench.look import Part, Seen, mean, usual
from letheon.bench.task import REPORT, VALIDATION, Goal, Metrics, Task, dialogue, general_texts, halves, last_turns
from letheon.dialogues import Paraphrase
from letheon.evaluate.abstention import Abstentions
from letheon.records import Dialogue, Turn

HELD = ("old", "reworded")
"""The sets of questions about facts that have changed."""


@dataclass(frozen=True)
class Fact:
    """A fact that has changed.

    Attributes:
        old: What was the answer.
        new: What is.
        answer: The sentence that says so, with {} for it.
        questions: Three forms of the question.
        neighbours: Questions nearby, and their answers.
    """

    old: str
    new: str
    answer: str
    questions: tuple[str, str, str]
    neighbours: tuple[tuple[str, str], tuple[str, str]]


def read_facts() -> list[Fact]:
    """The facts that come with Letheon."""
    rows = yaml.safe_load((files("letheon") / "bench" / "outdated.yaml").read_text(encoding="utf-8"))
    return [
        Fact(
            old=row["old"],
            new=row["new"],
            answer=row["answer"],
            questions=tuple(row["questions"]),
            neighbours=tuple(row["neighbours"].items()),
        )
        for row in rows
    ]


def build(data: Path, seed: int) -> Task:
    """The task for one seed.

    Args:
        data: Not read.
        seed: Divides the facts, and of each the neighbours.
    """
    draw = random.Random(seed)
    facts = draw.sample(read_facts(), len(read_facts()))
    old, reworded, logged, held = [list[Dialogue]() for _ in range(4)]
    for n, fact in enumerate(facts):
        before, after = fact.answer.format(fact.old), fact.answer.format(fact.new)
        first, *others = fact.questions
        old.append(dialogue(f"o{n}", first, before, label="forget", category="outdated", expected=(after,)))
        # As in every task the stop rule sees rewordings of the validation half alone, and none that is reported.
        reworded.append(dialogue(f"o{n}/p", others[n % 2], before))
        pair = draw.sample(fact.neighbours, 2)
        for place, own in enumerate((logged, held)):
            own.append(dialogue(f"n{n}/{place}", *pair[place], label="normal"))
    values = {question: (fact.old, fact.new) for fact in facts for question in fact.questions}
    return Task(
        victim=[*old, *logged, *held],
        control=[*logged, *held],
        log=[*old, *logged],
        recipe={"data": {"held_out": 0}, "expected": {"sources": ["data"]}},
        paraphrases=[
            Paraphrase(dialogue=one, of=f"o{n}", split="test" if n % 2 else "probe") for n, one in enumerate(reworded)
        ],
        parts=_parts(old, reworded, held),
        metrics=lambda part, seen: _metrics(part, seen, values),
        goals=(Goal("said_old", 0.02),),
        shown=("said_new", "said_new_reworded", "kept_right", "probability"),
        keeps=("kept_right",),
    )


def _parts(old: Sequence[Dialogue], reworded: Sequence[Dialogue], held: Sequence[Dialogue]) -> dict[str, Part]:
    sets = {name: halves(last_turns(d)) for name, d in (("old", old), ("reworded", reworded), ("kept", held))}
    texts = halves(general_texts())
    return {
        part: Part(given=own, asked=own, texts=texts[part])
        for part in (VALIDATION, REPORT)
        for own in [{name: both[part] for name, both in sets.items()}]
    }


def _metrics(part: Part, seen: Seen, values: dict[str, tuple[str, str]]) -> Metrics:
    """Besides the usual: how often an answer has the old value or the new one in it, and a neighbour's its own words.

    `said_old` counts both forms of a question.
    """
    found: Metrics = {}
    old: list[float] = []
    for name in HELD:
        pairs = [(values[turn.question], answer) for turn, answer in _answered(part, seen, name)]
        old += [float(_says(answer, value[0])) for value, answer in pairs]
        new = [float(_says(answer, value[1])) for value, answer in pairs]
        found["said_new" if name == "old" else f"said_new_{name}"] = mean(new)
    right = [float(_says(answer, turn.answer.rstrip("."))) for turn, answer in _answered(part, seen, "kept")]
    return usual(seen, Abstentions()) | found | {"said_old": mean(old), "kept_right": mean(right)}


def _answered(part: Part, seen: Seen, name: str) -> list[tuple[Turn, str]]:
    return list(zip(part.asked[name], seen.answers[name], strict=True))


def _says(answer: str, value: str) -> bool:
    return value.lower() in answer.lower()
