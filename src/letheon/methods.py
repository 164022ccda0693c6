"""Published methods by name, each as its authors set it: what `method` in a recipe stands for.

A method is a recipe's settings and nothing else: which terms, their weights and parameters, plain tuning, and the
authors' schedule without a stop rule of ours. What a recipe says itself wins. Left out on purpose: the kind of
tuning, which is the user's, and the learning rate, which goes by the size of the model. docs/methods.md has the
sources, and what differs from the papers.
"""

from __future__ import annotations

import difflib
from copy import deepcopy
from typing import Any

from letheon.errors import InputError


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """New nested settings, of which the second win over the first; a section without a line says nothing."""
    found = deepcopy(below)
    for key, value in above.items():
        held = found.get(key)
        if isinstance(held, dict) and (value is None or isinstance(value, dict)):
            found[key] = merged(held, value or {})
        else:
            found[key] = deepcopy(value)
    return found


def without(settings: dict[str, Any], filled: dict[str, Any]) -> dict[str, Any]:
    """Nested settings less those that are as another filled them."""
    found = {}
    for key, value in settings.items():
        if isinstance(value, dict) and isinstance(filled.get(key), dict):
            found[key] = without(value, filled[key])
        elif key not in filled or filled[key] != value:
            found[key] = value
    return found


def at(settings: Any, *path: str) -> Any:
    """What nested settings have at a path; None where it leads nowhere."""
    for part in path:
        settings = settings.get(part) if isinstance(settings, dict) else None
    return settings


def _published(
    negative: dict[str, Any],
    normal: dict[str, Any],
    positive: dict[str, Any] | None = None,
    *,
    lora: dict[str, Any] | None = None,
    epochs: int = 10,
    batch: int = 32,
    **sections: dict[str, Any],
) -> dict[str, Any]:
    """A method's settings: its terms, on plain tuning, under its schedule."""
    step = min(batch, 4)
    plain = {
        "objective": {
            "negative": negative,
            "positive": positive or {"name": "none"},
            "normal": {"weight": 1.0, "dual_rate": 0.0, "rehearsal": False, **normal},
            "balance": False,
        },
        "tuning": {
            "layers": "all",
            "damping": None,
            # The rank of whom only full tuning is published by is ours.
            "lora": {"r": 16, "alpha": 32, "exclude_modules": [], "init": "random", **(lora or {})},
            "full": {"directions": 0},
        },
        "train": {
            "stop_rule": False,
            "num_train_epochs": epochs,
            "per_device_train_batch_size": step,
            "gradient_accumulation_steps": batch // step,
            "normal_per_forget": 1,
            # A tenth of the steps: TOFU's one epoch of ten.
            "lr_scheduler_type": "linear",
            "warmup_steps": 0.1,
            "weight_decay": 0.01,
        },
    }
    return merged(plain, sections)


ABSTENTIONS = {"sources": ["safe-replies"]}
DRAWN = {"name": "uniform", "weight": 0.0}
"""Expected answers that a negative term reads, all alike, and that nothing pulls toward."""

DOWN = {"target_modules": ["down_proj"]}

