"""Letheon: make a trained language model unlearn, keep the rest, and show the evidence.

The names below are imported when they are first used, so that `import letheon` loads no torch. (`letheon.screen` and
`letheon.evaluate` are the packages; the functions of these names are `screen_dialogues` and `evaluate_model` here.)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from letheon.evaluate import evaluate_model
    from letheon.expected import expected_answers
    from letheon.objective import Objective
    from letheon.records import Dialogue, Results, Verdict
    from letheon.rehearsal import rehearse
    from letheon.screen import screen as screen_dialogues
    from letheon.train import UnlearnConfig, UnlearnTrainer, adapter_for, choose_layers

__version__ = "0.1.0"

__all__ = [
    "Dialogue",
    "Objective",
    "Results",
    "UnlearnConfig",
    "UnlearnTrainer",
    "Verdict",
    "adapter_for",
    "choose_layers",
    "evaluate_model",
    "expected_answers",
    "rehearse",
    "screen_dialogues",
]

_WHERE = {
    "Dialogue": ("records", "Dialogue"),
    "Objective": ("objective", "Objective"),
    "Results": ("records", "Results"),
    "UnlearnConfig": ("train", "UnlearnConfig"),
    "UnlearnTrainer": ("train", "UnlearnTrainer"),
    "Verdict": ("records", "Verdict"),
    "adapter_for": ("train", "adapter_for"),
    "choose_layers": ("train", "choose_layers"),
    "evaluate_model": ("evaluate", "evaluate_model"),
    "expected_answers": ("expected", "expected_answers"),
    "rehearse": ("rehearsal", "rehearse"),
    "screen_dialogues": ("screen", "screen"),
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'letheon' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(import_module(f"letheon.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
