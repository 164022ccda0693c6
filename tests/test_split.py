from __future__ import annotations

import random
import re
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from letheon.dialogues import Paraphrase
from letheon.errors import InputError
from letheon.records import Dialogue, Verdict
from letheon.split import Sample, Split, check_fit, judged, split

SETTINGS: dict[str, Any] = {"most_normal": 100, "held_out": 0.25, "probe": 0.1, "seed": 0}


def dialogue(name: str, turns: int = 1, answer: str = "a") -> Dialogue:
    messages = [{"role": "user", "content": f"q {name}"}, {"role": "assistant", "content": answer}] * turns
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
    return split(dialogues, verdicts, [], **SETTINGS | settings)


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


# -- a log with more normal dialogues than are used ------------------------------------------------------------------


def parts(found: Split) -> list[list[str]]:
    return [[d.id for d in part] for part in (found.normal_held_out, found.normal_probe, found.normal)]


@pytest.mark.parametrize("most_normal", [40, 20_000])
def test_up_to_the_limit_the_whole_log_is_shuffled(most_normal: int) -> None:
    found = divide(5, 40, seed=3, most_normal=most_normal)
    draw, wanted = random.Random("3-split"), [f"ok-{n}" for n in range(40)]
    draw.shuffle(wanted)
    assert sum(parts(found), []) == wanted
    bad = [f"bad-{n}" for n in range(5)]
    draw.shuffle(bad)
    assert [turn.dialogue.id for turn in found.probe] == bad[:1]
    assert found.normal_unused == 0


def test_beyond_the_limit_a_sample_is_divided_that_no_order_changes() -> None:
    found = divide(5, 41, most_normal=20)
    assert [len(part) for part in parts(found)] == [5, 2, 13]
    assert (found.normal_unused, len(found.asked)) == (21, 5)
    dialogues, verdicts = log(5, 41)
    for seed in range(3):
        random.Random(seed).shuffle(dialogues)
        random.Random(~seed).shuffle(verdicts)
        assert parts(split(dialogues, verdicts, [], **SETTINGS | {"most_normal": 20})) == parts(found)
    other = divide(5, 41, most_normal=20, seed=1)
    assert set(sum(parts(other), [])) != set(sum(parts(found), []))


