"""The store: what is put in comes out, and of whom it tells is not left behind unasked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from letheon.chat import Encoded
from letheon.store import Store, digest, key_of


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int32, torch.bool])
@pytest.mark.parametrize("on_disk", [False, True])
def test_what_is_put_in_comes_out(tmp_path: Path, dtype: torch.dtype, on_disk: bool) -> None:
    store = Store(tmp_path / "cache" if on_disk else None)
    one, other = (torch.randn(5, 3) * 9).to(dtype), (torch.randn(2, 4) * 9).to(dtype).T
    store.update({"one": one})
    store.update({"other": other, "none": torch.zeros(0, 3)})
    assert torch.equal(store["one"], one)
    assert torch.equal(store["other"], other)
    assert store["none"].shape == (0, 3)
    assert "one" in store
    assert "two" not in store


def test_no_file_is_left_even_while_it_is_used(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.update({"one": torch.arange(1000.0)})
    assert list(tmp_path.iterdir()) == []
    assert float(store["one"].sum()) == 499500


def test_a_key_keeps_it_for_the_next_time(tmp_path: Path) -> None:
    store = Store(tmp_path, key="model 1")
    store.update({"one": torch.ones(3)})
    store.update({"two": torch.zeros(2)})
    again = Store(tmp_path, key="model 1")
    assert torch.equal(again["one"], torch.ones(3))
    assert torch.equal(again["two"], torch.zeros(2))


@pytest.mark.parametrize("key", ["model 2", None])
def test_what_holds_for_another_model_is_removed(tmp_path: Path, key: str | None) -> None:
    Store(tmp_path, key="model 1").update({"one": torch.ones(3)})
    assert "one" not in Store(tmp_path, key=key)
    assert list(tmp_path.iterdir()) == []
    assert "one" not in Store(tmp_path, key="model 1")


def test_a_file_that_was_cut_off_is_not_read(tmp_path: Path) -> None:
    Store(tmp_path, key="a").update({"one": torch.ones(3)})
    (file,) = tmp_path.iterdir()
    file.with_suffix(".part").write_bytes(file.read_bytes()[:20])
    file.unlink()
    assert "one" not in Store(tmp_path, key="a")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"another's")
    (tmp_path / "folder").mkdir()
    (tmp_path / "letheon-0.safetensors").write_bytes(b"no such file")
    for key in (None, "a"):
        Store(tmp_path, key).update({"one": torch.ones(3)})
    assert {path.name for path in tmp_path.iterdir()} >= {"model.safetensors", "folder"}
    assert not (tmp_path / "letheon-0.safetensors").exists()


def test_sequences_are_named_by_their_tokens_and_answers() -> None:
    one = Encoded([1, 2, 3], [False, False, True])
    other = Encoded([1, 2, 3], [False, True, True])
    assert digest(one) == digest(Encoded([1, 2, 3], [False, False, True]))
    assert len({digest(one), digest(other), digest(Encoded([12, 3], [False, True]))}) == 3


def test_the_key_is_that_of_weights_and_settings(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model()
    key = key_of(model, True, 64)
    assert key == key_of(tiny_model(), True, 64)
    assert key != key_of(model, True, 32)
    assert key != key_of(tiny_model().to(torch.bfloat16), True, 64)
    # What a model says hangs on its configuration as well, but not on where it was loaded from.
    other = tiny_model()
    other.config._name_or_path = "elsewhere"
    assert key == key_of(other, True, 64)
    other.config.rms_norm_eps *= 10
    assert key != key_of(other, True, 64)
    with torch.no_grad():
        model.model.layers[1].mlp.down_proj.weight[0, 0] += 1e-6
    assert key != key_of(model, True, 64)
