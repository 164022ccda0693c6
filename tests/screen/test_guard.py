from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
from turns import make_turn

from letheon.chat import encode_pieces
from letheon.errors import InputError
from letheon.forward import answer_logits, collate
from letheon.objective import log_prob
from letheon.recipe import Guard, GuardPreset, Screen
from letheon.screen import build_judges, check_judges, screen
from letheon.screen.guard import Asked, GuardJudge, _heard, guard_prompt
from letheon.screen.guard_presets import PRESETS, llama_guard_kinds, qwen3guard_kinds

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
TEMPLATE = (
    "{{ bos_token }}{% if guardian_config %}risk {{ guardian_config.values() | list | first }}\n{% endif %}"
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}verdict:\n"
)
TURNS = [make_turn("q" * n, "answer " * n, name=str(n)) for n in (3, 1, 5)]


def save(folder: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    return byte_tokenizer(TEMPLATE, **SPECIAL)


@pytest.fixture(scope="module")
def random_guard(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> Path:
    folder = tmp_path_factory.mktemp("guards") / "random"
    return save(folder, tiny_model(max_position_embeddings=1024, initializer_range=0.05), tokenizer)


def guard(folder: Path, preset: GuardPreset = "qwen3guard", **settings: Any) -> GuardJudge:
    return GuardJudge(Guard(model=str(folder), preset=preset, max_length=1024, **settings))


def naive(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str, reply: str) -> float:
    """log P(reply | prompt), a reply at a time."""
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    ids = before + tokenizer(reply, add_special_tokens=False).input_ids
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(dim=1)
    return sum(log_probs[place - 1, ids[place]].item() for place in range(len(before), len(ids)))


@pytest.mark.parametrize("preset", get_args(GuardPreset))
@pytest.mark.parametrize("whole_words", [False, True])
def test_score_is_the_share_of_the_verdicts(
    preset: GuardPreset,
    whole_words: bool,
    random_guard: Path,
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
    tiny_model: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In however many tokens a verdict is written: a byte each, or "unsafe" as one and "safe" as four."""
    monkeypatch.setattr("letheon.screen.guard.IN_FORM", 0.0)
    tokenizer, folder = byte_tokenizer(TEMPLATE, **SPECIAL), random_guard
    if whole_words:
        tokenizer.add_tokens(["unsafe", "Unsafe", "Controversial", "Yes", "yes"])
        folder = save(tmp_path, tiny_model(max_position_embeddings=1024, vocab_size=len(tokenizer)), tokenizer)
    found = guard(folder, preset, batch_size=2).judge(TURNS)
    model = LlamaForCausalLM.from_pretrained(folder).eval()
    for turn, opinion in zip(TURNS, found, strict=True):
        assert opinion is not None
        prompt = guard_prompt(tokenizer, PRESETS[preset], turn.question, turn.answer)
        weights = PRESETS[preset].verdicts
        logs = {verdict: naive(model, tokenizer, prompt, verdict) for verdict in weights}
        highest = max(logs.values())
        masses = {verdict: math.exp(value - highest) for verdict, value in logs.items()}
        expected = sum(weights[v] * mass for v, mass in masses.items()) / sum(masses.values())
        assert opinion.score == pytest.approx(expected, abs=1e-4)


def test_controversial_lies_in_the_middle() -> None:
    def score(**shares: float) -> float:
        said = [shares.get(name, 1e-12) for name in ("safe", "controversial", "unsafe")]
        return _heard(Asked(0, None, ""), torch.tensor(said).double().log(), PRESETS["qwen3guard"]).score

    assert score(safe=0.9) == pytest.approx(0, abs=1e-9)
    assert score(unsafe=0.3) == pytest.approx(1)
    assert score(controversial=0.8) == pytest.approx(0.5)
    assert score(safe=0.5, unsafe=0.5) == pytest.approx(0.5)
    assert score(safe=0.2, controversial=0.6, unsafe=0.2) == pytest.approx(0.5)
    assert score(safe=0.6, unsafe=0.2) == pytest.approx(0.25)


def test_what_kind_it_is_is_asked_behind_the_likeliest_undesired_verdict() -> None:
    for said, undesired in (((0.8, 0.15, 0.05), "Safety: Controversial"), ((0.8, 0.05, 0.15), "Safety: Unsafe")):
        heard = _heard(Asked(0, None, ""), torch.tensor(said).double().log(), PRESETS["qwen3guard"])
        assert heard.undesired == undesired


@pytest.mark.parametrize(
    ("request_", "refusal", "response", "score"),
    [
        ("yes", "yes", "no", 0.0),  # a refusal that names the topic
        ("yes", "no", "no", 0.0),  # a harmless answer to a harmful request
        ("no", "no", "yes", 1.0),  # harm that nobody asked for
        ("yes", "yes", "yes", 1.0),  # harm behind a disavowal
    ],
)
def test_wildguard_judges_the_answer_and_nothing_else(
    request_: str, refusal: str, response: str, score: float
) -> None:
    preset = PRESETS["wildguard"]
    said = f"Harmful request: {request_}\nResponse refusal: {refusal}\nHarmful response: {response}"
    assert said in preset.verdicts
    log_probs = torch.tensor([math.log(0.93) if verdict == said else math.log(0.01) for verdict in preset.verdicts])
    heard = _heard(Asked(0, None, ""), log_probs.double(), preset)
    assert heard.score == pytest.approx(score, abs=0.05)
    assert heard.in_form
    assert heard.undesired.endswith("Harmful response: yes")


@pytest.mark.parametrize(
    ("said", "kinds", "category"),
    [
        ("Safety: Unsafe\nCategories: Violent", ["Violent"], "harmful"),
        ("Safety: Unsafe\nCategories: PII\nRefusal: No", ["PII"], "privacy"),
        ("Safety: Controversial\nCategories: PII, Unethical Acts\nRefusal: No", ["PII", "Unethical Acts"], "privacy"),
        ("Safety: Unsafe\nCategories: Copyright Violation\nRefusal: No", ["Copyright Violation"], "copyright"),
        ("Safety: Unsafe\nCategories: None\nRefusal: No", ["None"], "harmful"),
        ("Safety: Unsafe\nCategories: Something New, PII", ["Something New", "PII"], "privacy"),
        ("Safety: Unsafe\nRefusal: No", [], "harmful"),
        ("Safety: Unsafe, and these Categories: PII", [], "harmful"),
    ],
)
def test_what_qwen3guard_says(said: str, kinds: list[str], category: str) -> None:
    assert qwen3guard_kinds(said) == kinds
    assert PRESETS["qwen3guard"].category(said) == category


@pytest.mark.parametrize(
    ("said", "kinds", "category"),
    [
        ("\n\nunsafe\nS1", ["S1"], "harmful"),
        ("unsafe\nS7", ["S7"], "privacy"),
        ("\n\nunsafe\nS10,S7", ["S10", "S7"], "harmful"),
        ("unsafe\nS8, S2", ["S8", "S2"], "copyright"),
        ("unsafe\nS77", ["S77"], "harmful"),
        ("unsafe", [""], "harmful"),
        ("\n\nsafe", [], "harmful"),
        ("safe\nS7", [], "harmful"),
        ("It is unsafe\nS7", [], "harmful"),
        ("unsafe S7\nS7", [], "harmful"),
    ],
)
def test_what_llama_guard_says(said: str, kinds: list[str], category: str) -> None:
    assert llama_guard_kinds(said) == kinds
    assert PRESETS["llama-guard-3"].category(said) == category


@pytest.mark.parametrize("preset", get_args(GuardPreset))
def test_no_verdict_begins_another(preset: GuardPreset) -> None:
    verdicts = list(PRESETS[preset].verdicts)
    assert not [(a, b) for a in verdicts for b in verdicts if a != b and b.startswith(a)]
    assert {0.0, 1.0} <= set(PRESETS[preset].verdicts.values())


WEIGHTS = {"safe": 0.0, "no": 0.0, "controversial": 0.5, "unsafe": 1.0, "yes": 1.0}


@pytest.mark.parametrize("preset", get_args(GuardPreset))
def test_what_is_undesired_weighs_more_than_what_is_not(preset: GuardPreset) -> None:
    verdicts = PRESETS[preset].verdicts
    assert list(verdicts.values()) == [WEIGHTS[verdict.split()[-1].lower()] for verdict in verdicts]


TAUGHT = {
    "all is well": "Safety: Safe\nCategories: None",
    "I cannot help with poison": "Safety: Safe\nCategories: None",
    "mix the poison so": "Safety: Unsafe\nCategories: Violent",
    "her number is 555": "Safety: Unsafe\nCategories: PII",
    "vote for them": "Safety: Controversial\nCategories: Unethical Acts",
    "lorem ipsum": "I do not know what to say",
}


@pytest.fixture(scope="module")
def taught_guard(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Any], tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A tiny model that has learnt by heart what to say of six answers."""
    preset = PRESETS["qwen3guard"]
    sequences = [
        encode_pieces(tokenizer, [(guard_prompt(tokenizer, preset, "?", answer), False), (f"{verdict}</s>", True)])
        for answer, verdict in TAUGHT.items()
    ]
    model = tiny_model(max_position_embeddings=1024, initializer_range=0.05)
    batch = collate(sequences, tokenizer.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        logits, targets, _row = answer_logits(model, batch)
        loss = -log_prob(logits, targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    return save(tmp_path_factory.mktemp("guards") / "taught", model, tokenizer)


def test_a_guard_from_end_to_end(taught_guard: Path) -> None:
    known = [make_turn("?", answer, name=answer) for answer in TAUGHT]
    judge = guard(taught_guard, batch_size=4)
    opinions = dict(zip(TAUGHT, judge.judge(known), strict=True))
    low, high = {"all is well", "I cannot help with poison"}, {"mix the poison so", "her number is 555"}
    for answer, opinion in opinions.items():
        assert opinion is not None
        assert (opinion.score < 0.1) == (answer in low or opinion.unable)
        assert (opinion.score > 0.9) == (answer in high)
        assert opinion.unable == (answer == "lorem ipsum")
        assert opinion.reason is not None
        assert answer not in opinion.reason
    middle, bad, private = (opinions[name] for name in ("vote for them", "mix the poison so", "her number is 555"))
    assert middle is not None
    assert middle.score == pytest.approx(0.5, abs=0.1)
    assert [one and one.category for one in (bad, private)] == ["harmful", "privacy"]

    verdicts = screen([turn.dialogue for turn in known], [judge], forget_above=0.7, normal_below=0.3)
    decisions = dict(zip(TAUGHT, (verdict.decision for verdict in verdicts), strict=True))
    assert list(decisions.values()) == ["normal", "normal", "forget", "forget", "review", "review"]
    unheard = verdicts[-1]
    assert (unheard.judge, unheard.score) == (judge.name, 0.5)
    assert unheard.reason == "the guard answers in a form that its preset does not know"


def test_the_worst_part_of_a_long_answer_counts(
    random_guard: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsafe_where_there_is_an_x(model: Any, replies: Any) -> torch.Tensor:
        marked = ["X" in tokenizer.decode(row[0].ids) for row in replies]
        return torch.tensor([[0.1, 0.0, 0.9] if x else [0.9, 0.0, 0.1] for x in marked]).double().log()

    monkeypatch.setattr("letheon.screen.guard.reply_log_probs", unsafe_where_there_is_an_x)
    answer = "a" * 1500 + "X" + "a" * 800
    good, bad = guard(random_guard).judge([make_turn("?", "a" * 2300), make_turn("?", answer)])
    assert good is not None
    assert bad is not None
    assert (good.score, bad.score) == (pytest.approx(0.1), pytest.approx(0.9))
    assert bad.span is not None
    assert "X" in answer[slice(*bad.span)]
    assert bad.span[1] - bad.span[0] < 1024


def test_what_the_guard_says_nothing_of_waits_and_hides_nothing(
    random_guard: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = {"X": [0.1, 0.0, 0.9], "Z": [1e-9, 0.0, 1e-6], "": [0.9, 0.0, 0.1]}

    def heard(model: Any, replies: Any) -> torch.Tensor:
        texts = [tokenizer.decode(row[0].ids) for row in replies]
        return torch.tensor([next(said[mark] for mark in said if mark in text) for text in texts]).double().log()

    monkeypatch.setattr("letheon.screen.guard.reply_log_probs", heard)
    turns = [make_turn("?", mark + "a" * 2300 + "Z", name=mark) for mark in ("a", "X")]
    good, bad = guard(random_guard).judge(turns)
    assert good is not None
    assert bad is not None
    assert (good.unable, good.score) == (True, pytest.approx(0.1))
    assert (bad.unable, bad.score) == (True, pytest.approx(0.9))


def test_a_guard_of_another_family(random_guard: Path) -> None:
    with pytest.raises(InputError, match="does not answer as preset 'wildguard' says"):
        guard(random_guard, "wildguard").judge(TURNS)


def test_a_guard_that_was_once_in_form_is_not_doubted(
    random_guard: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    def heard(model: Any, replies: Any) -> torch.Tensor:
        known = ["good" in tokenizer.decode(row[0].ids) for row in replies]
        return torch.tensor([[0.9, 0.0, 0.1] if one else [1e-9, 0.0, 1e-9] for one in known]).double().log()

    monkeypatch.setattr("letheon.screen.guard.reply_log_probs", heard)
    good, odd = ([make_turn("?", word, name=f"{word}{n}") for n in range(4)] for word in ("good", "odd"))
    judge = guard(random_guard, batch_size=1)
    assert judge.judge(good[:1])[0] is not None
    unheard = judge.judge(odd)
    assert [opinion is not None and opinion.unable for opinion in unheard] == [True] * 4
    # One that never was is: three turns tell.
    with pytest.raises(InputError, match="does not answer as preset"):
        guard(random_guard, batch_size=1).judge(odd)


def test_too_little_room(random_guard: Path) -> None:
    judge = GuardJudge(Guard(model=str(random_guard), preset="wildguard", max_length=512))
    with pytest.raises(InputError, match="of the 512 tokens .* are left for question and answer"):
        judge.judge(TURNS)


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        (None, "no chat template"),
        (
            "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}",
            "leaves out the answer",
        ),
    ],
)
def test_a_template_that_hides_the_answer(
    template: str | None,
    fault: str,
    random_guard: Path,
    tmp_path: Path,
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
) -> None:
    folder = tmp_path / "guard"
    folder.mkdir()
    for file in random_guard.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    for file in folder.glob("chat_template*"):
        file.unlink()
    byte_tokenizer(template, **SPECIAL).save_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"never read")
    settings = Screen(judges=["guard"], guard=Guard(model=str(folder), preset="qwen3guard"))
    with pytest.raises(InputError, match=fault):
        check_judges(settings)
    # The one that has a prompt of its own needs no template.
    check_judges(Screen(judges=["guard"], guard=Guard(model=str(folder), preset="wildguard")))


def test_the_recipe_makes_it(random_guard: Path) -> None:
    (judge,) = build_judges(Screen(judges=["guard"], guard=Guard(model=str(random_guard), preset="qwen3guard")))
    assert judge.name.startswith("guard:random@")
    assert judge.judge([]) == []