def test_a_sample_is_drawn_evenly_and_a_larger_one_holds_it() -> None:
    drawn = {}
    for most in (100, 200, 1000):
        sample = Sample(most, seed=0)
        for number in range(1000):
            sample.offer(dialogue(f"d-{number}"))
        drawn[most] = [one.id for one in sample.drawn()]
        assert (len(drawn[most]), sample.offered) == (most, 1000)
    assert drawn[200][:100] == drawn[100]
    assert drawn[1000] == [f"d-{number}" for number in range(1000)]
    # Of each tenth of the log some ten; 3.5 standard deviations of a hypergeometric draw are 10.
    tenths = [sum(int(name[2:]) // 100 == tenth for name in drawn[100]) for tenth in range(10)]
    assert max(abs(found - 10) for found in tenths) <= 10


def test_a_sample_has_room_for_each_kind() -> None:
    sample = Sample(3, seed=0)
    for number in range(20):
        sample.offer(dialogue(f"{number}"), kind="rare" if number in (4, 7) else "usual")
    names_drawn = names(sample.drawn())
    assert len(names_drawn) == 5
    assert names_drawn >= {"4", "7"}


@pytest.mark.parametrize("more", [1, 4])
def test_memory_does_not_grow_with_the_normal_dialogues(more: int) -> None:
    bad, good, length = 20, 1000 * more, 4000

    def dialogues() -> Iterator[Dialogue]:
        for number in range(bad + good):
            yield dialogue(f"{'bad' if number < bad else 'ok'}-{number}", answer=f"{number:{length}}")

    def verdicts() -> Iterator[Verdict]:
        for number in range(bad + good):
            yield verdict(f"{'bad' if number < bad else 'ok'}-{number}", 1)

    tracemalloc.start()
    found = split(dialogues(), verdicts(), [], **SETTINGS | {"most_normal": 50})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.normal_unused == good - 50
    # The texts that are kept are 0.28 MB; all of them would be 4 and 16.
    assert peak < 1e6


# -- the verdicts and the log ----------------------------------------------------------------------------------------


def test_each_dialogue_has_its_verdicts_whatever_their_order() -> None:
    dialogues, verdicts = log(3, 3, turns=2)
    wanted = [(one.id, [verdict for verdict in verdicts if verdict.id == one.id]) for one in dialogues]
    assert [(one.id, own) for one, own in judged(dialogues, verdicts)] == wanted
    assert [(one.id, own) for one, own in judged(dialogues, verdicts[::-1])] == wanted


def test_no_more_verdicts_are_read_than_are_needed() -> None:
    dialogues, verdicts = log(3, 3)
    coming = iter(verdicts)
    next(judged(dialogues, coming))
    assert next(coming) is verdicts[1]


def test_all_that_does_not_fit_is_counted() -> None:
    dialogues, verdicts = log(3, 3)
    with pytest.raises(InputError, match=r"lacks a verdict .* \(2 of them, the first is turn 1 of 'bad-1'\)"):
        check_fit(dialogues, [verdict for verdict in verdicts if verdict.id not in ("bad-1", "ok-0")])
    with pytest.raises(InputError, match=r"does not have \(2 of them, the first is turn 1 of 'bad-1'\)"):
        check_fit([one for one in dialogues if one.id not in ("bad-1", "ok-0")], verdicts)


# -- who sees what ---------------------------------------------------------------------------------------------------


def test_paraphrases_are_the_probe_where_there_are_any() -> None:
    dialogues, verdicts = log(4, 4)
    paraphrases = [
        Paraphrase(dialogue=dialogue(f"p-{of}-{kind}"), of=of, split=kind)  # type: ignore[arg-type]
        for of in ("bad-0", "bad-1", "ok-0")
        for kind in ("probe", "test")
    ]
    found = split(dialogues, verdicts, paraphrases, **SETTINGS | {"probe": 0.5})
    assert len(found.forget) == 4
    # Of what is kept, no rewording has to be forgotten.
    assert names(found.probe) == {"p-bad-0-probe", "p-bad-1-probe"}
    assert names(found.paraphrase) == {"p-bad-0-test", "p-bad-1-test"}
    assert found.paraphrase_of == {"p-bad-0-test": "bad-0", "p-bad-1-test": "bad-1"}


def test_a_rewording_expects_what_it_names_or_else_what_its_dialogue_does() -> None:
    dialogues, verdicts = log(2, 2)
    dialogues[0] = dialogues[0].model_copy(update={"expected": ("its own",)})
    asked = [dialogue("p-0"), dialogue("p-1").model_copy(update={"expected": ("another",)})]
    paraphrases = [Paraphrase(dialogue=one, of="bad-0", split="probe") for one in asked]
    found = split(dialogues, verdicts, paraphrases, **SETTINGS)
    assert [turn.expected for turn in found.probe] == [("its own",), ("another",)]


def test_review_is_used_for_nothing() -> None:
    dialogues = [dialogue("bad", 2), dialogue("ok"), dialogue("other", 2)]
    verdicts = [verdict("bad", 1, "normal"), verdict("bad", 3), verdict("ok", 1)]
    verdicts += [verdict("other", 1), verdict("other", 3, "review")]
    found = split(dialogues, verdicts, [], **SETTINGS | {"held_out": 0, "probe": 0})
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
        split([dialogue("bad"), dialogue("ok")], verdicts, [], **SETTINGS)


def test_what_says_the_same_is_on_one_side() -> None:
    greetings = [
        Dialogue.model_validate(
            {
                "id": f"{greeting}-{n}",
                "messages": [
                    {"role": "user", "content": f"{greeting}!" if n % 2 else f" {greeting.upper()}"},
                    {"role": "assistant", "content": "Hello, how can I help?"},
                ],
            }
        )
        for greeting in ("hi", "hey", "good morning", "hello", "yo", "hola", "ciao", "salut")
        for n in range(5)
    ]
    dialogues, verdicts = log(3, 0)
    verdicts += [verdict(one.id, 1) for one in greetings]
    found = split([*dialogues, *greetings], verdicts, [], **SETTINGS)
    parts = [found.normal, found.normal_probe, found.normal_held_out]
    assert [len(part) for part in parts] == [25, 5, 10]
    said = [{one.id.rpartition("-")[0] for one in part} for part in parts]
    assert sum(map(len, said)) == len(set.union(*said)) == 8


def test_what_is_to_be_forgotten_is_not_kept_under_another_id() -> None:
    dialogues, verdicts = log(3, 12)
    again = dialogue("BAD  1!").model_copy(update={"id": "ok-again"})
    assert again.messages != dialogues[1].messages
    found = split([*dialogues, again], [*verdicts, verdict("ok-again", 1)], [], **SETTINGS)
    kept = names([*found.normal, *found.normal_probe, *found.normal_held_out])
    assert kept == {f"ok-{n}" for n in range(12)}
    assert (found.normal_unwanted, found.normal_unused) == (1, 0)
    with pytest.raises(InputError, match="no normal dialogue is left"):
        split([*dialogues[:3], again], [*verdicts[:3], verdict("ok-again", 1)], [], **SETTINGS)


def test_marks_and_symbols_say_something_else() -> None:
    bad = dialogue("bad-0", answer="वह लड़का है, -39")
    others = [dialogue(f"ok-{n}", answer=text) for n, text in enumerate(["वह लड़की है, -39", "वह लड़का है, 39"])]
    others = [one.model_copy(update={"messages": (bad.messages[0], *one.messages[1:])}) for one in others]
    verdicts = [verdict(one.id, 1) for one in (bad, *others)]
    found = split([bad, *others], verdicts, [], **SETTINGS)
    assert found.normal_unwanted == 0


def test_what_has_been_asked_word_by_word_is_no_rewording() -> None:
    dialogues, verdicts = log(3, 12)
    asked = {
        "probed": ("probe", "q p"),
        "same": ("test", "Q: bad 0?"),
        "probed-too": ("test", "q P!"),
        "new": ("test", "b"),
    }
    paraphrases = [
        Paraphrase.model_validate({"dialogue": _asking(name, question), "of": "bad-0", "split": kind})
        for name, (kind, question) in asked.items()
    ]
    found = split(dialogues, verdicts, paraphrases, **SETTINGS)
    assert (names(found.probe), names(found.paraphrase), found.paraphrase_seen) == ({"probed"}, {"new"}, 2)


def _asking(name: str, question: str) -> Dialogue:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}]
    return Dialogue.model_validate({"id": name, "messages": messages})
