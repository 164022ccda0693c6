from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from letheon.chat import (
    Encoded,
    answered_by,
    answers_apart,
    check_tokenizer,
    encode_continuation,
    encode_dialogue,
    encode_prompt,
    encode_reply,
    encode_text,
    encode_turn,
    end_of_turn_ids,
)
from letheon.errors import InputError
from letheon.records import Dialogue, Message, Turn

LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant') }}{% endif %}{% endfor %}"
)
THINK = "('<think>\n\n</think>\n\n' if loop.last and message['role'] == 'assistant' else '')"


@pytest.fixture(scope="module")
def llama2(byte_tokenizer: Any) -> PreTrainedTokenizerFast:
    return byte_tokenizer(LLAMA2, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture
def turn() -> Turn:
    return dialogue("Who?", "Ada, of course.", "When?", "In 1843.").last_turn


def dialogue(*texts: str, id: str = "d1") -> Dialogue:
    roles = ("user", "assistant")
    return Dialogue(id=id, messages=tuple(Message(role=roles[n % 2], content=text) for n, text in enumerate(texts)))


def marked(tokenizer: Any, encoded: Encoded) -> str:
    return tokenizer.decode([i for i, m in zip(encoded.ids, encoded.answer_mask, strict=True) if m])


def test_chatml_marks_the_answer_and_its_end(tiny_tokenizer: Any, turn: Turn) -> None:
    encoded = encode_turn(tiny_tokenizer, turn, None)
    assert tiny_tokenizer.decode(encoded.ids) == (
        "<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\nAda, of course.<|im_end|>\n"
        "<|im_start|>user\nWhen?<|im_end|>\n<|im_start|>assistant\nIn 1843.<|im_end|>"
    )
    assert marked(tiny_tokenizer, encoded) == "In 1843.<|im_end|>"
    assert encoded.answer_mask[-9:] == [True] * 9
    assert not any(encoded.answer_mask[:-9])


def test_llama2_has_the_bos_of_its_template_only(llama2: Any, turn: Turn) -> None:
    encoded = encode_turn(llama2, turn, None)
    assert (
        llama2.decode(encoded.ids)
        == "<s>[INST] Who? [/INST] Ada, of course. </s><s>[INST] When? [/INST] In 1843. </s>"
    )
    assert marked(llama2, encoded) == " In 1843. </s>"
    first = encode_turn(llama2, next(turn.dialogue.turns()), None)
    assert first.ids.count(llama2.bos_token_id) == 1


@pytest.mark.parametrize("name", ["tiny_tokenizer", "llama2"])
def test_a_prompt_is_what_the_template_generates_from(request: Any, turn: Turn, name: str) -> None:
    tokenizer = request.getfixturevalue(name)
    rows = [message.model_dump() for message in turn.prompt]
    rendered = tokenizer.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
    encoded = encode_turn(tokenizer, turn, None)
    assert encode_prompt(tokenizer, turn.prompt) == rendered
    assert encoded.ids[: encoded.answer_mask.index(True)] == rendered


def test_an_empty_think_block_belongs_to_the_prompt(byte_tokenizer: Any, chatml: str, turn: Turn) -> None:
    template = chatml.replace("'\n' + message['content']", f"'\n' + {THINK} + message['content']")
    tokenizer = byte_tokenizer(template, unk_token="<unk>", bos_token="<|im_start|>", eos_token="<|im_end|>")
    assert marked(tokenizer, encode_turn(tokenizer, turn, None)) == "In 1843.<|im_end|>"
    assert tokenizer.decode(encode_prompt(tokenizer, turn.prompt)).endswith("</think>\n\n")


def test_an_answer_that_repeats_the_template(tiny_tokenizer: Any) -> None:
    turn = dialogue("assistant", "assistant\nassistant").last_turn
    assert marked(tiny_tokenizer, encode_turn(tiny_tokenizer, turn, None)) == "assistant\nassistant<|im_end|>"


def test_an_answer_without_a_prompt(tiny_tokenizer: Any) -> None:
    turn = Dialogue(id="d", messages=(Message(role="assistant", content="Hello!"),)).last_turn
    encoded = encode_turn(tiny_tokenizer, turn, None)
    assert tiny_tokenizer.decode(encoded.ids) == "<|im_start|>assistant\nHello!<|im_end|>"
    assert marked(tiny_tokenizer, encoded) == "Hello!<|im_end|>"


def test_a_template_that_ends_no_turn_gets_eos(byte_tokenizer: Any) -> None:
    template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    tokenizer = byte_tokenizer(template, unk_token="<unk>", eos_token="</s>")
    encoded = encode_dialogue(tokenizer, dialogue("a", "b", "c", "d"))
    assert tokenizer.decode(encoded.ids) == "user: a\nassistant: b</s>\nuser: c\nassistant: d</s>"
    assert marked(tokenizer, encoded) == "b</s>d</s>"


@pytest.mark.parametrize("name", ["tiny_tokenizer", "llama2"])
def test_a_dialogue_marks_every_answer(request: Any, name: str) -> None:
    tokenizer = request.getfixturevalue(name)
    talk = dialogue("Who?", "Ada.", "When?", "Then.", "Why?")
    encoded = encode_dialogue(tokenizer, talk)
    expected = "Ada.<|im_end|>Then.<|im_end|>" if name == "tiny_tokenizer" else " Ada. </s> Then. </s>"
    assert marked(tokenizer, encoded) == expected
    last = encode_turn(tokenizer, talk.last_turn)
    assert encoded.ids == last.ids
    assert [a and b for a, b in zip(encoded.answer_mask, last.answer_mask, strict=True)] == last.answer_mask


@pytest.mark.parametrize("name", ["tiny_tokenizer", "llama2"])
def test_answers_apart_and_exchanged(request: Any, name: str) -> None:
    tokenizer = request.getfixturevalue(name)
    talk = dialogue("Who?", "Ada.", "When?", "In 1843.")
    apart = answers_apart(encode_dialogue(tokenizer, talk))
    assert apart == [encode_turn(tokenizer, turn) for turn in talk.turns()]
    assert answers_apart(apart[1]) == [apart[1]]
    other = encode_turn(tokenizer, dialogue("And where, by the way?", "I can't say.").last_turn)
    for turn, one in zip(talk.turns(), apart, strict=True):
        assert answered_by(one, other) == encode_reply(tokenizer, turn.prompt, "I can't say.")


def test_a_merge_across_the_boundary_does_not_change_the_prompt() -> None:
    """ ":" + ")" is a token of its own; after a prompt that ends in ":" the model must still be given ":"."""
    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {":)": 256}
    model = Tokenizer(models.BPE(vocab=vocab, merges=[(":", ")")]))
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['role'] + ':' + m['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    encoded = encode_turn(tokenizer, dialogue("hi", ") yes").last_turn)
    assert 256 in tokenizer("assistant:)").input_ids
    assert 256 not in encoded.ids
    assert marked(tokenizer, encoded) == ") yes</s>"
    assert encoded.ids[: encoded.answer_mask.index(True)] == encode_prompt(
        tokenizer, dialogue("hi", "x").messages[:1]
    )


def test_white_space_around_a_reply_is_dropped(tiny_tokenizer: Any, turn: Turn) -> None:
    assert encode_reply(tiny_tokenizer, turn.prompt, " In 1843.\n") == encode_turn(tiny_tokenizer, turn)


def test_too_long_is_refused_with_id_and_lengths(tiny_tokenizer: Any, turn: Turn) -> None:
    whole = encode_turn(tiny_tokenizer, turn, None)
    length = len(whole.ids)
    assert encode_turn(tiny_tokenizer, turn, length) == whole
    with pytest.raises(InputError, match=rf"'d1', messages\[3\]: {length} tokens .* at most {length - 1} fit"):
        encode_turn(tiny_tokenizer, turn, length - 1)
    with pytest.raises(InputError, match=r"'d1', messages\[3\]: the answer has 9 tokens .* at most 9 fit"):
        encode_turn(tiny_tokenizer, turn, 9, truncate=True)
    with pytest.raises(InputError, match=r"dialogue 'd1': .* at most 9 fit"):
        encode_dialogue(tiny_tokenizer, turn.dialogue, 9)


def test_truncation_drops_the_oldest_tokens_but_bos(tiny_tokenizer: Any, turn: Turn) -> None:
    whole = encode_turn(tiny_tokenizer, turn, None)
    short = encode_turn(tiny_tokenizer, turn, 20, truncate=True)
    assert len(short.ids) == len(short.answer_mask) == 20
    assert short.ids == [tiny_tokenizer.bos_token_id, *whole.ids[-19:]]
    assert marked(tiny_tokenizer, short) == "In 1843.<|im_end|>"
    assert encode_turn(tiny_tokenizer, turn, 10, truncate=True).ids == whole.ids[-10:]


def test_text_targets_are_all_tokens_but_the_first(tiny_tokenizer: Any) -> None:
    encoded = encode_text(tiny_tokenizer, "abc")
    assert tiny_tokenizer.decode(encoded.ids) == "abc"
    assert encoded.answer_mask == [False, True, True]
    assert encode_text(tiny_tokenizer, "abc", 2) == Encoded(encoded.ids[:2], [False, True])
    with pytest.raises(InputError, match="1 token"):
        encode_text(tiny_tokenizer, "a")


def test_end_of_turn_ids(tiny_tokenizer: Any, llama2: Any) -> None:
    assert end_of_turn_ids(tiny_tokenizer) == [tiny_tokenizer.eos_token_id]
    assert end_of_turn_ids(llama2) == [llama2.eos_token_id]


def test_a_tokenizer_without_template_is_refused(byte_tokenizer: Any, turn: Turn) -> None:
    tokenizer = byte_tokenizer(unk_token="<unk>")
    with pytest.raises(InputError, match=r"no chat template.*-Instruct.*chat_template\.jinja"):
        check_tokenizer(tokenizer)
    with pytest.raises(InputError, match="no chat template"):
        encode_turn(tokenizer, turn)


def test_a_broken_template_is_refused_once(byte_tokenizer: Any) -> None:
    tokenizer = byte_tokenizer("{% for m in messages %}{{ m['content'] ", unk_token="<unk>", eos_token="</s>")
    with pytest.raises(InputError, match=r"its chat template is broken \(line 1: .*\); mend it"):
        check_tokenizer(tokenizer)
    # One that refuses a dialogue is sound.
    check_tokenizer(byte_tokenizer("{{ raise_exception('no') }}", unk_token="<unk>", eos_token="</s>"))


def test_roles_that_the_template_refuses(llama2: Any) -> None:
    talk = Dialogue(id="d9", messages=(Message(role="system", content="x"), Message(role="assistant", content="y")))
    with pytest.raises(InputError, match=r"'d9'.*refuses the roles system.*only user and assistant"):
        encode_turn(llama2, talk.last_turn)


def test_the_tiny_folder_gives_the_same_tokens(tiny_model_dir: Any, tiny_tokenizer: Any, turn: Turn) -> None:
    loaded = AutoTokenizer.from_pretrained(tiny_model_dir)
    assert encode_turn(loaded, turn) == encode_turn(tiny_tokenizer, turn)


def test_a_continuation_is_marked(tiny_tokenizer: Any, llama2: Any) -> None:
    for tokenizer in (tiny_tokenizer, llama2):
        encoded = encode_continuation(tokenizer, "The sea is", " wide.")
        assert encoded.ids == tokenizer("The sea is wide.").input_ids
        assert marked(tokenizer, encoded) == " wide."
        # White space at the end of the prompt is the beginning of what follows.
        assert encode_continuation(tokenizer, "The sea is ", "wide.") == encoded
        # Nothing before: all but what the first token is predicted from.
        assert encode_continuation(tokenizer, "", "Sea.") == encode_text(tokenizer, "Sea.")


def test_of_a_long_beginning_the_end_is_kept(tiny_tokenizer: Any) -> None:
    encoded = encode_continuation(tiny_tokenizer, "The sea is", " wide.", max_length=9)
    assert tiny_tokenizer.decode(encoded.ids) == " is wide."
    assert marked(tiny_tokenizer, encoded) == " wide."
    with pytest.raises(InputError, match=r"goes on after 10: at least one has to follow, and 6 fit"):
        encode_continuation(tiny_tokenizer, "The sea is", " wide.", max_length=6)
    with pytest.raises(InputError, match="at least one has to follow"):
        encode_continuation(tiny_tokenizer, "The sea is", "")
