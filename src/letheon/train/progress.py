"""Progress of a training on our own console instead of the Trainer's."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from letheon.console import OnProgress


def quiet(trainer: Trainer, update: OnProgress) -> None:
    """Take the Trainer's own bar and prints away, and tell `update` (step, most steps)."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Steps(update))


class _Steps(TrainerCallback):  # type: ignore[misc]
    def __init__(self, update: OnProgress):
        self.update = update

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.update(state.global_step, state.max_steps)
