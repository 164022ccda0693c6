"""What the examples share: the demo's dialogues, and a model from a folder or a random tiny one."""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path
from typing import Any

from letheon.dialogues import read_dialogues
from letheon.models import load_model, load_tokenizer, save_model
from letheon.records import Dialogue

DATA = Path(str(files("letheon.demo") / "data"))
LOG, EXAMPLES = DATA / "log.jsonl", DATA / "screen_examples.jsonl"


def arguments(what: str, **positional: str) -> argparse.Namespace:
    """Command-line arguments: the positional ones (name=help), or --tiny in their place."""
    parser = argparse.ArgumentParser(description=what)
    for name, help_text in positional.items():
        parser.add_argument(name, nargs="?", help=help_text)
    parser.add_argument("--tiny", action="store_true", help="a random tiny model and few dialogues: runs in seconds")
    given = parser.parse_args()
    missing = [name for name in positional if getattr(given, name) is None]
    if missing and not given.tiny:
        parser.error(f"give {', '.join(missing)}, or --tiny")
    return given


def log(tiny: bool) -> tuple[list[Dialogue], list[Dialogue]]:
    """The demo's dialogues to forget, and its normal ones; a few of each where `tiny`."""
    dialogues = read_dialogues(LOG)
    forget = [dialogue for dialogue in dialogues if dialogue.label == "forget"]
    normal = [dialogue for dialogue in dialogues if dialogue.label == "normal"]
    return (forget[:4], normal[:8]) if tiny else (forget, normal)


def open_model(folder: str | None) -> tuple[Any, Any]:
    """A model and its tokenizer from a folder, or tiny ones."""
    return (load_model(folder), load_tokenizer(folder)) if folder else tiny()


def tiny(seed: int = 0) -> tuple[Any, Any]:
    """A random two-layer Llama over single bytes, with a ChatML template."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={character: number for number, character in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = (
        "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>'"
        " + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config).eval(), tokenizer


def tiny_folder(folder: Path) -> str:
    """A folder with a tiny model, for what reads models from disk."""
    model, tokenizer = tiny()
    save_model(model, tokenizer, folder)
    return str(folder)
