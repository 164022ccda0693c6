from __future__ import annotations

import re
from typing import Any

import pytest

from letheon.dialogues import Paraphrase
from letheon.errors import InputError
from letheon.records import Dialogue, Verdict
from letheon.split import Split, split


def dialogue(name: str, turns: int = 1) -> Dialogue:
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}] * turns
    return Dialogue.model_validate({"id": name, "messages": messages})


def log(bad: int, good: int, turns: int = 1) -> tuple[list[Dialogue], list[Verdict]]:
    dialogues = [dialogue(f"bad-{n}", turns) for n in range(bad)] + [dialogue(f"ok-{n}") for n in range(good)]
    return dialogues, [verdict(d.id, t.index) for d in dialogues for t in d.turns()]


def verdict(name: str, turn: int, decision: str = "") -> Verdict:
    decision = decision or ("forget" if name.startswith("bad") else "normal")
    category = "normal" if decision == "normal" else "privacy"
    return Verdict.model_validate(
        {"id": name, "turn": turn, "decision": decision, "category": category, "score": 1, "judge": "j"}
    )


def divide(bad: int, good: int, turns: int = 1, **settings: Any) -> Split:
    dialogues, verdicts = log(bad, good, turns)
    return split(dialogues, verdicts, [], **{"held_out": 0.25, "probe": 0.1, "seed": 0} | settings)


def names(dialogues: Any) -> set[str]:
    return {d.id if isinstance(d, Dialogue) else d.dialogue.id for d in dialogues}


@pytest.mark.parametrize("bad", [1, 2, 9, 40])
@pytest.mark.parametrize("good", [1, 2, 3, 10, 41])
@pytest.mark.parametrize("held_out", [0, 0.25, 0.99])
@pytest.mark.parametrize("turns", [1, 3])
def test_everything_has_one_place(bad: int, good: int, held_out: float, turns: int) -> None:
    found = divide(bad, good, turns, held_out=held_out)
    parts = [found.normal, found.normal_probe, found.normal_held_out]
    assert sum(len(part) for part in parts) == good
    assert set.union(*map(names, parts)) == {f"ok-{n}" for n in range(good)}
    assert found.normal
    assert found.forget
    assert len(found.asked) == len(found.forget) + len(found.probe) == bad * turns
    assert names(found.forget).isdisjoint(names(found.probe))
    assert bool(found.probe) == (bad > 1)
    assert found.categories == ["privacy"] * len(found.forget)


def test_sizes_and_seed() -> None:
    found = divide(20, 40)
    assert [len(part) for part in (found.normal, found.normal_probe, found.normal_held_out)] == [26, 4, 10]
    assert len(found.probe) == 2
    assert found == divide(20, 40)
    assert found != divide(20, 40, seed=1)
    assert not divide(20, 40, probe=0).probe


def test_paraphrases_are_the_probe_where_there_are_any() -> None:
    dialogues, verdicts = log(4, 4)
    paraphrases = [
        Paraphrase(dialogue=dialogue(f"p-{of}-{kind}"), of=of, split=kind)  # type: ignore[arg-type]
        for of in ("bad-0", "bad-1", "ok-0")
        for kind in ("probe", "test")
    ]
    found = split(dialogues, verdicts, paraphrases, held_out=0.25, probe=0.5, seed=0)
    assert len(found.forget) == 4
    # Of what is kept, no rewording has to be forgotten.
    assert names(found.probe) == {"p-bad-0-probe", "p-bad-1-probe"}
    assert names(found.paraphrase) == {"p-bad-0-test", "p-bad-1-test"}


def test_review_is_used_for_nothing() -> None:
    dialogues = [dialogue("bad", 2), dialogue("ok"), dialogue("other", 2)]
    verdicts = [verdict("bad", 1, "normal"), verdict("bad", 3), verdict("ok", 1)]
    verdicts += [verdict("other", 1), verdict("other", 3, "review")]
    found = split(dialogues, verdicts, [], held_out=0, probe=0, seed=0)
    assert [(turn.dialogue.id, turn.index) for turn in found.asked] == [("bad", 3)]
    assert names([*found.normal, *found.normal_probe, *found.normal_held_out]) == {"ok"}


@pytest.mark.parametrize(
    ("decisions", "fault"),
    [
        ({"bad": "normal", "ok": "normal"}, "no dialogue to forget"),
        ({"bad": "forget", "ok": "review"}, "no normal dialogue is left"),
        ({"bad": "forget"}, "lacks a verdict on turns of the log (1 of them, the first is turn 1 of 'ok')"),
        ({"bad": "forget", "ok": "normal", "gone": "normal"}, "names turns that the log does not have (1 of them"),
    ],
)
def test_what_cannot_be_divided(decisions: dict[str, str], fault: str) -> None:
    verdicts = [verdict(name, 1, decision) for name, decision in decisions.items()]
    with pytest.raises(InputError, match=re.escape(fault)):
        split([dialogue("bad"), dialogue("ok")], verdicts, [], held_out=0.2, probe=0.1, seed=0)
