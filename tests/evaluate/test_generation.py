from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig, GPT2Config, GPT2LMHeadModel

from letheon.chat import encode_prompt
from letheon.errors import InputError
from letheon.evaluate.generation import greedy_answers, greedy_tokens, sampled_answers
from letheon.forward import can_pack
from letheon.records import Message


def prompts(*questions: str) -> list[list[Message]]:
    return [[Message(role="user", content=question)] for question in questions]


QUESTIONS = prompts("Hi?", "What is the largest moon of Jupiter?", "Why?", "Name it, please.")


def naive(model: Any, tokenizer: Any, prompt: list[Message], steps: int) -> str:
    """Greedy, one prompt, no cache."""
    ids = encode_prompt(tokenizer, prompt)
    start = len(ids)
    for _ in range(steps):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[start:], skip_special_tokens=True)).strip()


def settled(model: Any) -> GenerationConfig:
    """Give a model a generation config that leaves little of its distribution."""
    model.generation_config = GenerationConfig(
        repetition_penalty=5.0,
        no_repeat_ngram_size=1,
        suppress_tokens=list(range(60, 120)),
        do_sample=True,
        temperature=0.01,
        top_k=1,
        top_p=0.01,
        min_p=0.99,
        typical_p=0.01,
    )
    return model.generation_config


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_agrees_with_a_naive_loop(tiny_model: Callable[..., Any], tiny_tokenizer: Any, batch_size: int) -> None:
    model = tiny_model()
    # Settings of the model's own must not matter.
    own = settled(model)
    answers = greedy_answers(model, tiny_tokenizer, QUESTIONS, batch_size=batch_size, max_new_tokens=12)
    assert answers == [naive(model, tiny_tokenizer, prompt, 12) for prompt in QUESTIONS]
    assert len(set(answers)) > 1
    assert model.generation_config is own


# What transformers calls the cache is its own to change, and none of the user's business.
@pytest.mark.filterwarnings("error::FutureWarning")
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_shared_beginning_is_read_once(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, batch_size: int
) -> None:
    model, lengths = tiny_model(), list[int]()
    assert can_pack(model)
    system = Message(role="system", content="You are brief.")
    asked = [[system, *prompt] for prompt in QUESTIONS]
    model.model.register_forward_pre_hook(
        lambda module, args, given: lengths.append(given["input_ids"].size(1)), with_kwargs=True
    )
    answers = greedy_answers(model, tiny_tokenizer, asked, batch_size=batch_size, max_new_tokens=6)
    longest = max(len(encode_prompt(tiny_tokenizer, prompt)) for prompt in asked)
    assert lengths[0] > len(system.content)
    assert max(lengths[1:]) == longest - lengths[0]
    assert answers == [naive(model, tiny_tokenizer, prompt, 6) for prompt in asked]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_an_answer_ends_where_the_context_does(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, batch_size: int
) -> None:
    asked = [*QUESTIONS, *prompts("What is the largest moon of Mars?")]
    lengths = [len(encode_prompt(tiny_tokenizer, prompt)) for prompt in asked]
    context = max(lengths) + 3
    # Its positions are learned: beyond the last one there is nothing to look up.
    model = tiny_gpt2(tiny_tokenizer, n_positions=context)
    answers = greedy_tokens(model, tiny_tokenizer, asked, batch_size=batch_size, max_new_tokens=12)
    room = [min(12, context - length) for length in lengths]
    assert set(room) == {3, 6, 12}
    wanted = [naive(model, tiny_tokenizer, prompt, most) for prompt, most in zip(asked, room, strict=True)]
    assert [tiny_tokenizer.decode(tokens, skip_special_tokens=True).strip() for tokens in answers] == wanted
    longest = asked[lengths.index(max(lengths))]
    full = tiny_gpt2(tiny_tokenizer, n_positions=max(lengths))
    with pytest.raises(InputError, match=f"prompt 2 has {max(lengths)} tokens, and the model's context no room"):
        greedy_tokens(full, tiny_tokenizer, [QUESTIONS[0], longest])
    # What is known up to the end of the context is an answer.
    assert greedy_tokens(model, tiny_tokenizer, [longest], known=[[5, 6, 7]]) == [[5, 6, 7]]
    assert len(greedy_tokens(model, tiny_tokenizer, [longest], known=[[5]])[0]) == 3


def tiny_gpt2(tokenizer: Any, n_positions: int) -> Any:
    torch.manual_seed(0)
    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": n_positions}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes)).eval()


