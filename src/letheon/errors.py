"""The errors a user may meet. Each carries the exit code of the command line and prints without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class LetheonError(Exception):
    """Base of every error that is told to the user in plain words."""

    exit_code = 2


class InputError(LetheonError):
    """The user's input is wrong (exit code 2). The message says what was passed, what is allowed, what to do."""

    def __init__(self, faults: str | Sequence[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("\n".join(self.faults))


class MissingExtraError(LetheonError):
    """An optional part is not installed (exit code 3)."""

    exit_code = 3

    def __init__(self, what: str, extra: str):
        self.extra = extra
        super().__init__(f"{what} needs the extra '{extra}': pip install 'letheon[{extra}]'")


class GateError(LetheonError):
    """The work was done, but its outcome fails a gate: nothing forgotten, or too much (exit code 1)."""

    exit_code = 1
