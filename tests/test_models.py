from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from letheon import models
from letheon.errors import InputError, MissingExtraError, missing_modules
from letheon.models import (
    Model,
    cache_folder,
    check_model,
    context_length,
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
    model_hash,
    save_model,
)

on_a_gpu = pytest.mark.skipif(
    not torch.cuda.is_available() or bool(missing_modules("quantize")), reason="needs a CUDA GPU and bitsandbytes"
)


def add_adapter(source: Path, target: Path) -> torch.Tensor:
    """Put a random adapter on a model and save it; what it says."""
    config = LoraConfig(target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    model = get_peft_model(load_model(str(source)), config).eval()
    # Before it is saved, which may merge it.
    said = logits(model)
    save_model(model, load_tokenizer(str(source)), target)
    return said


def logits(model: Model) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(torch.arange(9, device=model.device)[None]).logits.cpu()
    return result


def test_an_adapter_comes_back_as_it_was(tiny_model_dir: Path, tmp_path: Path) -> None:
    before = add_adapter(tiny_model_dir, tmp_path / "first")
    assert (tmp_path / "first" / "adapter_config.json").is_file()
    torch.testing.assert_close(logits(load_model(str(tmp_path / "first"))), before, atol=1e-4, rtol=1e-4)


def test_an_adapter_finds_its_base_from_anywhere(
    tiny_model: Callable[..., Model], tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "here" / "model")
    monkeypatch.chdir(tmp_path / "here")
    before = add_adapter(Path("model"), Path("adapter"))
    # Another model of the same name lies where it is loaded from.
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    save_model(tiny_model(seed=1), load_tokenizer(str(tiny_model_dir)), Path("model"))
    torch.testing.assert_close(logits(load_model("../here/adapter")), before, atol=1e-4, rtol=1e-4)
    (tmp_path / "here" / "model").rename(tmp_path / "here" / "gone")
    with pytest.raises(InputError, match="an adapter, and what it lies on is not there: .*no such model folder"):
        check_model("../here/adapter")


def test_an_adapter_on_an_adapter_keeps_both(tiny_model_dir: Path, tmp_path: Path) -> None:
    add_adapter(tiny_model_dir, tmp_path / "first")
    before = add_adapter(tmp_path / "first", tmp_path / "second")
    # Whole weights: an adapter of this kind could only name the first one's base.
    assert not (tmp_path / "second" / "adapter_config.json").exists()
    torch.testing.assert_close(logits(load_model(str(tmp_path / "second"))), before, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "files", "fault"),
    [
        ("./gone", (), "no such model folder; give a folder saved by save_pretrained, or a hub id"),
        ("/gone", (), "no such model folder"),
        ("gone", (), "no such model folder"),
        ("a/b/c", (), "no such model folder"),
        ("empty", ("readme.txt",), "neither config.json nor adapter_config.json"),
        ("pickled", ("config.json", "pytorch_model.bin"), "no weights as *.safetensors"),
    ],
)
def test_what_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, files: tuple[str, ...], fault: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for file in files:
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / file).write_text("{}")
    with pytest.raises(InputError) as caught:
        check_model(name)
    assert fault in str(caught.value)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("kind", ["named otherwise", "half", "another shape"])
def test_weights_are_never_made_up(tiny_model_dir: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    file = tmp_path / "model/model.safetensors"
    weights = load_file(file)
    if kind == "named otherwise":
        weights = {f"_orig_mod.{name}": weight for name, weight in weights.items()}
    elif kind == "half":
        weights = {name: weight for name, weight in weights.items() if ".layers.1." not in name}
    else:
        weights["model.norm.weight"] = torch.ones(3)
    save_file(weights, file, metadata={"format": "pt"})
    fault = "cannot load this model" if kind == "another shape" else "of the weights that config.json asks for"
    with pytest.raises(InputError, match=fault):
        load_model(str(tmp_path / "model"))


def test_weights_of_an_adapter_are_never_made_up(tiny_model_dir: Path, tmp_path: Path) -> None:
    add_adapter(tiny_model_dir, tmp_path / "adapter")
    file = tmp_path / "adapter/adapter_model.safetensors"
    save_file(dict(list(load_file(file).items())[1:]), file)
    with pytest.raises(InputError, match="missing adapter keys"):
        load_model(str(tmp_path / "adapter"))


@pytest.mark.parametrize(
    ("file", "content", "load"),
    [
        ("tokenizer.json", "{}", load_tokenizer),
        ("config.json", "[]", load_config),
        ("config.json", "[]", load_model),
    ],
)
def test_damaged_files_are_named(
    tiny_model_dir: Path, tmp_path: Path, file: str, content: str, load: Callable[[str], object]
) -> None:
    shutil.copytree(tiny_model_dir, tmp_path / "model")
    (tmp_path / "model" / file).write_text(content)
    with pytest.raises(InputError, match="cannot load"):
        load(str(tmp_path / "model"))


@pytest.mark.parametrize(
    "content", ['{"base_model_name', "{}", "[]", '{"base_model_name_or_path": null}', "9" * 5000]
)
def test_a_damaged_adapter_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "adapter_config.json").write_text(content)
    (tmp_path / "adapter_model.safetensors").touch()
    for load in (check_model, load_model, load_config):
        with pytest.raises(InputError, match=r"its adapter_config\.json is damaged, or names no base"):
            load(str(tmp_path))