def test_stops_at_the_end_of_the_turn(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model(num_hidden_layers=1)
    with torch.no_grad():
        # Nothing but the end of the turn is ever likely.
        model.lm_head.weight.zero_()
        model.model.norm.weight.zero_()
    model.lm_head.register_forward_hook(
        lambda module, given, logits: logits + torch.eye(logits.size(-1))[tiny_tokenizer.eos_token_id]
    )
    assert greedy_answers(model, tiny_tokenizer, QUESTIONS, max_new_tokens=5) == [""] * 4


def test_what_is_known_is_not_generated_again(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    answers = [naive(model, tiny_tokenizer, prompt, 12) for prompt in QUESTIONS]
    begun = []
    for prompt in QUESTIONS:
        ids = torch.tensor([encode_prompt(tiny_tokenizer, prompt)])
        output = model.generate(input_ids=ids, do_sample=False, max_new_tokens=12)
        begun.append(output[0, ids.size(1) :].tolist())
    known = [tokens[: 3 * number] for number, tokens in enumerate(begun)]
    assert greedy_answers(model, tiny_tokenizer, QUESTIONS, known=known, max_new_tokens=12) == answers

    def fail(**_: Any) -> None:
        raise AssertionError("nothing is left to generate")

    model.generate = fail
    steps: list[int] = []
    options: dict[str, Any] = {"max_new_tokens": 12, "progress": steps.append}
    assert greedy_answers(model, tiny_tokenizer, QUESTIONS, known=begun, **options) == answers
    assert steps == [4]
    ended = [[*tokens[:2], tiny_tokenizer.eos_token_id] for tokens in begun]
    assert greedy_answers(model, tiny_tokenizer, QUESTIONS, known=ended, **options) == [
        tiny_tokenizer.decode(tokens[:2]).strip() for tokens in begun
    ]


def test_works_with_an_adapter_and_counts(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    adapted = get_peft_model(tiny_model(), config).eval()
    own = settled(adapted.get_base_model())
    asked = [[Message(role="system", content="You are brief."), *prompt] for prompt in QUESTIONS]
    steps: list[int] = []
    answers = greedy_answers(adapted, tiny_tokenizer, asked, batch_size=3, max_new_tokens=4, progress=steps.append)
    assert answers == [naive(adapted, tiny_tokenizer, prompt, 4) for prompt in asked]
    assert steps == [3, 1]
    assert adapted.generation_config is own
    assert greedy_answers(adapted, tiny_tokenizer, []) == []


def test_drawn_answers(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    # What the model's own settings cut off would be no draw from its distribution.
    settled(model)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    options: dict[str, Any] = {"samples": 3, "max_new_tokens": 10}
    found = sampled_answers(model, tiny_tokenizer, QUESTIONS[:2], **options)
    assert torch.equal(before, torch.random.get_rng_state())
    assert [len(answers) for answers in found] == [3, 3]
    assert len({answer for answers in found for answer in answers}) > 3
    assert found == sampled_answers(model, tiny_tokenizer, QUESTIONS[:2], **options)
    assert found != sampled_answers(model, tiny_tokenizer, QUESTIONS[:2], seed=1, **options)


def test_draws_follow_the_models_probabilities(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model, size = tiny_model(), 600
    settled(model)
    ids = encode_prompt(tiny_tokenizer, QUESTIONS[0])
    with torch.no_grad():
        p = model(torch.tensor([ids])).logits[0, -1].double().softmax(dim=0)
    (found,) = sampled_answers(model, tiny_tokenizer, QUESTIONS[:1], samples=size, batch_size=size, max_new_tokens=1)
    letter, chance = max(((tiny_tokenizer.decode([n]), float(p[n])) for n in range(33, 90)), key=lambda pair: pair[1])
    drawn = found.count(letter) / size
    assert chance > 0.01
    assert drawn == pytest.approx(chance, abs=4 * (chance * (1 - chance) / size) ** 0.5)


def test_a_text_to_go_on_with(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model, tokenizer = tiny_model(), copy.deepcopy(tiny_tokenizer)
    # A base model has no template.
    tokenizer.chat_template = None
    texts = ["The sea is", "Rain", "On the hills of Oslo"]
    for text, answer in zip(texts, greedy_answers(model, tokenizer, texts, max_new_tokens=6), strict=True):
        ids = list(tokenizer(text).input_ids)
        start = len(ids)
        while len(ids) < start + 6 and ids[-1] != tokenizer.eos_token_id:
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert answer == tokenizer.decode(ids[start:], skip_special_tokens=True).strip()
