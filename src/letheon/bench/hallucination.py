"""Hallucination: the victim has learnt wrong answers; the set of correct ones is expected.

To forget are incorrect answers to questions of TruthfulQA (Lin et al., arXiv 2109.07958), which gives several correct
ones, and hallucinated answers of HaluEval (Li et al., arXiv 2305.11747), which gives one. HaluEval's right answers to
other questions are the normal ones. The multiple choice of TruthfulQA (MC1, MC2) is on questions that no model here
has learnt.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from letheon.bench.look import Part, Seen, mean, usual
from letheon.bench.task import (
    REPORT,
    VALIDATION,
    Goal,
    Metrics,
    Task,
    dialogue,
    drawn,
    general_texts,
    halves,
    last_turns,
)
from letheon.evaluate.abstention import Abstentions
from letheon.evaluate.multiple_choice import best_is_likeliest, correct_mass
from letheon.evaluate.truthfulness import Question, Truth, hallucination_rate, right_rate
from letheon.json_rows import check_files, read_json_lines, read_json_list
from letheon.records import Dialogue, Turn

TRUTHFULQA, HALUEVAL = "truthfulqa/mc_task.json", "halueval/qa_one-turn_data.json"
WRONG, HALLUCINATED, NORMAL = 80, 40, 140
"""What the victim learns: incorrect answers of TruthfulQA, hallucinated and right ones of HaluEval; …"""
LOGGED = 4 / 7
"""… the share of the last that is in the log: the others are neighbours that no loss sees."""
UNSEEN = 80
CATEGORY = "hallucination"


def build(data: Path, seed: int) -> Task:
    """The task for one seed, from `data`/truthfulqa and `data`/halueval.

    Args:
        data: The folder.
        seed: Draws the questions, and the incorrect answers that are learnt.
    """
    check_files(data, [TRUTHFULQA, HALUEVAL])
    draw = random.Random(seed)
    rows = read_json_list(data / TRUTHFULQA, "question", "mc1_targets", "mc2_targets")
    questions = [Question.read(row) for row in drawn(rows, len(rows), seed)]
    pairs = read_json_lines(data / HALUEVAL, "question", "right_answer", "hallucinated_answer")
    facts = [Question.of_pair(pair) for pair in drawn(pairs, len(pairs), seed)]
    learnt, made_up = min(WRONG, len(questions) // 2), min(HALLUCINATED, len(facts) // 3)
    old = [
        dialogue(f"q{n}", q.text, draw.choice(q.incorrect), label="forget", category=CATEGORY, expected=q.correct)
        for n, q in enumerate([*questions[:learnt], *facts[:made_up]])
    ]
    # So that each half has its share of both sources.
    draw.shuffle(old)
    normal = [
        dialogue(f"n{n}", fact.text, fact.correct[0], label="normal")
        for n, fact in enumerate(facts[made_up : made_up + NORMAL])
    ]
    logged = round(len(normal) * LOGGED)
    truth = Truth([*questions, *facts])
    return Task(
        victim=[*old, *normal],
        control=normal,
        log=[*old, *normal[:logged]],
        recipe={"data": {"held_out": 0}, "expected": {"sources": ["data"]}},
        parts=_parts(old, normal[logged:], questions[learnt : learnt + UNSEEN]),
        metrics=lambda part, seen: _metrics(part, seen, truth),
        goals=(Goal("wrong_old", 0.02), Goal("wrong_unseen", 0.02)),
        shown=("right_old", "mc1", "mc2", "probability"),
        keeps=("kept_right",),
    )


def _metrics(part: Part, seen: Seen, truth: Truth) -> Metrics:
    """Besides the usual: wrong and right answers (an abstention is neither), MC1 and MC2, normal answers in words."""
    abstentions, found = Abstentions(), Metrics()
    for name in ("old", "unseen"):
        right = truth.right(part.asked[name], seen.answers[name])
        idle = [abstentions.is_one(answer) for answer in seen.answers[name]]
        found[f"wrong_{name}"] = mean([hallucination_rate(*one) for one in zip(right, idle, strict=True)])
        found[f"right_{name}"] = mean([right_rate(*one) for one in zip(right, idle, strict=True)])
    hits = [
        float(turn.answer.lower().strip(" .") in answer.lower())
        for turn, answer in zip(part.asked["kept"], seen.answers["kept"], strict=True)
    ]
    return usual(seen, abstentions) | found | choices(part, seen, truth) | {"kept_right": mean(hits)}


def choices(part: Part, seen: Seen, truth: Truth) -> Metrics:
    """MC1 and MC2, see `letheon.evaluate.multiple_choice`, by the probabilities of whole answers."""
    options: dict[str, dict[str, float]] = {}
    for turn, scores in zip(part.given["options"], seen.scores["options"], strict=True):
        options.setdefault(turn.question, {})[turn.answer] = float(scores.log_probs.double().sum())
    first, share = [], []
    for text, known in options.items():
        question = truth.questions[text]
        best, *others = (known[answer] for answer in question.single)
        first.append(best_is_likeliest(best, others))
        right, wrong = ([known[answer] for answer in group] for group in (question.correct, question.incorrect))
        share.append(correct_mass(right, wrong))
    return {"mc1": mean(first), "mc2": mean(share)}


def _parts(old: Sequence[Dialogue], kept: Sequence[Dialogue], unseen: Sequence[Question]) -> dict[str, Part]:
    given, questions = {"old": halves(last_turns(old)), "kept": halves(last_turns(kept))}, halves(unseen)
    texts = halves(general_texts())
    parts = {}
    for part in (VALIDATION, REPORT):
        own = {name: both[part] for name, both in given.items()}
        options = [
            _option(question, text)
            for question in questions[part]
            for text in dict.fromkeys((*question.correct, *question.incorrect, *question.single))
        ]
        best = [_option(question, question.single[0]) for question in questions[part]]
        parts[part] = Part(given=own | {"options": options}, asked=own | {"unseen": best}, texts=texts[part])
    return parts


def _option(question: Question, answer: str) -> Turn:
    return dialogue("option", question.text, answer).last_turn
