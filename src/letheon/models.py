"""Models and tokenizers: load, save, merge, fingerprint."""

from __future__ import annotations

import filecmp
import hashlib
import json
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from letheon.errors import InputError, require_extra

if TYPE_CHECKING:
    import torch

Model = Any
"""A transformers.PreTrainedModel or peft.PeftModel (both untyped for mypy)."""
Tokenizer = Any
"""A transformers.PreTrainedTokenizerBase."""

MERGED = "letheon_merged"
"""Mark of a model whose weights are those of no folder: that of the adapter which was merged into its base."""


def cache_folder() -> Path:
    """Where downloaded and derived files live: $LETHEON_CACHE, else the user's cache folder."""
    chosen = os.environ.get("LETHEON_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "letheon"


def check_model(name: str) -> None:
    """Check that a model can be there, without loading weights.

    Raises:
        InputError: A path that is no model folder. A name of the form org/name is left to the hub.
    """
    folder = Path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / "adapter_config.json").is_file():
            raise InputError(
                f"{name}: the folder has neither config.json nor adapter_config.json: not a model folder"
            )
        if not any(folder.glob("*.safetensors")):
            raise InputError(
                f"{name}: the folder has no weights as *.safetensors, the only kind that is loaded; "
                "save the model with save_pretrained"
            )
        base = _base_of(name)
        if base is not None:
            try:
                check_model(base)
            except InputError as error:
                raise InputError(f"{name}: an adapter, and what it lies on is not there: {error}") from None
        return
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise InputError(
            f"{name}: no such model folder; give a folder saved by save_pretrained, or a hub id org/name"
        )


UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, AssertionError)
"""What transformers raises over files that are damaged, or that do not fit each other."""


def load_model(name: str, *, quantize: Literal["nf4"] | None = None) -> Model:
    """Load a causal language model in float32, or an adapter with its base merged in, on the accelerator if any.

    Float32, because weights trained in bfloat16 lose small updates; autocast makes the matmuls cheap where it can.

    Args:
        name: Folder or hub id.
        quantize: nf4 holds the weights of linear layers in 4 bits, for an adapter to be trained on them (QLoRA,
            arXiv 2305.14314); not those of the head.

    Raises:
        InputError: It cannot be found, is no causal language model, or cannot be quantised here.
        MissingExtraError: Quantising is not installed.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    check_model(name)
    own: dict[str, Any] = {}
    if quantize is not None:
        check_quantizing(name)
        own = {"quantization_config": _nf4(), "device_map": {"": device()}}
    try:
        if (Path(name) / "adapter_config.json").is_file():
            from peft import AutoPeftModelForCausalLM

            with warnings.catch_warnings():
                # What a file lacks would be drawn at random, and look as if it had been forgotten.
                warnings.filterwarnings("error", message=".*missing adapter keys")
                merged = AutoPeftModelForCausalLM.from_pretrained(name, dtype=torch.float32).merge_and_unload()
            setattr(merged, MERGED, name)
            return merged.to(device())
        model, found = AutoModelForCausalLM.from_pretrained(
            name,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **own,
        )
    except (*UNREADABLE, SafetensorError, UserWarning) as error:
        raise InputError(f"{name}: cannot load this model: {in_short(error)}") from error
    if lacking := sorted(found["missing_keys"]):
        raise InputError(
            f"{name}: its files lack {len(lacking)} of the weights that config.json asks for, {lacking[0]} for one: "
            "they would be drawn at random; save the model again, with the names that transformers gives them"
        )
    return model if own else model.to(device())


def check_quantizing(name: str) -> None:
    """Check that a model can be held in 4 bits here, without loading weights.

    Raises:
        InputError: There is no GPU, or the model is an adapter.
        MissingExtraError: bitsandbytes is not installed.
    """
    require_extra("tuning.lora.quantize", "quantize")
    if device().type == "cpu":
        raise InputError("tuning.lora.quantize: it needs a GPU, and gains nothing without; leave it out")
    if (Path(name) / "adapter_config.json").is_file():
        raise InputError(
            f"{name}: an adapter is not quantised with its base; merge it, or leave tuning.lora.quantize out"
        )


def _nf4() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if fast_bf16() else torch.float32
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def load_tokenizer(name: str) -> Tokenizer:
    """Load the tokenizer of a model, with a padding token.

    Raises:
        InputError: There is none.
    """
    from transformers import AutoTokenizer

    check_model(name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except UNREADABLE as error:
        absent = "" if Path(name).is_dir() else "no such folder here, and as a hub id: "
        raise InputError(f"{name}: {absent}cannot load its tokenizer: {in_short(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(name: str) -> Any:
    """Load the configuration of a model, or of an adapter's base.

    Raises:
        InputError: There is none.
    """
    from transformers import AutoConfig

    check_model(name)
    try:
        return AutoConfig.from_pretrained(_base_of(name) or name, trust_remote_code=False)
    except UNREADABLE as error:
        raise InputError(f"{name}: cannot load its configuration: {in_short(error)}") from error


def _base_of(name: str) -> str | None:
    """What an adapter lies on; None where it is none.

    Raises:
        InputError: Its configuration is damaged.
    """
    adapter = Path(name) / "adapter_config.json"
    if not adapter.is_file():
        return None
    try:
        base = json.loads(adapter.read_text(encoding="utf-8"))["base_model_name_or_path"]
    except UNREADABLE:
        base = None
    if not isinstance(base, str):
        raise InputError(
            f"{name}: its adapter_config.json is damaged, or names no base_model_name_or_path; save the adapter again"
        )
    return base


def in_short(error: Exception) -> str:
    """The first sentence of an error, on one line: those of the hub are long."""
    return " ".join(str(error).split()).split(". ")[0][:300]


def device() -> torch.device:
    """Where models are loaded: this machine's accelerator, if it has one."""
    import torch

    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def fast_bf16() -> bool:
    """Whether bfloat16 matrix products run in hardware here; in software they are slower than float32."""
    import torch

    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)


