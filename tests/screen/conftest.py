from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from letheon.embed import Embedder
from letheon.screen.embedding import EmbeddingJudge


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture(scope="session")
def prior(embedder: Embedder) -> EmbeddingJudge:
    return EmbeddingJudge.prior(embedder)


@pytest.fixture(autouse=True)
def _quick_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is let go by the way; to sweep it each time would take longer than the tests."""
    monkeypatch.setattr("letheon.screen.pretrained.release_memory", lambda: None)


@pytest.fixture(scope="session")
def bert_tokenizer(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """A token a byte; a first part is written [CLS] … [SEP], a second one … [SEP] behind it."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer(cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]")
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return tokenizer


@pytest.fixture(scope="session")
def make_bert(
    tmp_path_factory: pytest.TempPathFactory, bert_tokenizer: PreTrainedTokenizerFast
) -> Callable[..., Path]:
    """Make the folder of a tiny sequence classifier with these labels: random, or one that looks for characters."""

    def make(labels: Sequence[str], marks: str = "", seed: int = 0, **changes: Any) -> Path:
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(bert_tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=16,
            max_position_embeddings=128,
            initializer_range=0.3,
            pad_token_id=bert_tokenizer.pad_token_id,
            id2label=dict(enumerate(labels)),
            **changes,
        )
        model = BertForSequenceClassification(config)
        if marks:
            look_for(model, bert_tokenizer, marks)
        folder = tmp_path_factory.mktemp("bert") / "tiny-bert"
        model.save_pretrained(folder)
        bert_tokenizer.save_pretrained(folder)
        return folder

    return make


def look_for(model: BertForSequenceClassification, tokenizer: PreTrainedTokenizerFast, marks: str) -> None:
    """Set the weights by hand: label n has a logit near 7 where the n-th character is in the text, else below -5.

    A space in place of a character gives a label logits of 0. Attention takes the mean over all tokens, in which a
    single character shows; layer norms and the pooler's tanh make that a yes or no.
    """
    plain = len(marks)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.fill_(1.0 if name.endswith("LayerNorm.weight") else 0.0)
        words = model.bert.embeddings.word_embeddings.weight
        words[:, plain] = 1.0
        layer = model.bert.encoder.layer[0].attention
        unmarked = model.bert.embeddings.LayerNorm(words[0])[0]
        layer.self.value.weight.copy_(torch.eye(model.config.hidden_size))
        for number, mark in enumerate(marks):
            if mark == " ":
                continue
            words[tokenizer(mark, add_special_tokens=False).input_ids] = 0.0
            words[tokenizer(mark, add_special_tokens=False).input_ids, number] = 1.0
            layer.output.dense.weight[number, number] = 1000.0
            layer.output.dense.bias[number] = -1000.0 * unmarked
            model.bert.pooler.dense.weight[number, number] = 1.0
            model.classifier.weight[number, number] = 10.0
            model.classifier.bias[number] = -3.0
