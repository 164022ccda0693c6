"""What judges share that ask another model: which one it is, loading it and letting it go, long texts, batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

from letheon.errors import InputError
from letheon.measure import release_memory
from letheon.models import (
    Model,
    Tokenizer,
    check_model,
    context_length,
    device,
    fast_bf16,
    in_short,
    load_config,
    load_model,
    load_tokenizer,
    model_hash,
)
from letheon.screen.kept import held
from letheon.screen.progress import tell

Task = Literal["SequenceClassification", "CausalLM"]
SLACK = 8
"""Tokens kept free: a piece cut out of a text may have a few more than it had within."""
Window = tuple[int, int]
"""Character range [start, end) of a text."""


def judge_name(kind: str, model: str) -> str:
    """A name with its version, such as "guard:Qwen3Guard-Gen-0.6B@1a2b3c4d": of a folder by all that is in it.

    Of a hub id the version is that of the hub, where the configuration that is loaded from there knows it.
    """
    folder = Path(model)
    if folder.is_dir():
        return f"{kind}:{folder.resolve().name}@{model_hash(model)[:8]}"
    commit = getattr(load_config(model), "_commit_hash", None)
    return f"{kind}:{folder.name}" + (f"@{commit[:8]}" if commit else "")


def check_architecture(model: str, task: Task, setting: str) -> Any:
    """Check, without its weights, that a model is there and was made for a task; returns its configuration.

    Raises:
        InputError: It is not: weights that a checkpoint lacks would be drawn at random, and judge at random.
    """
    check_model(model)
    if _is_adapter(model):
        raise InputError(f"{model}: an adapter ({setting}); merge it into its base, and name that folder")
    config = load_config(model)
    made = list(config.architectures or ["nothing"])
    if not any(name.endswith(f"For{task}") for name in made):
        raise InputError(f"{model}: made for {', '.join(made)} ({setting}); a model For{task} is needed")
    return config


def loaded(model: str, task: Task) -> AbstractContextManager[tuple[Model, Tokenizer]]:
    """Hold a model in eval mode and its tokenizer for a block, on the GPU if there is one; then their memory is free.

    Within `kept_open` they stay for its whole block. Half-precision weights stay so where the hardware is fast at
    them; all others are float32.

    Raises:
        InputError: It cannot be loaded, or its file lacks weights.
    """
    return held((model, task), lambda: _loaded(model, task))


@contextmanager
def _loaded(model: str, task: Task) -> Iterator[tuple[Model, Tokenizer]]:
    import torch

    tokenizer = load_tokenizer(model)
    # Of an adapter its base, with the adapter merged in.
    network = load_model(model) if task == "CausalLM" and _is_adapter(model) else _load(model, task)
    half = network.dtype == torch.bfloat16 and fast_bf16()
    half = half or (network.dtype == torch.float16 and device().type != "cpu")
    network = network.to(device(), network.dtype if half else torch.float32)
    if network.config.pad_token_id is None:
        network.config.pad_token_id = tokenizer.pad_token_id
    try:
        yield network.eval(), tokenizer
    finally:
        # Whoever still holds the model then holds no weights.
        network.to("meta")
        release_memory()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _load(model: str, task: Task) -> Model:
    import transformers
    from safetensors import SafetensorError

    try:
        network, report = getattr(transformers, f"AutoModelFor{task}").from_pretrained(
            model, dtype="auto", use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{model}: cannot load this model: {in_short(error)}") from error
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{model}: its file lacks weights ({missing[0]}{', …' if missing[1:] else ''})")
    return network


def _is_adapter(model: str) -> bool:
    return (Path(model) / "adapter_config.json").is_file()


def longest_input(model: Model, tokenizer: Tokenizer, most: int) -> int:
    """Tokens that a model can read at once, at most `most`."""
    places = [
        module.num_embeddings - module.padding_idx - 1
        for name, module in model.named_modules()
        # RoBERTa and its kin count positions from behind the padding's on.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None
    ]
    return int(min(most, tokenizer.model_max_length, *places, context_length(model) or most))


def windows(tokenizer: Tokenizer, text: str, most: int) -> list[Window]:
    """Cut a text into ranges of at most `most` tokens that overlap by a quarter; one range where it fits.

    A harm may stand at the end of a long answer as well as at its beginning, so no part is left out.

    Raises:
        InputError: The text does not fit, and the tokenizer does not say which characters a token stands for.
    """
    offsets = _offsets(tokenizer, text)
    if len(offsets) <= most:
        return [(0, len(text))]
    step = most - most // 4
    starts = [*range(0, len(offsets) - most, step), len(offsets) - most]
    ends = [start + most - 1 for start in starts]
    ranges = [(offsets[start][0], offsets[end][1]) for start, end in zip(starts, ends, strict=True)]
    return [(0, ranges[0][1]), *ranges[1:-1], (ranges[-1][0], len(text))]


def ending(tokenizer: Tokenizer, text: str, most: int) -> str:
    """The last `most` tokens of a text: of a long question, what is asked mostly stands at the end."""
    offsets = _offsets(tokenizer, text)
    return text if len(offsets) <= most else text[offsets[-most][0] :]


def token_count(tokenizer: Tokenizer, text: str) -> int:
    """Tokens of a text, without special ones around it."""
    return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)


def _offsets(tokenizer: Tokenizer, text: str) -> list[Window]:
    if not tokenizer.is_fast:
        raise InputError(
            f"{tokenizer.name_or_path}: its tokenizer does not tell where its tokens stand in a text; "
            "use a model with a tokenizer.json"
        )
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(found["offset_mapping"])


def alike(lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    """Numbers of things of like length, `size` at once; the longest first, so that lack of memory shows early.

    Tells how many have been dealt with.
    """
    order = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    for start in range(0, len(order), size):
        yield order[start : start + size]
        tell(min(start + size, len(order)), len(order))
