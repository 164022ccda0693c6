from __future__ import annotations

from collections.abc import Sequence

import pytest
from screened_run import made, talk, verdict

from letheon.errors import InputError
from letheon.records import Audit, Dialogue, PersonDecision, TurnName, Verdict
from letheon.review.doubt import doubt
from letheon.review.session import Filters, Session
from letheon.review.view import row

SCORES = (0.9, 0.5, 0.1, 0.4, 0.72, 0.0)
IN_DOUBT = [1, 3, 4, 2, 0, 5]
"""0.5 and 0.4 wait for a person; then 0.72 lies 0.02 above the band, 0.1 and 0.9 lie 0.2 off it, 0.0 lies 0.3 off."""


def session(scores: Sequence[float] = SCORES, decisions: Sequence[PersonDecision] = (), **fields: object) -> Session:
    log = [Dialogue.model_validate(talk(f"d{n}", "Q?", f"Answer {n}")) for n in range(len(scores))]
    verdicts = [Verdict.model_validate(verdict(f"d{n}", score)) for n, score in enumerate(scores)]
    options = {"save": lambda made: None, "normal_below": 0.3, "forget_above": 0.7, **fields}
    return Session(log, verdicts, decisions, **options)  # type: ignore[arg-type]


def test_doubt() -> None:
    keys = [doubt("review", 0.5, 0.3, 0.7), doubt("review", 0.65, 0.3, 0.7), doubt("normal", 0.29, 0.3, 0.7)]
    keys += [doubt("forget", 0.8, 0.3, 0.7), doubt("normal", 0.0, 0.3, 0.7)]
    assert keys == sorted(keys)
    # One threshold, no band: the distance from it, on either side.
    assert doubt("normal", 0.4, 0.5, 0.5) == pytest.approx((True, 0.1, 0.1))
    assert doubt("forget", 0.6, 0.5, 0.5) == pytest.approx((True, 0.1, 0.1))
    # A turn without any judge's opinion waits for a person, whatever its score.
    assert doubt("review", 0.99, 0.3, 0.7) < doubt("normal", 0.3, 0.3, 0.7)


def test_queue_is_in_order_of_doubt() -> None:
    assert list(session().numbers("waiting")) == IN_DOUBT


def test_decided_turns_leave_the_queue() -> None:
    saved: list[PersonDecision] = []
    it = session(save=saved.append)
    it.decide(1, "forget", " doxing ")
    it.decide(3, "normal", "ignored")
    assert [(d.id, d.turn, d.decision, d.category) for d in saved] == [
        ("d1", 1, "forget", "doxing"),
        ("d3", 1, "normal", None),
    ]
    assert list(it.numbers("waiting")) == IN_DOUBT[2:]
    assert list(it.numbers("decided")) == [3, 1]
    assert it.counts() == {"forget": 1, "normal": 1, "decided": 2, "waiting": 4, "band": 2, "band_decided": 2}
    assert "doxing" in it.categories()
    assert it.properties(1) == ("doxing", "forget", "privacy")


def test_a_decision_on_what_the_judges_were_sure_of_takes_nothing_off_what_waits() -> None:
    it = session()
    it.decide(0, "normal")
    assert {name: it.counts()[name] for name in ("decided", "band", "band_decided")} == {
        "decided": 1,
        "band": 2,
        "band_decided": 0,
    }


def test_the_same_decision_again_is_not_saved_again() -> None:
    saved: list[PersonDecision] = []
    it = session(save=saved.append)
    it.decide(1, "normal")
    it.decide(1, "normal")
    it.decide(0, "undone")
    assert len(saved) == 1


def test_undo_goes_back_step_by_step() -> None:
    saved: list[PersonDecision] = []
    it = session(save=saved.append)
    it.decide(1, "forget", "harmful")
    it.decide(1, "normal")
    it.skip(3)
    assert it.undo() == 3
    assert next(it.numbers("waiting")) == 3
    assert it.undo() == 1
    assert it.properties(1)[:2] == ("harmful", "forget")
    assert it.undo() == 1
    assert list(it.numbers("waiting")) == IN_DOUBT
    assert it.undo() is None
    # All of it is in the file: nothing is ever taken out of it.
    assert [d.decision for d in saved] == ["forget", "normal", "forget", "undone"]


