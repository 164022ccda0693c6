"""How far slow judges are within a batch, for whoever listens; a judge that tells nothing moves when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Listener = Callable[[float], None]
"""Hears the share that is done, in [0, 1]."""

_listener: Listener | None = None


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Within the block, what is told is heard."""
    global _listener
    outer, _listener = _listener, listener
    try:
        yield
    finally:
        _listener = outer


def tell(done: int, total: int) -> None:
    """Say how far it is."""
    if _listener is not None:
        _listener(done / total)


@contextmanager
def part(number: int, of: int) -> Iterator[None]:
    """Within the block, what is told is of the one of so many equal parts."""
    outer = _listener
    if outer is None:
        yield
        return
    with heard_by(lambda share: outer((number + share) / of)):
        yield
    outer((number + 1) / of)
