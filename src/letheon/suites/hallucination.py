"""Hallucination: TruthfulQA (Lin et al., arXiv 2109.07958), in multiple choice and in the model's own words."""

from __future__ import annotations

from pathlib import Path

from letheon.errors import InputError, MissingExtraError, missing_modules
from letheon.evaluate.abstention import Abstentions
from letheon.evaluate.multiple_choice import best_is_likeliest, correct_mass
from letheon.evaluate.text import repetition
from letheon.evaluate.truthfulness import Question, Truth, hallucination_rate, right_rate
from letheon.json_rows import check_files, read_rows
from letheon.records import Dialogue, Message, Turn
from letheon.suites.options import Options
from letheon.suites.parts import grouped, thinned
from letheon.suites.suite import Findings, Seen, Suite

FILE = "mc_task.json"
NEAREST = "an answer counts as right by which given answer it is nearest to (MiniLM): a sign, not a person's word"


def read(folder: Path, options: Options) -> Suite:
    """Read `mc_task.json`: rows with a question, mc1_targets and mc2_targets, which say 1 of each correct answer.

    Raises:
        InputError: It is missing or faulty.
    """
    check_files(folder, [FILE])
    # Only whether a free answer is right is asked of the embedder.
    lacking = missing_modules("screen")
    untold = str(MissingExtraError("telling right answers by MiniLM", "screen")) if lacking else None
    rows = read_rows(folder / FILE, "question", "mc1_targets", "mc2_targets")
    try:
        questions = [Question.read(row) for row in thinned(rows, options.limit)]
    except (AttributeError, TypeError):
        raise InputError(f"{folder / FILE}: mc1_targets and mc2_targets: expected answers with 1 or 0") from None
    if faulty := [n for n, q in enumerate(questions, 1) if not (q.correct and q.incorrect and q.single)]:
        raise InputError(f"{folder / FILE}: question {faulty[0]}: needs a correct and an incorrect answer in each")
    options_of = [list(dict.fromkeys((*q.correct, *q.incorrect, *q.single))) for q in questions]
    if faulty := [n for n, texts in enumerate(options_of, 1) if not all(text.strip() for text in texts)]:
        raise InputError(f"{folder / FILE}: question {faulty[0]}: an answer is empty; fill it in, or take it out")
    given = [
        _turn(n, q.text, text) for n, (q, ts) in enumerate(zip(questions, options_of, strict=True)) for text in ts
    ]
    asked = [_turn(n, q.text, q.single[0]) for n, q in enumerate(questions)]
    truth, abstentions = Truth(questions), Abstentions()

    def measure(seen: Seen, control: Seen | str) -> Findings:
        findings = Findings()
        totals = [float(tokens.log_probs.double().sum()) for tokens in seen.scores["options"]]
        answers = seen.answers["questions"]
        rows = []
        for question, texts, own, answer in zip(
            questions, options_of, grouped(totals, map(len, options_of)), answers, strict=True
        ):
            known = dict(zip(texts, own, strict=True))
            best, *others = (known[text] for text in question.single)
            correct, incorrect = ([known[t] for t in group] for group in (question.correct, question.incorrect))
            rows.append(
                {
                    "mc1": best_is_likeliest(best, others),
                    "mc2": correct_mass(correct, incorrect),
                    "abstentions": float(abstentions.is_one(answer)),
                    "repetition": repetition(answer),
                }
            )
        findings.add("questions", rows)
        if untold is not None:
            findings.lacks("questions", ["hallucination_rate", "right_rate"], untold)
            return findings
        judged = zip(truth.right(asked, answers), (row["abstentions"] == 1 for row in rows), strict=True)
        findings.add(
            "questions",
            [{"hallucination_rate": hallucination_rate(*one), "right_rate": right_rate(*one)} for one in judged],
        )
        return findings

    return Suite(
        files=[folder / FILE],
        measure=measure,
        given={"options": given},
        asked={"questions": asked},
        notes=[NEAREST] if untold is None else [],
    )


def _turn(number: int, question: str, answer: str) -> Turn:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Dialogue(id=f"question {number + 1}", messages=messages).last_turn
