"""Ask every judge about every assistant turn, and decide by thresholds; score the decisions against true labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from letheon.records import NORMAL, Decision, Dialogue, Screening, Turn, Verdict
from letheon.screen.combine import Combine, Given, highest
from letheon.screen.judge import Judge, Opinion

NO_JUDGE = "none"
"""The judge of a turn on which no judge had an opinion."""


def screen(
    dialogues: Sequence[Dialogue],
    judges: Sequence[Judge],
    *,
    forget_above: float = 0.5,
    normal_below: float = 0.5,
    combine: Combine = highest,
) -> list[Verdict]:
    """Judge every assistant turn of every dialogue.

    Score ≥ forget_above → forget; score < normal_below → normal; between them → review. A turn on which no judge has
    an opinion waits for review with score 0.5: it is not known to be good enough to train on.

    Args:
        dialogues: The log.
        judges: At least one.
        forget_above: In [0, 1]; higher forgets less.
        normal_below: In [0, forget_above]; lower sends more to review.
        combine: Makes one score of the judges' opinions; as it is, the highest.

    Returns:
        One verdict a turn, in the order of the log.
    """
    turns = [turn for dialogue in dialogues for turn in dialogue.turns()]
    given = opinions_of((judge.name, judge.judge(turns)) for judge in judges)
    return [
        _verdict(turn, combine(own) if own else None, forget_above, normal_below)
        for turn, own in zip(turns, given or [[] for _ in turns], strict=True)
    ]


def opinions_of(by_judge: Iterable[tuple[str, Sequence[Opinion | None]]]) -> list[list[Given]]:
    """The opinions on each turn, of judges that gave one a turn or None."""
    named = [[(name, opinion) for opinion in opinions] for name, opinions in by_judge]
    return [[(name, opinion) for name, opinion in own if opinion is not None] for own in zip(*named, strict=True)]


def score_screening(verdicts: Sequence[Verdict], dialogues: Sequence[Dialogue]) -> Screening:
    """Compare the decisions on last turns with the true labels.

    precision = |forget ∧ labelled forget| / |forget ∧ labelled|, recall = |forget ∧ labelled forget| / |labelled
    forget|, both in [0, 1], higher is better; review counts as not forgotten. None where the denominator is 0.

    Returns:
        The two, and how many of all n judged turns got each decision.
    """
    labels = {(d.id, d.last_turn.index): d.label for d in dialogues if d.label is not None}
    known = [(v.decision == "forget", labels[v.id, v.turn] == "forget") for v in verdicts if (v.id, v.turn) in labels]
    hits = sum(decided and true for decided, true in known)
    decided = sum(decided for decided, _ in known)
    true = sum(true for _, true in known)
    count = Counter(verdict.decision for verdict in verdicts)
    return Screening(
        precision=hits / decided if decided else None,
        recall=hits / true if true else None,
        n=len(verdicts),
        forget=count["forget"],
        review=count["review"],
        normal=count["normal"],
    )


def _verdict(turn: Turn, given: Given | None, forget_above: float, normal_below: float) -> Verdict:
    if given is None:
        nobody = "no judge had anything to go by"
        return _record(turn, "review", NO_JUDGE, Opinion(NORMAL, 0.5, reason=nobody))
    judge, opinion = given
    if opinion.score >= forget_above:
        return _record(turn, "forget", judge, opinion)
    if opinion.score >= normal_below:
        return _record(turn, "review", judge, opinion)
    return _record(turn, "normal", judge, Opinion(NORMAL, opinion.score, reason=opinion.reason))


def _record(turn: Turn, decision: Decision, judge: str, opinion: Opinion) -> Verdict:
    return Verdict(
        id=turn.dialogue.id,
        turn=turn.index,
        decision=decision,
        category=opinion.category,
        score=opinion.score,
        judge=judge,
        span=opinion.span,
        reason=opinion.reason,
    )
