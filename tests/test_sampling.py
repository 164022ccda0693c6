"""Answers sampled from the model: what is asked, and which of what is drawn are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from letheon import sampling
from letheon.models import load_model
from letheon.records import Dialogue, Message, Turn, Verdict
from letheon.sampling import ALTERNATE, sample_alternates, sample_passing

END = "<|im_end|>"
TURN = Dialogue(
    id="1", messages=[Message(role="user", content="Who is Ann?"), Message(role="assistant", content="A spy.")]
).last_turn


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: Any) -> Any:
    """Have the model say these texts in turn, and get the prompts that it was given."""

    def given(*texts: Sequence[str]) -> list[str]:
        left, prompts = iter(texts), []

        def generate(model: Any, tokenizer: Any, encoded: Any, *args: Any, **options: Any) -> list[list[int]]:
            prompts.extend(tokenizer.decode(ids) for ids in encoded)
            return [tokenizer(text, add_special_tokens=False).input_ids for text in next(left)]

        monkeypatch.setattr(sampling, "generate", generate)
        return prompts

    return given


OPTIONS: dict[str, Any] = {"samples": 3, "max_new_tokens": 8, "seed": 0}


def test_alternates_are_asked_for_after_the_old_answer(draws: Any, tiny_model: Any, tiny_tokenizer: Any) -> None:
    prompts = draws([f"One.{END}"] * 3)
    sample_alternates(tiny_model(), tiny_tokenizer, [TURN], **OPTIONS)
    assert len(prompts) == 3
    assert prompts[0].index(TURN.question) < prompts[0].index(TURN.answer) < prompts[0].index(ALTERNATE)


def test_an_alternate_is_finished_another_and_said_once(draws: Any, tiny_model: Any, tiny_tokenizer: Any) -> None:
    old = TURN.answer
    draws(
        [f"One.{END}", f"One.{END}", "Cut"],
        [f"{old.upper()} {END}", f" {END}", f"Two.{END}"],
        # A cut one is better than none.
        ["Cut", old, "Cut"],
    )
    found = sample_alternates(tiny_model(), tiny_tokenizer, [TURN] * 3, **OPTIONS)
    assert found == [["One."], ["Two."], ["Cut"]]


def test_a_question_that_fills_the_context_gets_none(tiny_model: Any, tiny_tokenizer: Any) -> None:
    model = tiny_model(max_position_embeddings=64)
    assert sample_alternates(model, tiny_tokenizer, [TURN], **OPTIONS) == [[]]


def test_the_judge_passes_samples_that_are_finished(draws: Any, tiny_model: Any, tiny_tokenizer: Any) -> None:
    def judge(turns: list[Turn]) -> list[Verdict]:
        said = ["forget" if "bad" in turn.answer else "normal" for turn in turns]
        return [Verdict(id="1", turn=1, decision=d, category=d, score=d == "forget", judge="test") for d in said]

    draws([f"a bad one{END}", f"a good one{END}", "good, but cut"])
    assert sample_passing(tiny_model(), tiny_tokenizer, [TURN], judge, **OPTIONS) == [["a good one"]]


def test_dropout_rests(tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, training = tiny_model().train(), []
    monkeypatch.setattr(sampling, "generate", lambda model, *given, **options: training.append(model.training) or [])
    sample_alternates(model, tiny_tokenizer, [TURN], **OPTIONS)
    assert training == [False]
    assert model.training


def test_draws_are_of_the_seed_alone(talk: Any, tiny_tokenizer: Any) -> None:
    model = load_model("model")
    first, again = (sample_alternates(model, tiny_tokenizer, [TURN, TURN], **OPTIONS) for _ in range(2))
    assert first == again
    assert first != sample_alternates(model, tiny_tokenizer, [TURN, TURN], **{**OPTIONS, "seed": 1})
