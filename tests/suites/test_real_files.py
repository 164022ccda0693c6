"""The suites read the public data sets as they are; no model is asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from letheon.suites import hallucination, tofu
from letheon.suites.options import Options


@pytest.mark.shared_data
@pytest.mark.parametrize(("split", "size"), [("forget01", 40), ("forget05", 200), ("forget10", 400)])
def test_tofu(shared_data: Path, split: str, size: int) -> None:
    suite = tofu.read(shared_data / "tofu", Options(split=split))
    sizes = {name: len(items) for name, items in suite.asked.items()}
    assert sizes == {"forget": size, "retain": 400, "real_authors": 100, "world_facts": 117}
    assert len(suite.given["forget: wrong"]) == 5 * size
    assert len(suite.given["world_facts: wrong"]) == 3 * 117


@pytest.mark.shared_data
def test_truthfulqa(shared_data: Path) -> None:
    suite = hallucination.read(shared_data / "truthfulqa", Options())
    assert len(suite.asked["questions"]) == 817
    assert len(suite.given["options"]) > 5000
    assert len(hallucination.read(shared_data / "truthfulqa", Options(limit=10)).asked["questions"]) == 10
