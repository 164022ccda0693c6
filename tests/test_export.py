from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from letheon.models import load_model, load_tokenizer

Letheon = Callable[..., tuple[int, str, str]]


def test_merged_weights_are_those_that_were_measured(finished: Path, letheon: Letheon) -> None:
    code, out, err = letheon("export", "run", "--merge", "merged")
    assert (code, out) == (0, "")
    assert "merged: merged weights, as they were measured" in err
    assert not (finished / "merged/adapter_config.json").exists()
    measured, exported = load_model("run/model"), load_model("merged")
    for (name, one), (_, other) in zip(measured.state_dict().items(), exported.state_dict().items(), strict=True):
        assert torch.equal(one, other), name
    assert load_tokenizer("merged").chat_template == load_tokenizer("model").chat_template
    assert "These weights make" in (finished / "merged/README.md").read_text()
    # They need no base: its folder is not named anywhere.
    assert str(finished) not in (finished / "merged/config.json").read_text()


def test_an_adapter_is_copied_with_a_warning(finished: Path, letheon: Letheon) -> None:
    code, _, err = letheon("export", "run", "adapter")
    assert code == 0
    assert "The base forgets nothing" in err
    assert "letheon export run --merge OUT" in err
    own, copy = (load_file(finished / f / "adapter_model.safetensors") for f in ("run/model", "adapter"))
    assert own.keys() == copy.keys()
    assert all(torch.equal(own[name], copy[name]) for name in own)


def test_what_was_not_forgotten_is_said(finished: Path, letheon: Letheon) -> None:
    file = finished / "run/results.json"
    results = json.loads(file.read_text())
    results["verdict"] = {"forgotten": "no", "why": "Not forgotten: 0.9 > 0.3."}
    file.write_text(json.dumps(results))
    assert "exported all the same: Not forgotten: 0.9 > 0.3." in letheon("export", "run", "out", "--merge")[2]


def test_what_was_not_evaluated_was_not_measured(finished: Path, letheon: Letheon) -> None:
    file = finished / "run/results.json"
    results = json.loads(file.read_text())
    results["verdict"] = None
    file.write_text(json.dumps(results))
    err = letheon("export", "run", "out", "--merge")[2]
    assert "exported all the same: it has not been evaluated" in err
    assert "out: merged weights\n" in err


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda: Path("out").write_text("mine"), "out: there is something already; name another folder"),
        (lambda: Path("out/mine").mkdir(parents=True), "out: there is something already; name another folder"),
        (lambda: Path("run/model").rename("elsewhere"), "run: no model to export: run 'letheon unlearn run' first"),
    ],
)
def test_refusals(finished: Path, letheon: Letheon, prepare: Callable[[], object], said: str) -> None:
    prepare()
    code, _, err = letheon("export", "run", "out")
    assert (code, err) == (2, f"letheon: {said}\n")
