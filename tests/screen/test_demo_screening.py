from __future__ import annotations

from importlib.resources import as_file, files

import pytest

from letheon.dialogues import read_dialogues
from letheon.embed import Embedder
from letheon.recipe import Screen
from letheon.screen import build_judges, score_screening, screen


@pytest.mark.slow
def test_the_demos_screening_finds_what_is_labelled(embedder: Embedder) -> None:
    with as_file(files("letheon.demo") / "data") as folder:
        log = read_dialogues(folder / "log.jsonl")
        settings = Screen(judges=["embedding", "privacy", "contradiction"], examples=folder / "screen_examples.jsonl")
        verdicts = screen(log, build_judges(settings, embedder))
    found = score_screening(verdicts, log)
    assert found.precision is not None
    assert found.recall is not None
    assert found.precision >= 0.9
    assert found.recall >= 0.9
