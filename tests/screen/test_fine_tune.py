from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from letheon.embed import Embedder
from letheon.errors import InputError, MissingExtraError
from letheon.recipe import Screen
from letheon.records import Dialogue, Message, write_jsonl
from letheon.screen import build_screener, embedding, fine_tune
from letheon.screen.embedding import EmbeddingJudge
from letheon.screen.fine_tune import SecondOpinion, TunedEncoder, fit_second_opinion, steps_of
from letheon.screen.head import BACKGROUND, Data, make_folds, softmax

Pairs = list[tuple[str, str]]


class TinyEmbedder(Embedder):
    """MiniLM's shape with random weights, six thin layers, and a token a byte."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            config = BertConfig(
                vocab_size=len(tokenizer),
                hidden_size=384,
                num_hidden_layers=6,
                num_attention_heads=4,
                intermediate_size=16,
                max_position_embeddings=256,
                pad_token_id=tokenizer.pad_token_id,
            )
            self._tiny = tokenizer, BertModel(config, add_pooling_layer=False).eval()

    def encoder(self) -> tuple[Any, Any]:
        return self._tiny


@pytest.fixture
def tiny(bert_tokenizer: PreTrainedTokenizerFast) -> TinyEmbedder:
    return TinyEmbedder(bert_tokenizer)


@pytest.fixture
def marked() -> tuple[Pairs, np.ndarray]:
    """Answers of several lengths; those of category 1 are full of x, the others of o."""
    targets = np.arange(48) % 2
    return [(f"Q{n % 12}?", ("x" if bad else "o") * (5 + n % 7)) for n, bad in enumerate(targets)], targets


def fit(tiny: Embedder, marked: tuple[Pairs, np.ndarray], **options: Any) -> TunedEncoder:
    return TunedEncoder.fit(tiny, marked[0], marked[1], 2, **options)


def test_it_learns_and_leaves_the_embedder_and_the_random_state_alone(
    tiny: TinyEmbedder, marked: tuple[Pairs, np.ndarray]
) -> None:
    before = {name: weight.clone() for name, weight in tiny.encoder()[1].state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    steps: list[None] = []
    tuned = fit(tiny, marked, stepped=lambda: steps.append(None))
    assert torch.equal(torch.rand(1), expected)
    assert len(steps) == steps_of(48) == 12
    assert all(torch.equal(weight, before[name]) for name, weight in tiny.encoder()[1].state_dict().items())
    fresh = [("Q20?", "x" * 9), ("Q21?", "o" * 9)]
    bad, good = tuned.scores(fresh)
    assert bad[1] - bad[0] > good[1] - good[0]
    assert np.array_equal(tuned.scores(marked[0]).argmax(1), marked[1])


@pytest.mark.slow
def test_equal_seeds_give_equal_scores(tiny: TinyEmbedder, marked: tuple[Pairs, np.ndarray]) -> None:
    first, again, other = (fit(tiny, marked, seed=seed).scores(marked[0]) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_first_step_is_a_step_of_adam_along_the_gradient(
    tiny: TinyEmbedder, marked: tuple[Pairs, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """AdamW's first step is lr · sign(gradient), here of one batch, without dropout."""
    monkeypatch.setattr(fine_tune, "EPOCHS", 1)
    monkeypatch.setattr(fine_tune, "WARM_UP", 1e-9)
    monkeypatch.setattr("letheon.models.fast_bf16", lambda: False)
    network = tiny.encoder()[1]
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    network.config.hidden_dropout_prob = 0.0
    pairs, targets = marked[0][:6], marked[1][:6]
    tuned = TunedEncoder.fit(tiny, pairs, targets, 2, seed=3)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        naive = TunedEncoder(tiny, 2)
    losses = []
    for (question, answer), target in zip(pairs, targets, strict=True):
        one = tiny.encoder()[0](question, answer, return_tensors="pt")
        mean = naive._network(**one, output_hidden_states=True).hidden_states[4][0].mean(0)
        losses.append(-torch.log_softmax(naive._head(mean), 0)[target])
    torch.stack(losses).mean().backward()
    for own, other, rate in (
        (tuned._head.bias, naive._head.bias, fine_tune.HEAD_RATE),
        *(
            (
                tuned._network.encoder.layer[number].output.dense.weight,
                naive._network.encoder.layer[number].output.dense.weight,
                fine_tune.RATE * 0.7 ** (4 - number),
            )
            for number in range(4)
        ),
    ):
        assert other.grad is not None
        clear = other.grad.abs() > 1e-5
        wanted = other * (1 - 0.01 * rate) - rate * other.grad.sign()
        torch.testing.assert_close(own[clear], wanted[clear], rtol=0, atol=rate * 0.02)
    same = tuned._network.embeddings.word_embeddings.weight, network.embeddings.word_embeddings.weight
    assert torch.equal(*same)


