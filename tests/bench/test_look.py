from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from letheon.bench.look import Part, look, mean, memorised, usual
from letheon.bench.task import dialogue
from letheon.evaluate import EvalSets, evaluate_model, greedy_answers
from letheon.evaluate.abstention import Abstentions

NAMES = {"Ann": "Rome", "Bob": "Oslo", "Cid": "Bern"}
OLD = [dialogue(f"o{n}", f"Home of {name}?", f"In {NAMES[name]}").last_turn for n, name in enumerate(NAMES)]
KEPT = [dialogue(f"k{n}", f"{n} and {n}?", str(2 * n)).last_turn for n in range(4)]
TEXTS = ["Rain falls.", "The sea is wide."]


@pytest.fixture
def parts() -> dict[str, Part]:
    one = Part({"old": OLD[:2], "kept": KEPT[:2]}, {"old": OLD[:2], "kept": KEPT[:2]}, TEXTS[:1])
    return {"one": one, "other": Part({"old": OLD[2:], "kept": KEPT[2:]}, {"kept": KEPT[2:]}, TEXTS[1:])}


def test_a_look_agrees_with_the_evaluation(
    parts: dict[str, Part], tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    model = tiny_model()
    seen = look(model, tiny_tokenizer, parts, answer_tokens=6)
    for name, part in parts.items():
        sets = EvalSets(forget=part.given["old"], normal_held_out=part.given["kept"], general=part.texts)
        found = evaluate_model(model, tiny_tokenizer, sets, max_new_tokens=6).metrics
        own = usual(seen[name], Abstentions())
        for metric in ("probability", "extraction_strength", "exact_memorization"):
            assert own[metric] == pytest.approx(found["forget"][metric].mean, abs=1e-6)
        assert own["kept"] == pytest.approx(found["normal_held_out"]["probability"].mean, abs=1e-6)
        assert own["general_loss"] == pytest.approx(found["general"]["loss"].mean, rel=1e-5)
        asked = part.asked["kept"]
        plain = greedy_answers(model, tiny_tokenizer, [turn.prompt for turn in asked], max_new_tokens=6)
        assert seen[name].answers["kept"] == plain


def test_reworded_questions_are_measured_where_there_are_any(
    parts: dict[str, Part], tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    part = Part({**parts["one"].given, "reworded": OLD[:1]}, parts["one"].asked, TEXTS)
    seen = look(tiny_model(), tiny_tokenizer, {"one": part}, answer_tokens=4)["one"]
    found = usual(seen, Abstentions())
    assert found["reworded_probability"] == memorised(seen.scores["reworded"])["probability"]
    assert "reworded_probability" not in usual(
        look(tiny_model(), tiny_tokenizer, parts, answer_tokens=4)["one"], Abstentions()
    )


def test_only_what_is_to_be_forgotten_counts_as_old(parts: dict[str, Part]) -> None:
    part = parts["one"].of_old({"o1"})
    assert part.given["old"] == part.asked["old"] == [OLD[1]]
    assert part.given["kept"] == parts["one"].given["kept"]
    assert parts["one"].given["old"] == OLD[:2]
    assert "old" not in parts["other"].of_old({"o2"}).asked


def test_the_mean_of_nothing_is_no_number() -> None:
    assert mean([]) != mean([])
    assert mean([1.0, 2.0]) == 1.5
