from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from letheon.screen.kept import held, kept_open


class Door:
    """Remembers what happens to it."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextmanager
    def opened(self) -> Iterator[str]:
        self.seen.append("open")
        try:
            yield f"room {len(self.seen)}"
        finally:
            self.seen.append("close")


def test_a_thing_is_opened_for_each_block() -> None:
    door = Door()
    for _ in range(2):
        with held("door", door.opened):
            pass
    assert door.seen == ["open", "close"] * 2


def test_within_an_outer_block_once() -> None:
    door, other = Door(), Door()
    with kept_open():
        for _ in range(2):
            with kept_open(), held("door", door.opened) as room, held("other", other.opened):
                assert room == "room 1"
        assert door.seen == other.seen == ["open"]
    assert door.seen == other.seen == ["open", "close"]
    with held("door", door.opened):
        pass
    assert door.seen == ["open", "close"] * 2


def test_an_error_closes_it() -> None:
    door = Door()
    with pytest.raises(KeyboardInterrupt), kept_open(), held("door", door.opened):
        raise KeyboardInterrupt
    assert door.seen == ["open", "close"]
    with kept_open(), held("door", door.opened) as room:
        assert room == "room 3"