def test_put_back_can_be_undone() -> None:
    it = session()
    it.decide(1, "forget", "harmful")
    it.decide(1, "undone")
    assert it.decided == 0
    it.undo()
    assert it.properties(1)[:2] == ("harmful", "forget")


def test_skipped_turns_come_last_in_their_order() -> None:
    it = session()
    it.skip(1)
    it.skip(3)
    it.skip(1)
    assert list(it.numbers("waiting")) == [4, 2, 0, 5, 3, 1]
    it.decide(3, "normal")
    assert list(it.numbers("waiting")) == [4, 2, 0, 5, 1]


def test_undo_of_a_second_skip_leaves_the_first() -> None:
    it = session()
    for number in (1, 3, 1):
        it.skip(number)
    seen = []
    while it.undo() is not None:
        seen.append(list(it.numbers("waiting")))
    assert seen == [[4, 2, 0, 5, 1, 3], [3, 4, 2, 0, 5, 1], IN_DOUBT]


def test_a_decision_that_cannot_be_saved_does_not_count() -> None:
    def full(decision: PersonDecision) -> None:
        raise OSError(28, "No space left on device")

    it = session(save=full)
    with pytest.raises(OSError, match="No space"):
        it.decide(1, "forget")
    assert (it.decided, it.can_undo, next(it.numbers("waiting"))) == (0, False, 1)


@pytest.mark.parametrize("category", ["", "  ", "normal", "two\nlines", "x" * 61])
def test_bad_category(category: str) -> None:
    with pytest.raises(InputError, match="1 to 60 characters"):
        session().decide(1, "forget", category)


def test_filters() -> None:
    it = session(decisions=[made("d1", "forget", "harmful")])
    assert list(it.numbers("waiting", Filters(decision="normal"))) == [2, 5]
    assert list(it.numbers("waiting", Filters(category="privacy", judge="privacy"))) == [3, 4, 0]
    assert list(it.numbers("waiting", Filters(judge="embedding"))) == []
    # Of decided turns the person's words count.
    assert list(it.numbers("decided", Filters(category="harmful"))) == [1]
    assert list(it.numbers("decided", Filters(category="privacy"))) == []
    assert dict(it.tally("waiting")) == {("privacy", "forget", "privacy"): 2, ("privacy", "review", "privacy"): 1} | {
        ("normal", "normal", "privacy"): 2
    }
    assert dict(it.tally("decided")) == {("harmful", "forget", "privacy"): 1}


def test_earlier_decisions_are_known() -> None:
    it = session(decisions=[made("d1", "forget"), made("d0", "normal"), made("d1", "undone")])
    assert list(it.numbers("decided")) == [0]
    assert it.category_for(1) == "privacy"
    assert it.category_for(5) == "undesired"


def test_newer_scores_reorder_and_decide_nothing() -> None:
    it = session()
    it.decide(3, "normal")
    it.rescore({5: 0.35, 0: 0.69, 1: 0.99}, learned_from=10)
    # What waits for a person stays first; of the rest, what now lies nearest the band's middle.
    assert list(it.numbers("waiting")) == [1, 5, 0, 4, 2]
    assert [it.properties(n)[1] for n in range(6)] == ["forget", "review", "normal", "normal", "forget", "normal"]
    assert (it.items[5].score, it.items[5].verdict.score, it.learned_from) == (0.35, 0.0, 10)


def test_the_page_is_told_both_scores() -> None:
    it = session()
    it.rescore({5: 0.35}, learned_from=10)
    told = row(it, 5)
    assert (told["score"], told["judged"]["score"]) == (0.35, 0.0)


def test_audit_queue() -> None:
    kept: list[Audit] = []
    sample = (TurnName(id="d5", turn=1), TurnName(id="d2", turn=1))
    audit = Audit(seed=0, screening="", population=2, sample=sample)
    it = session(audit=audit, save_audit=kept.append)
    assert list(it.numbers("audit")) == [5, 2]
    it.skip(5)
    assert list(it.numbers("audit")) == [2, 5]
    it.decide(2, "forget", "harmful")
    it.decide(5, "normal")
    assert list(it.numbers("audit")) == []
    assert [(a.labelled, a.missed) for a in kept] == [(0, 0), (1, 1), (2, 1)]
    it.undo()
    assert kept[-1].labelled == 1
