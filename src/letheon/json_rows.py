"""Rows of public data sets, as their own files hold them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from letheon.dialogues import BAD_JSON, BadRowError, file_rows
from letheon.errors import InputError


def check_files(folder: Path, names: Sequence[str]) -> None:
    """Look for the files that a task reads.

    Raises:
        InputError: Every one that is not there.
    """
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise InputError([f"{folder / name}: no such file; name its folder with --data" for name in missing])


def read_json_lines(path: Path, *fields: str) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file, each with the fields that are needed.

    Raises:
        InputError: A line is no such object.
    """
    rows = []
    # Not splitlines(): it also splits at U+2028 and its like, which JSON allows inside strings.
    for number, line in enumerate(read_utf8(path).split("\n"), start=1):
        if line.strip():
            rows.append(_checked(_parsed(line, f"{path}:{number}"), fields, f"{path}:{number}"))
    return rows


def read_json_list(path: Path, *fields: str) -> list[dict[str, Any]]:
    """The objects of a JSON file that holds a list of them; see `read_json_lines`."""
    rows = _parsed(read_utf8(path), str(path))
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list of objects")
    return [_checked(row, fields, f"{path}: row {number}") for number, row in enumerate(rows)]


def read_utf8(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: It is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8; save it as UTF-8") from None


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except BAD_JSON:
        raise InputError(f"{where}: not valid JSON") from None


def _checked(row: Any, fields: Sequence[str], where: str) -> dict[str, Any]:
    if not isinstance(row, dict) or not set(fields) <= row.keys():
        raise InputError(f"{where}: expected an object with {', '.join(fields)}")
    return row


def read_rows(path: Path, *fields: str, texts: bool = False) -> list[dict[str, Any]]:
    """The rows of a .jsonl, .json, .csv or .parquet file, each with the fields that are needed.

    Args:
        path: The file.
        fields: Their names.
        texts: What stands in them must be texts, and not empty.

    Raises:
        InputError: The file is none of these, or its first row that lacks a field.
    """
    rows = []
    for place, row in file_rows(path):
        if isinstance(row, BadRowError):
            raise InputError(f"{path}:{place}: {row}")
        rows.append(_checked(row, fields, f"{path}: row {place}"))
        if texts and not all(isinstance(text := rows[-1][field], str) and text.strip() for field in fields):
            raise InputError(f"{path}: row {place}: {', '.join(fields)} have to be texts, and none of them empty")
    if not rows:
        raise InputError(f"{path}: there is no row in it")
    return rows
