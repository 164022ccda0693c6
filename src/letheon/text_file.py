"""The text files that settings and options name."""

from __future__ import annotations

from pathlib import Path

from letheon.errors import InputError


def read_text(path: Path, setting: str) -> str:
    """The text of a file, with or without a byte order mark.

    Raises:
        InputError: There is none, or it is no text; the setting is named.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file ({setting})") from None
    except (OSError, UnicodeDecodeError):
        raise InputError(f"{path}: not readable as UTF-8 text ({setting})") from None
