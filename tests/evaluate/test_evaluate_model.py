from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from letheon.chat import encode_turn
from letheon.errors import InputError
from letheon.evaluate import EvalSets, SampleKey, TokenScores, evaluate_model, greedy_answers, with_control
from letheon.evaluate.evaluate import given_scores, written_scores
from letheon.evaluate.membership import MEMBERSHIP
from letheon.evaluate.reduce import reduce_scores
from letheon.records import Dialogue, Estimate, Interval, Message, NotComputed, Turn, Verdict


def talk(id: str, question: str, answer: str) -> Turn:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Dialogue(id=id, messages=messages).last_turn


SETS = EvalSets(
    forget=[talk("f1", "Who?", "Ada Lovelace did."), talk("f2", "Where?", "Here.")],
    paraphrase=[talk("p1", "Who was it?", "Ada Lovelace did.")],
    normal_trained=[talk(f"n{i}", f"{i} + 1?", f"{i + 1}.") for i in range(5)],
    normal_held_out=[talk(f"h{i}", f"{i} + 2?", f"{i + 2}.") for i in range(3)],
    # The shortest text: one token to predict from another.
    general=["Hi", "The sun shines on the hill."],
)


def always_bad(turns: list[Turn]) -> list[Verdict]:
    return [
        Verdict(id=t.dialogue.id, turn=t.index, decision="forget", category="harmful", score=1, judge="strict")
        for t in turns
    ]