METHODS: dict[str, dict[str, Any]] = {
    "letheon": {},
    # What the base is, a recipe must say itself.
    "letheon-base": {"objective": {"negative": {"name": "base"}}},
    "ga": _published({"name": "gradient-ascent"}, {"name": "none"}, epochs=5),
    "graddiff": _published({"name": "gradient-ascent"}, {"name": "ce"}, epochs=5),
    "ga-kl": _published({"name": "gradient-ascent"}, {"name": "kl"}, epochs=5),
    "yao": _published(
        {"name": "gradient-ascent", "weight": 0.5},
        {"name": "kl"},
        {"name": "uniform", "weight": 1.0},
        batch=2,
        expected={"sources": ["mismatch"]},
    ),
    "refusal": _published({"name": "none"}, {"name": "ce"}, {"name": "uniform", "weight": 1.0}, expected=ABSTENTIONS),
    "idk-ap": _published(
        {"name": "none"},
        {"name": "ap", "beta": 0.1},
        {"name": "uniform", "weight": 1.0},
        epochs=5,
        expected=ABSTENTIONS,
    ),
    "idk-dpo": _published({"name": "dpo", "beta": 0.1}, {"name": "ce"}, DRAWN, expected=ABSTENTIONS),
    "altpo": _published(
        {"name": "dpo", "beta": 0.1}, {"name": "ce"}, DRAWN, expected={"sources": ["alternates"], "samples": 5}
    ),
    "npo": _published({"name": "npo", "beta": 0.1}, {"name": "ce"}, batch=16),
    "npo-sam": _published({"name": "npo", "beta": 0.1, "sam_rho": 0.01}, {"name": "ce"}, batch=16),
    "simnpo": _published({"name": "simnpo", "beta": 2.5, "gamma": 0.0, "weight": 0.1375}, {"name": "ce"}),
    # The layers that learn follow from the one that is read.
    "rmu": _published(
        {"name": "rmu", "steering": 20.0},
        {"name": "states", "weight": 1200.0},
        lora=DOWN,
        epochs=5,
        batch=4,
        tuning={"layers": None},
    ),
    "adaptive-rmu": _published(
        {"name": "adaptive-rmu", "scale": 5.0},
        {"name": "states", "weight": 1200.0},
        lora=DOWN,
        epochs=5,
        batch=4,
        tuning={"layers": None},
    ),
    "undial": _published({"name": "undial", "beta": 10.0}, {"name": "none"}, lora={"r": 8, "alpha": 16}),
    "nlul": _published({"name": "nlul"}, {"name": "kl"}),
    "ce-u": _published({"name": "nlul", "tokens": "without-first"}, {"name": "none"}),
    "wga": _published({"name": "wga", "beta": 1.0}, {"name": "ce"}, epochs=5, batch=16),
    "satimp": _published({"name": "satimp", "beta1": 5.0, "beta2": 1.0}, {"name": "ce", "weight": 0.1}),
    "ihl": _published({"name": "inverted-hinge"}, {"name": "ce"}, lora={"r": 32, "alpha": 64}, epochs=5),
    "loku": _published(
        {"name": "inverted-hinge"}, {"name": "ce"}, lora={"r": 32, "alpha": 64, "init": "fila"}, epochs=5
    ),
    "flat-tv": _published({"name": "flat-tv"}, {"name": "none"}, DRAWN, epochs=5),
    "jensun": _published({"name": "jensun"}, {"name": "js"}, {"name": "single", "weight": 0.0}, expected=ABSTENTIONS),
    "me-gd": _published({"name": "max-entropy", "weight": 0.1}, {"name": "ce"}, epochs=5),
    # The bound on the normal loss, 0.3, is one on its ratio where the model before has it near 0.
    "pdu": _published(
        {"name": "logit-flattening"},
        {"name": "ce", "weight": 100.0, "floor": 0.0, "dual_rate": 5.0, "budget": 1.35},
    ),
    "masc": _published(
        {"name": "masc", "rho": 0.7, "eta": 0.25, "rivals": 10, "weight": 0.05},
        {"name": "none"},
        lora={"dropout": 0.05, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
        epochs=3,
        batch=2,
    ),
    # Its steps are of the weights themselves, and end by a budget.
    "repselect": _published(
        {"name": "gradient-ascent"},
        {"name": "none"},
        batch=4,
        tuning={"kind": "full"},
        train={
            "select": 512,
            "elicit": 0.01,
            "max_steps": 100,
            "stop_rule": True,
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
            "weight_decay": 0.0,
        },
        stop={"every": 1, "kl_budget": 0.01},
    ),
    "task-vector": _published({"name": "reinforce"}, {"name": "none"}, train={"negation": 1.0}),
}


def check_method(name: str) -> None:
    """Refuse a name that is none of a method's.

    Raises:
        InputError: With the nearest name, or all of them.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name, METHODS, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known methods: {', '.join(METHODS)}"
        raise InputError(f"there is no method {name!r}; {hint}")