def test_its_weights_are_the_mean_of_those_after_the_last_steps(
    tiny: TinyEmbedder, marked: tuple[Pairs, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 12 steps the last five: 8 to 12."""
    seen: list[torch.Tensor] = []

    class Watched(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            super().step(closure)
            seen.append(self.param_groups[0]["params"][0].detach().clone())

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    weight = next(fit(tiny, marked)._network.encoder.layer[-1].parameters())
    assert len(seen) == 12
    torch.testing.assert_close(weight, torch.stack(seen[7:]).mean(0))


def test_padding_and_order_change_nothing(
    tiny: TinyEmbedder, marked: tuple[Pairs, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("letheon.models.fast_bf16", lambda: False)
    tuned, pairs = fit(tiny, marked), marked[0][:9]
    alone = np.concatenate([tuned.scores([pair]) for pair in pairs])
    np.testing.assert_allclose(tuned.scores(pairs), alone, atol=1e-5)
    np.testing.assert_allclose(tuned.scores(pairs[::-1])[::-1], alone, atol=1e-5)
    assert tuned.scores([]).shape == (0, 2)


def test_the_question_is_read_beside_the_answer(tiny: TinyEmbedder, marked: tuple[Pairs, np.ndarray]) -> None:
    """A score of question and answer apart would be a sum: changing the question would shift both answers alike."""
    scores = fit(tiny, marked).scores([(q, a) for q in ("Q1?", "xxxxxxx?") for a in ("xxxx", "oooo")])
    (first, second), (third, fourth) = scores[:2, 1], scores[2:, 1]
    assert abs((first - second) - (third - fourth)) > 1e-3


class Says:
    def __init__(self, scores: np.ndarray):
        self._scores = scores

    def scores(self, pairs: Pairs) -> np.ndarray:
        return self._scores[: len(pairs)]


def test_an_encoder_that_knows_nothing_or_the_same_changes_nothing() -> None:
    """log P / 2 of a uniform second opinion at T₂ = ½ is the ridge's; of the same opinion at T₂ = 1 too."""
    ridge = softmax(np.random.default_rng(0).normal(size=(5, 3)))
    pairs = [("q", "a")] * 5
    uniform: Any = Says(np.zeros((5, 3)))
    np.testing.assert_allclose(SecondOpinion(uniform, 1.0, 0.5).beside(ridge, pairs), ridge)
    same: Any = Says(2 * np.log(ridge))
    np.testing.assert_allclose(SecondOpinion(same, 2.0, 1.0).beside(ridge, pairs), ridge)


def test_two_categories_are_averaged_in_log_odds() -> None:
    """P₁ = σ((log-odds of ridge + log-odds of the encoder / T₁) / (2 T₂))."""
    ridge, scores = np.array([[0.8, 0.2]]), np.array([[0.5, 2.5]])
    encoder: Any = Says(scores)
    found = SecondOpinion(encoder, 4.0, 0.7).beside(ridge, [("q", "a")])[0, 1]
    log_odds = (np.log(0.2 / 0.8) + 2.0 / 4.0) / 2 / 0.7
    assert found == pytest.approx(1 / (1 + np.exp(-log_odds)))


@pytest.mark.slow
def test_what_it_thinks_of_labelled_examples_it_thinks_without_having_seen_them(tiny: TinyEmbedder) -> None:
    """Each answer occurs once with either label: whoever saw the other one is wrong about this one."""
    pairs = [(f"Q{n}?", "xo"[n % 3 == 0] * (4 + n // 2)) for n in range(48)]
    targets = np.arange(48) % 2
    background = [("Hello?", "Good day.")] * 2
    folds = make_folds((targets == 1).tolist(), [question for question, _ in pairs], 0)
    data = Data(None, np.array([*targets, 0, 0]), np.array([*range(48), BACKGROUND, BACKGROUND]), ["normal", "bad"])
    seen: list[tuple[int, int]] = []
    ridge = np.full((48, 2), 0.5)
    second, held_out = fit_second_opinion(
        tiny, [*pairs, *background], data, folds, ridge, progress=lambda done, total: seen.append((done, total))
    )
    assert np.mean(held_out.argmax(1) == targets) < 0.75
    np.testing.assert_allclose(held_out.sum(1), 1)
    total = sum(steps_of(len(train) + 2) for train, _ in folds)
    assert seen == [(done, total) for done in range(total + 1)]
    assert second.own > 0
    assert second.both > 0


def test_the_encoder_is_the_mean_of_those_of_the_folds(
    tiny: TinyEmbedder, marked: tuple[Pairs, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[list[torch.Tensor]] = []
    usual = TunedEncoder.fit

    def watched(*given: Any) -> TunedEncoder:
        tuned = usual(*given)
        found.append([weight.detach().clone() for weight in tuned._learning()])
        return tuned

    monkeypatch.setattr(TunedEncoder, "fit", watched)
    pairs, targets = marked
    folds = [(np.flatnonzero(np.arange(48) % 3 != n), np.flatnonzero(np.arange(48) % 3 == n)) for n in range(3)]
    data = Data(None, targets, np.arange(48), ["normal", "bad"])
    second, _ = fit_second_opinion(tiny, pairs, data, folds, np.full((48, 2), 0.5))
    assert len(found) == 3
    for weight, *each in zip(second.encoder._learning(), *found, strict=True):
        torch.testing.assert_close(weight, torch.stack(each).mean(0))


@pytest.fixture
def examples() -> list[Dialogue]:
    return [
        Dialogue(
            id=str(n),
            messages=(
                Message(role="user", content=f"Q{n}?"),
                Message(role="assistant", content="ox"[n % 2] * (4 + n)),
            ),
            label="forget" if n % 2 else "normal",
        )
        for n in range(20)
    ]


@pytest.mark.slow
def test_the_judge_asks_it_and_says_so(
    tiny: TinyEmbedder, examples: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedding, "FEWEST_TUNED", 20)
    plain = EmbeddingJudge.fit(examples, tiny)
    judge = EmbeddingJudge.fit(examples, tiny, fine_tune=True)
    assert (plain.form, judge.form) == ("MiniLM", "fine-tuned MiniLM")
    turns = [one.last_turn for one in examples]
    assert judge.judge(turns) == EmbeddingJudge.fit(examples, tiny, fine_tune=True).judge(turns)
    assert judge.judge(turns) != plain.judge(turns)
    assert judge.held_out != plain.held_out
    assert len(judge.held_out) == len(examples)


@pytest.mark.slow
def test_a_recipe_asks_for_it(
    tiny: TinyEmbedder, examples: list[Dialogue], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(embedding, "FEWEST_TUNED", 20)
    monkeypatch.setattr(fine_tune, "EPOCHS", 1)
    file = tmp_path / "labelled.jsonl"
    write_jsonl(file, examples)
    settings = Screen.model_validate({"judges": ["embedding"], "examples": file, "fine_tune": True})
    seen: list[tuple[int, int]] = []
    screener = build_screener(settings, tiny, progress=lambda done, total: seen.append((done, total)))
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1]
    assert screener.outlook is not None
    assert screener.outlook.form == "fine-tuned MiniLM"


def test_too_few_examples_and_no_encoder(
    tiny: TinyEmbedder, examples: list[Dialogue], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="screen.fine_tune needs 200 labelled examples, there are 20"):
        EmbeddingJudge.fit(examples, tiny, fine_tune=True)
    monkeypatch.setattr(embedding, "has_embedder", lambda: False)
    with pytest.raises(MissingExtraError, match="screen.fine_tune needs the extra 'screen'"):
        EmbeddingJudge.fit(examples, tiny, fine_tune=True)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"judges": ["embedding"]}, "fine_tune needs labelled dialogues"),
        ({"judges": ["labels"], "examples": "some.jsonl"}, "fine_tune is of the judge 'embedding'"),
    ],
)
def test_a_recipe_that_asks_for_it_in_vain(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Screen.model_validate({**settings, "fine_tune": True})
