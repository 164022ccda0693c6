"""Progress of a training on our own console instead of the Trainer's."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from letheon.console import OnProgress


def quiet(trainer: Trainer, update: OnProgress) -> None:
    """Take the Trainer's own bar and prints away, and tell `update` (step, steps that it may take in all)."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Steps(trainer, update))


class _Steps(TrainerCallback):  # type: ignore[misc]
    def __init__(self, trainer: Trainer, update: OnProgress):
        self.trainer = trainer
        self.update = update

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tell(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._tell(state)

    def _tell(self, state: Any) -> None:
        steps = getattr(self.trainer, "expected_steps", lambda: None)()
        total = state.max_steps if steps is None else min(max(steps, state.global_step + 1), state.max_steps)
        self.update(state.global_step, total)
