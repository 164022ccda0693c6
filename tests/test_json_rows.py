from __future__ import annotations

from pathlib import Path

import pytest

from letheon.errors import InputError
from letheon.json_rows import check_files, read_json_lines, read_json_list


def test_faulty_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('[{"a": 1}, {"b": 2}]', encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.json: row 1: expected an object with a"):
        read_json_list(path, "a")
    path.write_text("[", encoding="utf-8")
    with pytest.raises(InputError, match="not valid JSON"):
        read_json_list(path, "a")
    for text in ("[" * 100_000, "1" * 5000):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=r"rows\.json:1: not valid JSON"):
            read_json_lines(path, "a")
    path.write_bytes(b'[{"a": "\xff"}]')
    for read in (read_json_lines, read_json_list):
        with pytest.raises(InputError, match="not UTF-8; save it as UTF-8"):
            read(path, "a")
    path.write_text('{"a": 1}\n\n{"b": 2}\n', encoding="utf-8")
    with pytest.raises(InputError, match=r"rows\.json:3: expected an object with a"):
        read_json_lines(path, "a")


def test_missing_files_are_all_named(tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    with pytest.raises(InputError) as error:
        check_files(tmp_path, ["here", "there", "nowhere"])
    assert len(error.value.faults) == 2