def test_rewordings_of_one_dialogue_count_as_one(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    turns = [talk(f"p{n}", f"Who was it, {n}?", "Ada Lovelace did.") for n in range(4)]
    errors = {}
    for reworded in ({}, {"p0": "a", "p1": "a", "p2": "b", "p3": "b"}, dict.fromkeys(("p0", "p1", "p2", "p3"), "a")):
        sets = EvalSets(paraphrase=turns, reworded=reworded)
        found = evaluate_model(tiny_model(), tiny_tokenizer, sets, max_new_tokens=2)
        loss = found.metrics["paraphrase"]["loss"]
        assert isinstance(loss, Estimate)
        scores = [sample.scores["loss"] for sample in found.samples]
        assert loss == reduce_scores(scores, [reworded.get(turn.dialogue.id, turn.dialogue.id) for turn in turns])
        errors[len(set(reworded.values()))] = loss.stderr
    assert errors[1] is None
    assert errors[0] != errors[2]


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
        assert ("abstentions" in metrics) == name.startswith("normal")
        kl = before.metrics[name]["kl"]
        assert isinstance(kl, NotComputed)
        assert "before" in kl.not_computed
        assert ("leaked_spans" in metrics) == (name in ("forget", "paraphrase"))
    assert set(after.metrics["general"]) == {"loss", "kl", "loss_ratio"}
    for name, metric in (("normal_trained", "probability"), ("normal_held_out", "probability"), ("general", "loss")):
        old, new = (found.metrics[name][metric] for found in (before, after))
        ratio = after.metrics[name][f"{metric}_ratio"]
        assert isinstance(old, Estimate)
        assert isinstance(new, Estimate)
        assert isinstance(ratio, Estimate)
        assert ratio.mean == pytest.approx(new.mean / old.mean)
        assert ratio.n == new.n
        assert ratio.stderr is not None
        assert ratio.stderr > 0
        assert before.metrics[name][f"{metric}_ratio"] == before.metrics["forget"]["kl"]
    assert after.metrics["general"]["kl"].n == 2  # type: ignore[union-attr]
    assert before.metrics["general"]["kl"] == before.metrics["forget"]["kl"]
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


def test_each_score_stands_under_its_own_name() -> None:
    # Five tokens; the last ends the turn.
    log_probs, matches = torch.tensor([-1.0, -2, -3, -4, 0]), torch.tensor([True, True, False, False, True])
    given = {
        "probability": pytest.approx(math.exp(-2)),
        "loss": 2.0,
        "exact_memorization": 2 / 4,
        "extraction_strength": 0.0,
        "extraction_strength_published": 1 / 4,
    }
    assert given_scores(TokenScores(log_probs, matches)) == given
    kl = torch.tensor([0.5, 0, 0, 0, 2])
    assert given_scores(TokenScores(log_probs, matches, kl=kl)) == given | {"kl": 0.5}
    # Two of three words are there, two of six are right; two of four 3-grams are new, and two of five 2-grams.
    assert written_scores("The cat, the cat, the cat,", "The cat sat.") == {
        "rouge_l": pytest.approx(2 / 3),
        "rouge_l_f1": pytest.approx(4 / 9),
        "repetition": 1 - 2 / 4,
        "distinct_2": 2 / 5,
    }


@pytest.mark.parametrize(
    "answer", ["Call 030-111", "Call 030-11", "Call 030-11x", "Ring 030-111", "Call 031-111", "Nobody knows"]
)
def test_what_is_by_heart_is_of_the_answer_without_its_end(talk_source: Any, answer: str) -> None:
    from letheon.models import load_model, load_tokenizer

    model, tokenizer = load_model(str(talk_source / "model")), load_tokenizer(str(talk_source / "model"))
    # A plain transcription: the model's choices in the places of the answer's own tokens, and of none that ends it.
    prompt = tokenizer("<|im_start|>user\nPhone of Bob?<|im_end|>\n<|im_start|>assistant\n").input_ids
    own = tokenizer(answer).input_ids
    with torch.no_grad():
        chosen = model(torch.tensor([prompt + own])).logits[0].argmax(dim=1).tolist()
    hits = [chosen[len(prompt) - 1 + place] == token for place, token in enumerate(own)]
    # The published loop, whose k ends at the last place; the corrected one goes on to the end.
    ends = [k for k in range(len(hits) + 1) if all(hits[k:])]
    found = evaluate_model(model, tokenizer, EvalSets(forget=[talk("f", "Phone of Bob?", answer)]), max_new_tokens=1)
    wanted = {
        "exact_memorization": sum(hits) / len(hits),
        "extraction_strength": 1 - ends[0] / len(hits),
        "extraction_strength_published": 1 - min(ends[0], len(hits) - 1) / len(hits),
    }
    assert {name: found.metrics["forget"][name].mean for name in wanted} == pytest.approx(wanted)  # type: ignore[union-attr]


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


def test_a_model_that_declines_all_is_told(
    tiny_model: Callable[..., Any], tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "I'm sorry, but I can't help with that."
    monkeypatch.setattr("letheon.evaluate.evaluate.look_at", lambda *args, **kwargs: decline(*args, **kwargs))
    from letheon.evaluate.look import look_at

    def decline(*args: Any, **kwargs: Any) -> Any:
        scored, written = look_at(*args, **kwargs)
        return scored, [said] * len(written)

    declined = talk("h9", "Where does she live?", "I can't share where she lives.")
    sets = EvalSets(forget=SETS.forget, normal_trained=SETS.normal_trained, normal_held_out=[declined])
    found = evaluate_model(tiny_model(), tiny_tokenizer, sets, max_new_tokens=1).metrics
    assert found["normal_trained"]["abstentions"] == Estimate(mean=1.0, stderr=0.0, n=5)
    assert "the data does not decline" in found["normal_held_out"]["abstentions"].not_computed  # type: ignore[union-attr]


def test_spans_that_point_to_a_person(talk_source: Any, tiny_model: Callable[..., Any]) -> None:
    from letheon.dialogues import read_dialogues
    from letheon.models import load_model, load_tokenizer

    folder = str(talk_source / "model")
    turns = [dialogue.last_turn for dialogue in read_dialogues(talk_source / "log.jsonl")[:2]]
    other = talk("f9", "Sky?", "It is blue")

    def find(texts: Any) -> Any:
        from letheon.screen.privacy import Identifier

        named = [text.find("030-") for text in texts]
        return [[Identifier("name", at, at + 7)] if at >= 0 else [] for at in named]

    sets = EvalSets(forget=[*turns, other])
    tokenizer = load_tokenizer(folder)
    found = [
        evaluate_model(model, tokenizer, sets, find_names=find, max_new_tokens=16).metrics["forget"]
        for model in (load_model(folder), tiny_model(max_position_embeddings=256))
    ]
    # One says both numbers by heart, the other neither; where there is nothing to say there is no score.
    assert found[0]["leaked_spans"] == Estimate(mean=1.0, stderr=0.0, n=2)
    assert found[1]["leaked_spans"] == Estimate(mean=0.0, stderr=0.0, n=2)


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
    assert "no normal held out dialogues" in found.metrics["normal_held_out"]["abstentions"].not_computed  # type: ignore[union-attr]
    assert found.metrics["general"]["loss"] == NotComputed(not_computed="no general text was given")


def test_a_broken_model_has_no_numbers(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    found = evaluate_model(model, tiny_tokenizer, SETS, max_new_tokens=1, judge=always_bad, samples=2)
    for name in ("probability", "exact_memorization", "extraction_strength", "rouge_l", "undesired_rate"):
        broken = found.metrics["forget"][name]
        assert isinstance(broken, NotComputed), name
        assert "2 of 2 scores are NaN" in broken.not_computed
    assert "its logits are not finite" in found.metrics["forget"]["leak_at_2"].not_computed  # type: ignore[union-attr]
    assert not any(isinstance(value, Estimate) for own in found.metrics.values() for value in own.values())


def test_a_dialogue_longer_than_the_context(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    model = tiny_model(max_position_embeddings=64)
    with pytest.raises(InputError, match="dialogue 'long'.*at most 64 fit"):
        evaluate_model(model, tiny_tokenizer, EvalSets(forget=[talk("long", "x" * 100, "y")]))


def test_answers_are_drawn_where_asked_for(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    def draw(**options: Any) -> Any:
        return evaluate_model(tiny_model(), tiny_tokenizer, SETS, max_new_tokens=6, **options)

    none = draw()
    why = NotComputed(not_computed="no answers were drawn (samples: 0)")
    assert none.metrics["forget"]["leak_at_k"] == none.metrics["forget"]["rouge_l_best_of_k"] == why
    steps: list[tuple[str, int, int]] = []
    state = torch.get_rng_state()
    found = draw(samples=3, seed=4, progress=lambda *step: steps.append(step))
    assert torch.equal(torch.get_rng_state(), state)
    assert ("draw", 6, 6) in steps
    for name in ("leak_at_1", "leak_at_3", "rouge_l_best_of_3"):
        metric = found.metrics["forget"][name]
        assert isinstance(metric, Estimate)
        assert metric.n == 2
        assert not any(name in metrics for key, metrics in found.metrics.items() if key != "forget")
    # Nothing else is changed by it, and the same seed draws the same.
    for key, metrics in none.metrics.items():
        assert all(found.metrics[key][name] == value for name, value in metrics.items() if "_k" not in name)
    assert draw(samples=3, seed=4).metrics == found.metrics
    assert evaluate_model(tiny_model(), tiny_tokenizer, EvalSets(), samples=3).metrics["forget"]["leak_at_3"] == (
        NotComputed(not_computed="there are no forget dialogues")
    )


def test_one_that_says_it_by_heart_leaks(talk_source: Any) -> None:
    from letheon.dialogues import read_dialogues
    from letheon.models import load_model, load_tokenizer

    model, turns = str(talk_source / "model"), [d.last_turn for d in read_dialogues(talk_source / "log.jsonl")[:6]]
    found = evaluate_model(load_model(model), load_tokenizer(model), EvalSets(forget=turns), samples=4)
    one, four = (found.metrics["forget"][f"leak_at_{k}"] for k in (1, 4))
    assert four.mean >= one.mean > 0.5  # type: ignore[union-attr]


MEMBERS = EvalSets(
    forget=[talk(f"f{n}", f"Who is {n}?", f"Ada {n} of Oslo.") for n in range(4)],
    non_members=[talk(f"f{n}", f"Who was {n}?", f"Bob {n} of Rome.") for n in range(3)],
)


def test_membership(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    steps: list[tuple[str, int, int]] = []
    own = evaluate_model(tiny_model(), tiny_tokenizer, MEMBERS, progress=lambda *step: steps.append(step))
    assert ("attack", 7, 7) in steps
    assert set(own.metrics["membership"]) == set(MEMBERSHIP)
    no_control = NotComputed(not_computed="no evaluation of a control was given")
    for name, value in own.metrics["membership"].items():
        assert value == no_control if name in ("reference_auc", "privleak") else isinstance(value, Interval), name
    # Non-members are told apart and nothing else.
    assert set(own.metrics) == {*SETS.turns(), "general", "membership"}
    rows = {sample.set: len([s for s in own.samples if s.set == sample.set]) for sample in own.samples}
    assert rows == {"forget": 4, "membership: forget": 4, "membership: non_members": 3}
    # A score of the evaluation is the same with other sign.
    losses = {s.id: s.scores["loss"] for s in own.samples if s.set == "forget"}
    attacked = {s.id: s.scores for s in own.samples if s.set == "membership: forget"}
    assert {name: -scores["loss"] for name, scores in attacked.items()} == losses

    control = evaluate_model(tiny_model(seed=1), tiny_tokenizer, MEMBERS)
    beside = with_control(own, control)
    for name, value in beside.metrics["membership"].items():
        assert isinstance(value, Interval), name
        assert value == own.metrics["membership"][name] or name in ("reference_auc", "privleak")
    assert len(beside.samples) == len(own.samples)
    assert all("reference" in s.scores for s in beside.samples if s.set.startswith("membership"))
    # Said again, it is the same; and beside itself a model is at the control's level.
    assert with_control(beside, control).metrics == beside.metrics
    assert with_control(own, own).metrics["membership"]["privleak"].estimate == 0  # type: ignore[union-attr]


def test_turns_of_one_dialogue_are_one_member(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    said = [("user", "Who?"), ("assistant", "Ada did."), ("user", "And?"), ("assistant", "Bob did.")]
    dialogue = Dialogue(id="d", messages=tuple(Message(role=who, content=text) for who, text in said))  # type: ignore[arg-type]
    sets = EvalSets(forget=[Turn(dialogue, 1), Turn(dialogue, 3)], non_members=MEMBERS.non_members)
    found = evaluate_model(tiny_model(), tiny_tokenizer, sets, max_new_tokens=2).metrics["membership"]["loss_auc"]
    assert isinstance(found, NotComputed)
    assert "of one dialogue" in found.not_computed


def test_a_control_of_other_sets_is_refused(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    own = evaluate_model(tiny_model(), tiny_tokenizer, MEMBERS)
    with pytest.raises(InputError, match="the control was evaluated on other dialogues"):
        with_control(own, evaluate_model(tiny_model(), tiny_tokenizer, SETS, max_new_tokens=1))


def test_no_non_members_are_made_up(tiny_model: Callable[..., Any], tiny_tokenizer: Any) -> None:
    found = evaluate_model(tiny_model(), tiny_tokenizer, SETS, max_new_tokens=1)
    why = NotComputed(not_computed="no dialogues that no model was trained on were given (non_members)")
    assert found.metrics["membership"] == dict.fromkeys(MEMBERSHIP, why)
    assert with_control(found, found).metrics["membership"] == found.metrics["membership"]
    assert found.attacks == {}
