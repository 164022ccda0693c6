"""What is known of each sequence under θ₀, in files that are mapped into memory: as much as there is disk for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from letheon.models import Model

if TYPE_CHECKING:
    from letheon.chat import Encoded


class Store:
    """Tensors by name. What has been put in is read from its file, page by page as it is needed.

    Args:
        folder: Where the files are written; None keeps everything in memory.
        key: What the tensors hold for, such as the hash of a model. Files in the folder that have the same key are
            read, others that a store has written removed. None: for this run alone, and its files lose their names
            as soon as they are mapped.
    """

    def __init__(self, folder: Path | None = None, key: str | None = None):
        self._folder = folder
        self._key = key
        self._tensors: dict[str, Tensor] = {}
        if folder is not None:
            for file in sorted(folder.glob("letheon-*")):
                # A file of another ending has been cut off while it was written.
                if key is None or file.suffix != ".safetensors" or not self._read(file):
                    _remove(file)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def update(self, tensors: Mapping[str, Tensor]) -> None:
        """Put tensors in, on the CPU."""
        if self._folder is None:
            self._tensors.update(tensors)
            return
        from safetensors.torch import save_file

        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / f"letheon-{uuid.uuid4().hex}.safetensors"
        # One that has been cut off must not look like a whole one.
        written = file.with_suffix(".part")
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, written, {"key": self._key or ""})
        written.rename(file)
        self._read(file)
        if self._key is None:
            # The mapping outlives the name.
            _remove(file)

    def _read(self, file: Path) -> bool:
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        try:
            with safe_open(file, "pt") as opened:
                if (opened.metadata() or {}).get("key") != (self._key or ""):
                    return False
        except SafetensorError:
            return False
        self._tensors.update(load_file(file))
        return True


def _remove(file: Path) -> None:
    # Windows keeps a file that is mapped, until its folder is removed.
    with contextlib.suppress(PermissionError):
        file.unlink()


def key_of(model: Model, *settings: Any) -> str:
    """The key of what a model of these weights and this configuration says, under these settings."""
    config = model.config.to_dict()
    # Where it was loaded from does not change what it says.
    config.pop("_name_or_path", None)
    key = hashlib.sha256(repr((settings, sorted(config.items()))).encode())
    for name, weight in model.state_dict().items():
        key.update(f"{name} {weight.dtype}".encode())
        key.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return key.hexdigest()


def digest(sequence: Encoded) -> str:
    """A name for a sequence: by its tokens, and by which of them are answers."""
    return hashlib.sha256(json.dumps([sequence.ids, sequence.answer_mask]).encode()).hexdigest()[:32]