def context_length(model_or_config: Any) -> int | None:
    """Longest sequence of a model, in tokens; None where its configuration does not say."""
    config = getattr(model_or_config, "config", model_or_config)
    value = getattr(config, "max_position_embeddings", None)
    return int(value) if value else None


def bare_model(model: Model) -> Model:
    """The model inside accelerate's and PEFT's wrappers."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@contextmanager
def plain_generation(model: Model) -> Iterator[None]:
    """In the block, `generate` goes by the config that it is given alone.

    Whatever that one leaves open it would take from the model's own, which may cut unlikely tokens off (`top_p`,
    `min_p`), punish repetition or suppress tokens: the answers would not be the model's distribution any more.
    """
    from transformers import GenerationConfig

    bare = bare_model(model)
    own, bare.generation_config = bare.generation_config, GenerationConfig()
    try:
        yield
    finally:
        bare.generation_config = own


@contextmanager
def in_eval_mode(model: Model) -> Iterator[None]:
    """In the block, dropout is off; after it, the model is in the mode that it was in."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def as_before(parameters: Sequence[torch.nn.Parameter]) -> Iterator[None]:
    """After the block, parameters are again what they were, to the bit."""
    import torch

    kept = [parameter.detach().clone() for parameter in parameters]
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(parameters, kept, strict=True):
                parameter.copy_(value)


@contextmanager
def other_forward(modules: Iterable[Any], forward: Callable[..., Any]) -> Iterator[None]:
    """In the block, modules do something else when they are called."""
    before = [(module, vars(module).get("forward")) for module in modules]
    for module, _ in before:
        module.forward = forward
    try:
        yield
    finally:
        for module, own in before:
            if own is None:
                del module.forward
            else:
                module.forward = own


def save_model(model: Model, tokenizer: Tokenizer, folder: Path) -> None:
    """Save weights (or the adapter) as safetensors, with the tokenizer and its chat template beside them.

    An adapter names the folder of its base from the root, so that it can be loaded from anywhere. One on top of a
    merged one is merged as well: a file of it would name the first one's base as its own.
    """
    if hasattr(model, "peft_config") and getattr(model.get_base_model(), MERGED, False):
        model = model.merge_and_unload()
    for adapter in getattr(model, "peft_config", {}).values():
        if adapter.base_model_name_or_path and Path(adapter.base_model_name_or_path).is_dir():
            adapter.base_model_name_or_path = str(Path(adapter.base_model_name_or_path).resolve())
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


_HASHES: dict[tuple[str, float], str] = {}


def model_hash(name: str) -> str:
    """The fingerprint of a model folder, read once as long as its files stay the same; a hub id as it is.

    An adapter's is that of its base as well. The model card is left out: a report writes it anew.
    """
    folder = Path(name)
    if not folder.is_dir():
        return name
    known = (str(folder.resolve()), max(file.stat().st_mtime for file in folder.rglob("*")))
    if known not in _HASHES:
        _HASHES[known] = fingerprint(folder, without=("README.md",))
    base = _base_of(name)
    if base is None:
        return _HASHES[known]
    return hashlib.sha256(f"{_HASHES[known]} {model_hash(base)}".encode()).hexdigest()


def same_weights(one: str, other: str) -> bool:
    """Whether two names stand for one model: the same folder or hub id, or folders with the same weights."""
    folders = Path(one), Path(other)
    if not all(folder.is_dir() for folder in folders):
        return one == other
    if folders[0].resolve() == folders[1].resolve():
        return True
    weights = [sorted(folder.glob("*.safetensors"), key=_size) for folder in folders]
    # Reading gigabytes is left to the case in which it could matter.
    if not weights[0] or [_size(file) for file in weights[0]] != [_size(file) for file in weights[1]]:
        return False
    return all(filecmp.cmp(mine, theirs, shallow=False) for mine, theirs in zip(*weights, strict=True))


def _size(file: Path) -> int:
    return file.stat().st_size


def fingerprint(path: Path, without: Collection[str] = ()) -> str:
    """SHA-256 of a file, or of a folder's files with their names, but for those of some names; hex."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file() and f.name not in without)
    for file in files:
        digest.update(str(file.relative_to(path.parent if path.is_file() else path)).encode() + b"\0")
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
