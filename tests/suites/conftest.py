from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from suite_files import WRITERS


@pytest.fixture
def suite_data(tmp_path: Path) -> Callable[[str], Path]:
    """Write the files of a suite: `suite_data("tofu")` → their folder."""

    def write(name: str) -> Path:
        folder = tmp_path / f"{name} data"
        folder.mkdir()
        WRITERS[name](folder)
        return folder

    return write


@pytest.fixture(scope="session")
def control_dir(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Callable[..., Any], tiny_tokenizer: Any
) -> Path:
    """Another tiny model's folder."""
    folder = tmp_path_factory.mktemp("control")
    tiny_model(seed=1).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def words_in_place_of_minilm(monkeypatch: pytest.MonkeyPatch, hashed_embeddings: None) -> None:
    monkeypatch.setattr("letheon.screen.embedding.has_embedder", lambda: False)
    for module in ("measure", "suites.run"):
        monkeypatch.setattr(f"letheon.{module}.release_memory", lambda: None)
