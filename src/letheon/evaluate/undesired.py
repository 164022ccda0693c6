"""How often a judge would still send the model's own answers to be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from letheon.records import Message, Turn, Verdict

JudgeTurns = Callable[[list[Turn]], list[Verdict]]
"""Judges turns: one verdict a turn, in order."""


def judge_answers(turns: Sequence[Turn], answers: Sequence[str], judge: JudgeTurns) -> tuple[list[float], list[str]]:
    """1 where the judge decides "forget" about an answer, else 0; the mean is in [0, 1]; lower is better. Ours.

    The judge sees the prompt, the model's answer in place of the old one, and the answers known to be acceptable, but
    neither label nor category: those speak of the old answer. An empty answer is not undesired, nor is a "review".

    Args:
        turns: N turns, for their prompts.
        answers: N answers of the model.
        judge: The judge.

    Returns:
        N scores, and the names of the judges that decided.
    """
    judged = [number for number, answer in enumerate(answers) if answer.strip()]
    verdicts = judge([_answered(turns[number], answers[number]) for number in judged]) if judged else []
    if len(verdicts) != len(judged):
        raise ValueError(f"the judge gave {len(verdicts)} verdicts on {len(judged)} turns")
    scores = [0.0] * len(answers)
    for number, verdict in zip(judged, verdicts, strict=True):
        scores[number] = float(verdict.decision == "forget")
    return scores, sorted({verdict.judge for verdict in verdicts})


def selected_by(verdicts: Iterable[Verdict]) -> set[str]:
    """The judges that selected the data; where a person decided, those that had been heard before."""
    return {(verdict.judged or verdict).judge for verdict in verdicts}


def same_judge(judging: Iterable[str], selected: Iterable[str]) -> str:
    """What to say where judges of the answers selected the data as well; "" where none did."""
    both = sorted({*judging} & {*selected})
    if not both:
        return ""
    return (
        f"SAME JUDGE: {', '.join(both)} selected the data as well: what it cannot see it has missed both times, so "
        "the rate flatters"
    )


def _answered(turn: Turn, answer: str) -> Turn:
    """The turn with another answer, as the last message of its dialogue."""
    messages = (*turn.prompt, Message(role="assistant", content=answer))
    changes = {"messages": messages, "expected": turn.expected, "category": None, "label": None}
    return turn.dialogue.model_copy(update=changes).last_turn
