"""The trials of a method: its authors' form at three learning rates, and again with its own parameter changed.

Authors give learning rates for models fifty times as large, so those here go by the kind of tuning: the usual one for
the demo model first (`letheon.train.config.default_learning_rate`), then a lower and a higher one. The own parameter
is the one that the literature tunes.
"""

from __future__ import annotations

from typing import Any

from letheon.errors import InputError
from letheon.methods import METHODS, merged

OURS = "letheon"
WITH_STOP = "+stop"
"""A baseline under our stop rule instead of its authors' schedule."""

RATES = {"lora": (5e-4, 2e-4, 1e-3), "full": (3e-5, 1e-5, 1e-4)}
STEP_RATES = (0.05, 0.005, 0.5)
"""Of RepSelect, whose steps are not Adam's: the authors'."""
OUR_RATES = (None, 1e-2, 4e-2)
"""None: the default."""

OWN: dict[str, dict[str, Any]] = {
    OURS: {"stop": {"extraction_strength": 0.05}},
    **dict.fromkeys(("ga", "masc"), {"train": {"num_train_epochs": 2}}),
    **dict.fromkeys(("npo", "npo-sam", "idk-dpo", "altpo", "wga"), {"objective": {"negative": {"beta": 0.5}}}),
    "simnpo": {"objective": {"negative": {"beta": 4.5}}},
    # The authors' 1200 lets a model of this size move nowhere.
    **dict.fromkeys(("rmu", "adaptive-rmu"), {"objective": {"normal": {"weight": 10.0}}}),
    "undial": {"objective": {"negative": {"beta": 3.0}}},
    **dict.fromkeys(("me-gd", "yao"), {"objective": {"negative": {"weight": 1.0}}}),
    "task-vector": {"train": {"negation": 2.0}},
    # An eighth of the demo model's width, as 512 are of the authors' models.
    "repselect": {"train": {"select": 64}},
    "satimp": {"objective": {"normal": {"weight": 1.0}}},
    "idk-ap": {"objective": {"normal": {"beta": 0.5}}},
    **dict.fromkeys(
        ("graddiff", "ga-kl", "refusal", "nlul", "ihl", "loku", "jensun"), {"objective": {"normal": {"weight": 5.0}}}
    ),
}
LONGER: dict[str, Any] = {"train": {"num_train_epochs": 20}}
"""What changes for the others: how long they train."""

MOST = 6


def check_methods(methods: list[str]) -> None:
    """Refuse names that no method has.

    Raises:
        InputError: Every such name.
    """
    faults = [
        f"unknown method {name!r}; known: {', '.join(METHODS)}, and each baseline with {WITH_STOP} after its name"
        for name in methods
        if name.removesuffix(WITH_STOP) not in METHODS or name.startswith(OURS) and name.endswith(WITH_STOP)
    ]
    if faults:
        raise InputError(faults)


def trials(method: str, tuning: str, number: int) -> list[dict[str, Any]]:
    """What each trial changes in a method's settings.

    Args:
        method: Its name.
        tuning: "lora" or "full".
        number: How many trials, at most `MOST`.
    """
    name = method.removesuffix(WITH_STOP)
    rates = OUR_RATES if name.startswith(OURS) else STEP_RATES if name == "repselect" else RATES[tuning]
    plain = [{} if rate is None else {"train": {"learning_rate": rate}} for rate in rates]
    own = OWN.get(name, LONGER)
    return [*plain, *(merged(own, rate) for rate in plain)][:number]


def settings(method: str, tuning: str, trial: dict[str, Any]) -> dict[str, Any]:
    """A recipe's settings for one trial: the method's, the kind of tuning, and what the trial changes."""
    name = method.removesuffix(WITH_STOP)
    stop = {"train": {"stop_rule": True}} if name != method else {}
    found = merged(merged(METHODS[name], stop), trial)
    return merged(found, {"tuning": {"kind": tuning}})


def flat(nested: dict[str, Any], before: str = "") -> str:
    """Nested settings as `--set` takes them."""
    parts = []
    for key, value in nested.items():
        if isinstance(value, dict):
            parts.append(flat(value, f"{before}{key}."))
        else:
            parts.append(f"{before}{key}={value:g}" if isinstance(value, float) else f"{before}{key}={value}")
    return " ".join(filter(None, parts))
