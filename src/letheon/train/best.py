"""The best state on the way, for a training that ends in a worse one."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn


class BestState:
    """The best weights so far, on disk: a copy in memory would cost as much as the model in full tuning.

    Args:
        file: Where they lie.
    """

    def __init__(self, file: Path):
        self.file = file

    def save(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """These are the best."""
        from safetensors.torch import save_file

        self.file.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: parameter.detach().contiguous() for name, parameter in parameters.items()}, self.file)

    @torch.no_grad()
    def load(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Put them back."""
        from safetensors.torch import load_file

        saved = load_file(self.file)
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])

    def copy_to(self, folder: Path) -> None:
        """Into a checkpoint."""
        shutil.copyfile(self.file, folder / self.file.name)

    def copy_from(self, folder: Path) -> None:
        """From a checkpoint: the run may have found a better state after it, or ended and tidied up."""
        if (folder / self.file.name).is_file():
            shutil.copyfile(folder / self.file.name, self.file)

    def remove(self) -> None:
        """Of no use any more."""
        self.file.unlink(missing_ok=True)