def test_a_hub_id_is_left_to_the_hub() -> None:
    check_model("org/name")


def test_context_of_a_model_and_of_an_adapter(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert context_length(load_config(str(tiny_model_dir))) == 512
    add_adapter(tiny_model_dir, tmp_path / "adapter")
    assert context_length(load_config(str(tmp_path / "adapter"))) == 512
    assert context_length(object()) is None


def test_damaged_models_are_named_in_one_line(tiny_model_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((tiny_model_dir / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"half")
    for load in (load_model, load_tokenizer):
        with pytest.raises(InputError, match="cannot load") as caught:
            load(str(tmp_path))
        assert "\n" not in str(caught.value)
    (tmp_path / "config.json").write_text("{oops")
    with pytest.raises(InputError, match="cannot load its configuration"):
        load_config(str(tmp_path))


def test_weights_are_float32_and_a_padding_token_is_there(tiny_model_dir: Path) -> None:
    assert {parameter.dtype for parameter in load_model(str(tiny_model_dir)).parameters()} == {torch.float32}
    assert load_tokenizer(str(tiny_model_dir)).pad_token_id is not None


def test_a_models_hash_is_of_what_it_computes_with(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "config.json").write_text("{}")
    (base / "model.safetensors").write_text("1")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    known = model_hash(str(base)), model_hash(str(adapter))
    assert known[0] != known[1]
    (base / "README.md").write_text("a card that a report writes")
    assert (model_hash(str(base)), model_hash(str(adapter))) == known
    (base / "model.safetensors").write_text("2")
    assert model_hash(str(base)) != known[0]
    assert model_hash(str(adapter)) != known[1]
    assert model_hash("org/name") == "org/name"


def test_fingerprint_is_of_names_and_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "one").write_text("1")
        (tmp_path / name / "two").write_text("2")
    same = fingerprint(tmp_path / "a")
    assert same == fingerprint(tmp_path / "b")
    (tmp_path / "b/two").rename(tmp_path / "b/three")
    assert fingerprint(tmp_path / "b") != same
    (tmp_path / "a/two").write_text("3")
    assert fingerprint(tmp_path / "a") != same
    assert len(fingerprint(tmp_path / "a/one")) == 64


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LETHEON_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("LETHEON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/letheon")


@on_a_gpu
def test_a_base_in_4_bits(tiny_model: Callable[..., Model], tmp_path: Path) -> None:
    # The smallest block of weights that are quantised together.
    tiny_model(hidden_size=64, intermediate_size=128).save_pretrained(tmp_path)
    model = load_model(str(tmp_path), quantize="nf4")
    assert model.model.layers[0].self_attn.q_proj.weight.dtype == torch.uint8
    assert model.lm_head.weight.dtype == torch.float32
    said, whole = (logits(one).flatten() for one in (model, load_model(str(tmp_path))))
    assert 0.8 < torch.nn.functional.cosine_similarity(said, whole, dim=0) < 1


@on_a_gpu
def test_an_adapter_is_not_quantised_with_its_base(tiny_model_dir: Path, tmp_path: Path) -> None:
    add_adapter(tiny_model_dir, tmp_path / "adapter")
    with pytest.raises(InputError, match="leave tuning.lora.quantize out"):
        load_model(str(tmp_path / "adapter"), quantize="nf4")


def test_quantising_needs_a_gpu(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.errors._is_installed", lambda module: True)
    monkeypatch.setattr(models, "device", lambda: torch.device("cpu"))
    with pytest.raises(InputError, match="it needs a GPU"):
        load_model(str(tiny_model_dir), quantize="nf4")


def test_quantising_is_an_extra(tiny_model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.errors._is_installed", lambda module: False)
    with pytest.raises(MissingExtraError, match=r"pip install 'letheon\[quantize\]'"):
        load_model(str(tiny_model_dir), quantize="nf4")
