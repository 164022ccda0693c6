"""What judges open once for a whole stage: weights, a server's budget, what it has answered."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


class _Kept:
    """What is open: by its key, and how it is closed."""

    def __init__(self) -> None:
        self.things: dict[Hashable, Any] = {}
        self.ends = ExitStack()


# Of the process, not of a thread: Ray makes a worker in one thread and calls it in another.
_kept: _Kept | None = None


@contextmanager
def kept_open() -> Iterator[None]:
    """Within the block, whatever `held` opens stays open until the block ends."""
    global _kept
    if _kept is not None:
        yield
        return
    _kept = _Kept()
    try:
        with _kept.ends:
            yield
    finally:
        _kept = None


@contextmanager
def held(key: Hashable, opened: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Open something for a block; within `kept_open` it is opened once, and closed with that.

    Args:
        key: Stands for it.
        opened: Opens it.
    """
    if _kept is None:
        with opened() as thing:
            yield thing
        return
    if key not in _kept.things:
        _kept.things[key] = _kept.ends.enter_context(opened())
    yield _kept.things[key]
