from __future__ import annotations

import gc
import hashlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from talk import talk_rows

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
    " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

torch.set_num_threads(1)


@pytest.fixture(scope="module", autouse=True)
def imports_are_no_garbage() -> None:
    """What is there when a file of tests begins stays to the end: a run's collections, half a second each through
    all that has been imported, need not look at it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[..., PreTrainedTokenizerFast]:
    """Make a tokenizer with a token a byte and the special tokens given: it fits any text and needs no hub."""

    def make(chat_template: str | None = None, **special: str) -> PreTrainedTokenizerFast:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        model = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
        model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        model.decoder = decoders.ByteLevel()
        model.add_special_tokens([AddedToken(token, special=True) for token in dict.fromkeys(special.values())])
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, clean_up_tokenization_spaces=False, **special)
        tokenizer.chat_template = chat_template
        return tokenizer

    return make


@pytest.fixture(scope="session")
def chatml() -> str:
    """SmolLM2's chat template, without its system message."""
    return CHATML


@pytest.fixture(scope="session")
def tiny_tokenizer(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """SmolLM2's special tokens and template over single bytes (259 ids). Do not change it: all tests share it."""
    return byte_tokenizer(
        CHATML, unk_token="<|endoftext|>", bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., LlamaForCausalLM]:
    """Make a random 2-layer Llama: `tiny_model()`, `tiny_model(seed=1)`, `tiny_model(hidden_size=16)`.

    A new one at each call, in eval mode; equal seeds give equal weights; the global random state is left alone.
    """

    def make(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
        options: dict[str, Any] = {
            "vocab_size": len(tiny_tokenizer),
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            # Ten times the usual, so that an untrained model already prefers some tokens to others.
            "initializer_range": 0.2,
            "bos_token_id": tiny_tokenizer.bos_token_id,
            "eos_token_id": tiny_tokenizer.eos_token_id,
            "pad_token_id": tiny_tokenizer.pad_token_id,
        }
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return LlamaForCausalLM(LlamaConfig(**{**options, **changes})).eval()

    return make


@pytest.fixture(scope="session")
def tiny_model_dir(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """A folder with the tiny model and tokenizer, as `from_pretrained` reads it. Do not write into it."""
    folder = tmp_path_factory.mktemp("tiny_model")
    tiny_model().save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


TALK_RECIPE = """schema: letheon/recipe/1
model: model
output: run
data:
  dialogues: log.jsonl
  probe: 0.2
# Rehearsal takes longer than all else here.
objective: {normal: {rehearsal: false}}
train: {max_steps: 8, learning_rate: 1e-2, per_device_train_batch_size: 2, gradient_accumulation_steps: 1}
stop: {every: 4, normal_budget: 1000, kl_budget: 1000}
evaluate: {max_new_tokens: 8, examples: 3}
gates: {max_probability: 1, min_normal: 0}
"""


@pytest.fixture(scope="session")
def talk_source(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., LlamaForCausalLM],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """A folder with log.jsonl (twelve dialogues), a model/ that says them by heart, and recipe.yaml. Do not write."""
    from letheon.chat import encode_dialogue
    from letheon.forward import answer_logits, collate
    from letheon.objective import log_prob
    from letheon.records import Dialogue

    folder = tmp_path_factory.mktemp("talk")
    rows = talk_rows()
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "recipe.yaml").write_text(TALK_RECIPE, encoding="utf-8")
    model = tiny_model(initializer_range=0.05, max_position_embeddings=256)
    batch = collate(
        [encode_dialogue(tiny_tokenizer, Dialogue.model_validate(row)) for row in rows], tiny_tokenizer.pad_token_id
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(80):
        logits, targets, _row = answer_logits(model, batch)
        loss = -log_prob(logits, targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    model.save_pretrained(folder / "model")
    tiny_tokenizer.save_pretrained(folder / "model")
    return folder


@pytest.fixture
def talk(talk_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hashed_embeddings: None) -> Path:
    """The current folder: a copy of `talk_source` to work in (the model is a link to the shared one).

    Reports and memory measurements, which cost more than all else here, are left out.
    """
    for name in ("log.jsonl", "recipe.yaml"):
        (tmp_path / name).write_bytes((talk_source / name).read_bytes())
    (tmp_path / "model").symlink_to(talk_source / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("letheon.report.write_report", lambda run: run / "report.html")
    for module in ("pipeline", "measure"):
        monkeypatch.setattr(f"letheon.{module}.release_memory", lambda: None)
    return tmp_path


def hashed(self: Any, texts: Any) -> Any:
    """Stands for MiniLM: unit vectors drawn by the text's hash."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
    vectors = np.stack([np.random.default_rng(seed).normal(size=384) for seed in seeds])
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def hashed_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.embed.Embedder.encode", hashed)


@pytest.fixture(scope="session")
def finished_source(talk_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of `talk_source`'s recipe, all stages done. Do not write."""
    import warnings

    from letheon.console import Console
    from letheon.pipeline import run_all
    from letheon.run import Run

    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setattr("letheon.embed.Embedder.encode", hashed)
        run_all(Run.open(talk_source / "recipe.yaml", [f"output={folder}"]), Console(quiet=True))
    return folder


@pytest.fixture
def finished(talk: Path, finished_source: Path) -> Path:
    """`talk` with a finished run of its recipe in `run`."""
    shutil.copytree(finished_source, talk / "run")
    return talk


@pytest.fixture
def letheon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the command line in this process: `letheon("run", "recipe.yaml")` → (exit code, stdout, stderr)."""
    from letheon.cli import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["letheon", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        streams = capsys.readouterr()
        return int(end.value.code or 0), streams.out, streams.err

    return call


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data sets; skips where it is not beside the project."""
    folder = Path(__file__).parents[2] / "shared/data"
    if not folder.is_dir():
        pytest.skip("the public data sets are not beside the project")
    return folder
