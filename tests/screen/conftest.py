from __future__ import annotations

import pytest

from letheon.embed import Embedder
from letheon.screen.embedding import EmbeddingJudge


@pytest.fixture(scope="session")
def embedder() -> Embedder:
    return Embedder()


@pytest.fixture(scope="session")
def prior(embedder: Embedder) -> EmbeddingJudge:
    return EmbeddingJudge.prior(embedder)
