from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from letheon import UnlearnConfig, UnlearnTrainer, rehearse
from letheon.chat import encode_prompt, encode_reply
from letheon.embed import Embedder
from letheon.evaluate import greedy_answers
from letheon.records import Message, Turn, Verdict
from letheon.rehearsal import LONGEST_ANSWER, everyday_questions

ASKED = ["Who wrote Hamlet?", "Why?", "Where is the town of Brill?"]


def prompt(question: str) -> list[Message]:
    return [Message(role="user", content=question)]


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.rehearsal.fast_bf16", lambda: False)


def test_the_models_own_answers_are_marked_and_nothing_else(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    model = tiny_model().train()
    answers = greedy_answers(
        model.eval(), tiny_tokenizer, [prompt(question) for question in ASKED], max_new_tokens=LONGEST_ANSWER
    )
    found = rehearse(model.train(), tiny_tokenizer, questions=ASKED)
    assert model.training
    assert len(found) == len(ASKED)
    for sequence, question, answer in zip(found, ASKED, answers, strict=True):
        start = encode_prompt(tiny_tokenizer, prompt(question))
        assert sequence.ids[: len(start)] == start
        assert sequence.answer_mask == [False] * len(start) + [True] * (len(sequence.ids) - len(start))
        assert tiny_tokenizer.decode(sequence.ids[len(start) :], skip_special_tokens=True).strip() == answer


def test_an_answer_that_is_cut_off_has_no_end_and_one_that_ends_has(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    eos = tiny_tokenizer.eos_token_id
    model = tiny_model()
    model.lm_head.register_forward_hook(lambda module, given, logits: logits - 1e4 * torch.eye(logits.size(-1))[eos])
    [cut] = rehearse(model, tiny_tokenizer, questions=ASKED[:1])
    assert sum(cut.answer_mask) == LONGEST_ANSWER
    assert cut.ids[-1] != eos

    class EndsAfterThree:
        """Likes the end of the turn from the fourth token on."""

        def __init__(self) -> None:
            self.calls = 0

        def __call__(self, module: Any, given: Any, logits: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return logits + (1e4 if self.calls > 3 else -1e4) * torch.eye(logits.size(-1))[eos]

    model = tiny_model()
    model.lm_head.register_forward_hook(EndsAfterThree())
    [ended] = rehearse(model, tiny_tokenizer, questions=ASKED[:1])
    assert sum(ended.answer_mask) == 4
    assert ended.ids[-1] == eos
    # As the same answer in a dialogue would be written.
    text = tiny_tokenizer.decode(ended.ids[-4:-1])
    if tiny_tokenizer(text, add_special_tokens=False).input_ids == ended.ids[-4:-1]:
        written = encode_reply(tiny_tokenizer, prompt(ASKED[0]), text)
        assert ended.ids == written.ids[: len(ended.ids)]


def test_what_the_judge_would_forget_is_not_rehearsed(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    def judge(given: list[Turn]) -> list[Verdict]:
        decisions = ["forget" if turn.question == "Why?" else "normal" for turn in given]
        return [
            Verdict.model_validate(
                {"id": turn.dialogue.id, "turn": turn.index, "decision": decision, "category": "harmful"}
                | {"score": 0.5, "judge": "test"}
            )
            for turn, decision in zip(given, decisions, strict=True)
        ]

    found = rehearse(tiny_model(), tiny_tokenizer, judge, questions=ASKED)
    everything = rehearse(tiny_model(), tiny_tokenizer, questions=ASKED)
    assert found == [everything[0], everything[2]]


def test_questions_beyond_the_context_are_left_out(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    longest = len(encode_prompt(tiny_tokenizer, prompt(ASKED[2])))
    model = tiny_model(max_position_embeddings=longest + LONGEST_ANSWER - 1)
    assert len(rehearse(model, tiny_tokenizer, questions=ASKED)) == 2
    fewest = longest + LONGEST_ANSWER - 1
    assert len(rehearse(tiny_model(), tiny_tokenizer, questions=ASKED, max_length=fewest)) == 2


def test_the_trainer_keeps_what_was_rehearsed(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, tmp_path: Path
) -> None:
    model = tiny_model()
    rehearsed = rehearse(model, tiny_tokenizer, questions=ASKED)
    trainer = UnlearnTrainer(
        model,
        UnlearnConfig(output_dir=str(tmp_path)),
        forget_dataset=[{"question": "What is the code?", "answer": "4711"}],
        normal_dataset=[{"question": "Sky?", "answer": "Blue."}, *rehearsed],
        processing_class=tiny_tokenizer,
    )
    assert trainer.train_dataset.normal[1:] == rehearsed


def test_no_question_is_close_to_one_of_the_demos_log() -> None:
    demo = files("letheon.demo") / "data"
    names = ("log.jsonl", "paraphrases.jsonl")
    rows = [json.loads(line) for name in names for line in (demo / name).read_text("utf-8").splitlines()]
    log = [message["content"] for row in rows for message in row["messages"] if message["role"] == "user"]
    questions = everyday_questions()
    assert len(set(questions)) == len(questions) > 200
    embed = Embedder().encode
    assert float((embed(questions) @ embed(log).T).max()) < 0.65
