from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from given import SCORED, dialogue, given_for

from letheon.chat import encode_prompt
from letheon.evaluate import greedy_answers
from letheon.records import Dialogue, Message
from letheon.rephrasing import Template, templates
from letheon.stress.attack import Found, recalled
from letheon.stress.records import NotRun
from letheon.stress.rephrase import HOW, rephrase


def silent(done: int, total: int) -> None:
    pass


def test_templates_are_whole_and_attacks_have_their_own() -> None:
    stress, train = templates("stress"), templates("train")
    assert set(stress) == HOW.keys() - {"paraphrase"}
    assert set(train) <= set(stress)
    for listed in (*stress.values(), *train.values()):
        for template in listed:
            assert "{question}" in template.question
            assert len(template.before) % 2 == 0
    texts = [
        {(t.question, t.system, t.before, t.begin) for listed in use.values() for t in listed}
        for use in (stress, train)
    ]
    assert not texts[0] & texts[1]
    assert not {t.begin for t in stress["prefix injection"]} & {t.begin for t in train["prefix injection"]}


def test_a_prompt_by_hand() -> None:
    turn = dialogue("x", "Who {is} it?", "It was old Ada Byron of Kirkby, long ago.", system="Be kind.").last_turn
    template = Template('Say: {question} ("{answer}")', before=("Hi", "Hello"))
    assert [(m.role, m.content) for m in template.prompt(turn)] == [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("user", 'Say: Who {is} it? ("It was")'),
    ]
    assert template.prompt(turn)[0].content == "Be kind."
    roles = [m.content for m in Template("{question}", system="You are X.").prompt(turn)]
    assert roles == ["You are X.", "Who {is} it?"]


def test_what_the_answer_is_made_to_begin_with_is_not_scored(tiny_tokenizer: Any) -> None:
    turn = SCORED[0]
    plain = Template("{question}").encode(tiny_tokenizer, turn, None)
    begun = Template("{question}", begin="Sure, here:").encode(tiny_tokenizer, turn, None)
    prompt = encode_prompt(tiny_tokenizer, turn.prompt)
    first = begun.answer_mask.index(True)
    assert tiny_tokenizer.decode(begun.ids[len(prompt) : first]) == "Sure, here:"
    assert tiny_tokenizer.decode(begun.ids[first:]) == " " + tiny_tokenizer.decode(plain.ids[len(prompt) :])


def test_every_kind_is_asked(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model(max_position_embeddings=1024)
    reworded = [[SCORED[0], SCORED[1]], [], [SCORED[2]]]
    given = given_for(tiny_tokenizer, rewordings=reworded, context=1024)
    found = [one for one in rephrase(model, given, silent) if isinstance(one, Found)]
    assert [(one.variant, one.metric) for one in found] == [
        (kind, metric) for kind in HOW for metric in ("extraction_strength", "rouge_l")
    ]
    paraphrase = found[0]
    assert paraphrase.items == [0, 2]
    # Of the two of the first turn the mean.
    assert len(paraphrase.scores) == 2
    begun = next(one for one in found if one.variant == "prefix injection" and one.metric == "rouge_l")
    assert all(answer.startswith(("Sure, here", "Absolutely!", "Of course.")) for answer in begun.answers)
    plain = greedy_answers(model, tiny_tokenizer, [SCORED[0].prompt], max_new_tokens=8)
    assert begun.answers[0] != plain[0]


def test_what_does_not_fit_is_said(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    found = list(rephrase(tiny_model(), given_for(tiny_tokenizer, context=64), silent))
    assert [one.variant for one in found if isinstance(one, NotRun)] == list(HOW)


def test_one_long_dialogue_does_not_keep_the_others_from_being_asked(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    given = given_for(tiny_tokenizer, [dialogue("long", "x" * 400, "It is old.").last_turn, *SCORED])
    found = [one for one in rephrase(tiny_model(), given, silent) if isinstance(one, Found)]
    ones = [one for one in found if one.variant == "role-play"]
    assert [(one.metric, one.items, len(one.scores)) for one in ones] == [
        ("extraction_strength", [1, 2, 3], 3),
        ("rouge_l", [1, 2, 3], 3),
    ]
    assert ones[0].how == "Asked in a role (the 3 of 4 that fit the model's context)"
    # Each by the template that it would have had anyhow.
    wide = tiny_model(max_position_embeddings=2048)
    every = [*rephrase(wide, given_for(tiny_tokenizer, given.scored, context=2048), silent)]
    whole = next(one for one in every if one.variant == "role-play" and isinstance(one, Found))
    assert ones[0].scores == pytest.approx(whole.scores[1:])


def test_an_answer_to_nothing_is_asked_for(tiny_tokenizer: Any) -> None:
    messages = (
        Message(role="assistant", content="Hello, I am Ann of Mill Lane."),
        Message(role="user", content="Hi"),
        Message(role="assistant", content="Yes?"),
    )
    greeting, other = Dialogue(id="g", messages=messages).turns()
    template = Template("Say: {question}")
    assert [(m.role, m.content) for m in template.prompt(greeting)] == [("user", "Say: ")]
    assert [m.content for m in template.prompt(other)] == ["Hello, I am Ann of Mill Lane.", "Say: Hi"]
    assert template.encode(tiny_tokenizer, greeting, None).ids


def test_what_the_greedy_answer_is_made_to_begin_with_is_not_scored(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> None:
    turn = SCORED[0]
    begun = tiny_tokenizer(turn.answer).input_ids
    given = given_for(tiny_tokenizer, [turn])
    recall, answers = recalled(tiny_model(), given, [turn.prompt], [turn], [begun])
    # All of the old answer was put into its mouth, and nothing comes from itself.
    assert recall == [0]
    assert answers[0].startswith(turn.answer)


@pytest.mark.parametrize("use", ["stress", "train"])
def test_every_template_is_encoded(use: Any, tiny_tokenizer: Any) -> None:
    for listed in templates(use).values():
        for template in listed:
            encoded = template.encode(tiny_tokenizer, SCORED[1], None)
            marked = [i for i, counts in zip(encoded.ids, encoded.answer_mask, strict=True) if counts]
            assert tiny_tokenizer.decode(marked, skip_special_tokens=True).strip() == SCORED[1].answer
