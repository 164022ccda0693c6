from __future__ import annotations

import pytest

from letheon.embed import Embedder


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder()
