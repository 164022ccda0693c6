"""The api judge against a server that people run: llama.cpp's own, with the demo's model in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from turns import make_turn

from letheon.recipe import Api
from letheon.screen.api import ApiJudge

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def llama_cpp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of llama.cpp's server, in this process and on loopback."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp's server is missing: pip install xllamacpp")
    from letheon.demo.weights import fetch_gguf

    settings = xllamacpp.CommonParams()
    settings.model.path = str(fetch_gguf(tmp_path_factory.mktemp("gguf")))
    settings.n_ctx, settings.n_parallel, settings.cpuparams.n_threads = 4096, 2, 1
    server = xllamacpp.Server(settings)
    yield f"{server.listening_address}/v1"
    # It runs as long as somebody holds it.
    del server


def test_verdicts_of_a_real_server(llama_cpp: str, tmp_path: Path) -> None:
    turns = [make_turn("How are you?", f"I am fine, thank you. {number}", name=str(number)) for number in range(4)]
    settings = Api(url=llama_cpp, model="smollm2", rubrics={"harmful": None}, concurrency=2, timeout=300)
    judge = ApiJudge(settings, tmp_path / "scores.jsonl")
    opinions = judge.judge(turns)
    # The model is far too small to judge; that it is held to the form of a verdict is the server's doing.
    for opinion in opinions:
        assert opinion is not None
        assert not opinion.unable, opinion.reason
        assert 0 <= opinion.score <= 1
    assert judge.judge(turns) == opinions
