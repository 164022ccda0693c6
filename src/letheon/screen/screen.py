"""Ask every judge about every assistant turn, and decide by thresholds; score the decisions against true labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from letheon.records import NORMAL, Decision, Dialogue, Screening, Turn, Verdict
from letheon.screen.combine import Combine, Given, highest
from letheon.screen.judge import Judge, Opinion
from letheon.screen.progress import part

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
    an opinion waits for review with score 0.5: it is not known to be good enough to train on. So does one that is
    not forgotten and that some judge was unable to look at, and one whose opinion is "normal" with a score to forget.

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
    return screen_turns(turns, judges, forget_above=forget_above, normal_below=normal_below, combine=combine)


def screen_turns(
    turns: Sequence[Turn],
    judges: Sequence[Judge],
    *,
    forget_above: float = 0.5,
    normal_below: float = 0.5,
    combine: Combine = highest,
) -> list[Verdict]:
    """As `screen`, of assistant turns alone."""
    given = opinions_of(_asked(turns, judges))
    return [
        _verdict(turn, own, combine, forget_above, normal_below)
        for turn, own in zip(turns, given or [[] for _ in turns], strict=True)
    ]


def _asked(turns: Sequence[Turn], judges: Sequence[Judge]) -> Iterator[tuple[str, Sequence[Opinion | None]]]:
    for number, judge in enumerate(judges):
        with part(number, len(judges)):
            yield judge.name, judge.judge(turns)


def opinions_of(by_judge: Iterable[tuple[str, Sequence[Opinion | None]]]) -> list[list[Given]]:
    """The opinions on each turn, of judges that gave one a turn or None."""
    named = [[(name, opinion) for opinion in opinions] for name, opinions in by_judge]
    return [[(name, opinion) for name, opinion in own if opinion is not None] for own in zip(*named, strict=True)]


def score_screening(verdicts: Iterable[Verdict], dialogues: Iterable[Dialogue]) -> Screening:
    """Compare the decisions on last turns with the true labels, and say what the scores themselves expect.

    precision = |forget ∧ labelled forget| / |forget ∧ labelled|, recall = |forget ∧ labelled forget| / |labelled
    forget|, both in [0, 1], higher is better; review counts as not forgotten. None where the denominator is 0. If
    the scores s are calibrated, Σ (1 − s) of the turns to forget should have been kept, and Σ s of the normal ones
    should have been forgotten.

    Returns:
        All that, and how many of all n judged turns got each decision.
    """
    labels = {(d.id, d.last_turn.index): d.label for d in dialogues if d.label is not None}
    count, known = Counter[str](), Counter[tuple[bool, bool]]()
    wrongly = missed = 0.0
    for verdict in verdicts:
        decided = verdict.decision == "forget"
        count[verdict.decision] += 1
        wrongly += 1 - verdict.score if decided else 0
        missed += verdict.score if verdict.decision == "normal" else 0
        if (verdict.id, verdict.turn) in labels:
            known[decided, labels[verdict.id, verdict.turn] == "forget"] += 1
    hits = known[True, True]
    said, true = hits + known[True, False], hits + known[False, True]
    return Screening(
        precision=hits / said if said else None,
        recall=hits / true if true else None,
        n=count.total(),
        wrongly_forgotten=wrongly,
        missed=missed,
        forget=count["forget"],
        review=count["review"],
        normal=count["normal"],
    )


def _verdict(
    turn: Turn, given: Sequence[Given], combine: Combine, forget_above: float, normal_below: float
) -> Verdict:
    if not given:
        nobody = "no judge had anything to go by"
        return _record(turn, "review", NO_JUDGE, Opinion(NORMAL, 0.5, reason=nobody))
    judge, opinion = combine(given)
    # Whoever finds nothing gives no reason to forget, whatever the thresholds are.
    if opinion.score >= forget_above and opinion.category != NORMAL:
        return _record(turn, "forget", judge, opinion)
    for name, other in given:
        if other.unable:
            return _record(turn, "review", name, replace(other, score=0.5))
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
