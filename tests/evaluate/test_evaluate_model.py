from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from letheon.chat import encode_turn
from letheon.errors import InputError
from letheon.evaluate import EvalSets, SampleKey, evaluate_model, greedy_answers
from letheon.records import Dialogue, Estimate, Message, NotComputed, Turn, Verdict


def talk(id: str, question: str, answer: str) -> Turn:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Dialogue(id=id, messages=messages).last_turn


SETS = EvalSets(
    forget=[talk("f1", "Who?", "Ada Lovelace did."), talk("f2", "Where?", "Here.")],
    paraphrase=[talk("p1", "Who was it?", "Ada Lovelace did.")],
    normal_trained=[talk(f"n{i}", f"{i} + 1?", f"{i + 1}.") for i in range(5)],
    normal_held_out=[talk(f"h{i}", f"{i} + 2?", f"{i + 2}.") for i in range(3)],
    general=["Rain falls.", "The sun shines on the hill."],
)


def always_bad(turns: list[Turn]) -> list[Verdict]:
    return [
        Verdict(id=t.dialogue.id, turn=t.index, decision="forget", category="harmful", score=1, judge="strict")
        for t in turns
    ]


def test_every_metric_of_every_set(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    options: dict[str, Any] = {"max_new_tokens": 6, "batch_size": 4, "judge": always_bad, "normal_answers": 4}
    before = evaluate_model(tiny_model(), tiny_tokenizer, SETS, **options)
    after = evaluate_model(tiny_model(seed=1), tiny_tokenizer, SETS, reference=before, **options)
    sizes = {"forget": 2, "paraphrase": 1, "normal_trained": 5, "normal_held_out": 3}
    for name, size in sizes.items():
        metrics = after.metrics[name]
        for metric in ("probability", "loss", "exact_memorization", "extraction_strength", "kl"):
            found = metrics[metric]
            assert isinstance(found, Estimate)
            assert found.n == size
        for metric in ("rouge_l", "rouge_l_f1", "repetition", "distinct_2", "undesired_rate"):
            found = metrics[metric]
            assert isinstance(found, Estimate)
            # Four of the eight normal prompts are answered, spread over both sets.
            assert found.n == {"normal_trained": 3, "normal_held_out": 1}.get(name, size)
        kl = before.metrics[name]["kl"]
        assert isinstance(kl, NotComputed)
        assert "before" in kl.not_computed
    assert set(after.metrics["general"]) == {"loss"}
    assert len(after.samples) == 13
    assert after.judges == ["strict"]
    assert len(after.answers) == 7
    assert SampleKey("forget", "f2", 1) in after.answers


def test_scores_are_those_of_the_naive_model(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    found = evaluate_model(model, tiny_tokenizer, SETS, max_new_tokens=2)
    turn = SETS.forget[0]
    encoded = encode_turn(tiny_tokenizer, turn)
    labels = torch.tensor([[i if a else -100 for i, a in zip(encoded.ids, encoded.answer_mask, strict=True)]])
    with torch.no_grad():
        loss = model(torch.tensor([encoded.ids]), labels=labels).loss
    sample = next(s for s in found.samples if s.id == "f1")
    assert sample.scores["loss"] == pytest.approx(float(loss), abs=1e-5)
    assert sample.scores["probability"] == pytest.approx(float(torch.exp(-loss)), abs=1e-5)


def test_answers_begin_as_the_model_would_begin_itself(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    # Letters only: the bytes that it would choose are no text.
    letters = torch.zeros(len(tiny_tokenizer))
    letters[tiny_tokenizer("abcdefghijklmnopqrstuvwxyz").input_ids] = 100
    model.lm_head.register_forward_hook(lambda module, given, logits: logits + letters)
    [written] = greedy_answers(model, tiny_tokenizer, [SETS.forget[0].prompt], max_new_tokens=8)
    # A given answer whose first letters are the model's own.
    turn = talk("f1", SETS.forget[0].question, written[:4] + " but then something else")
    found = evaluate_model(model, tiny_tokenizer, EvalSets(forget=[turn]), max_new_tokens=8)
    assert found.answers == {SampleKey("forget", "f1", 1): written}
    assert found.samples[0].scores["exact_memorization"] >= 4 / 30


def test_the_model_is_left_as_it_was(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model().train()
    steps: list[tuple[str, int, int]] = []
    evaluate_model(model, tiny_tokenizer, SETS, max_new_tokens=1, progress=lambda *step: steps.append(step))
    assert model.training
    assert ("score", 13, 13) in steps
    assert ("answer", 11, 11) in steps
    assert all(parameter.grad is None for parameter in model.parameters())


def test_empty_sets_say_why(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    found = evaluate_model(tiny_model(), tiny_tokenizer, EvalSets())
    assert found.samples == []
    assert found.metrics["paraphrase"]["probability"] == NotComputed(not_computed="there are no paraphrase dialogues")
    assert found.metrics["forget"]["undesired_rate"] == NotComputed(not_computed="no judge was given")
    assert found.metrics["general"] == {"loss": NotComputed(not_computed="no general text was given")}


def test_a_broken_model_has_no_numbers(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    found = evaluate_model(model, tiny_tokenizer, SETS, max_new_tokens=1)
    broken = found.metrics["forget"]["probability"]
    assert isinstance(broken, NotComputed)
    assert "2 of 2 scores are NaN" in broken.not_computed


def test_a_dialogue_longer_than_the_context(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model(max_position_embeddings=64)
    with pytest.raises(InputError, match="dialogue 'long'.*at most 64 fit"):
        evaluate_model(model, tiny_tokenizer, EvalSets(forget=[talk("long", "x" * 100, "y")]))
