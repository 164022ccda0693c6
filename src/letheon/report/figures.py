"""Numbers that the page and the model card share: what was kept, what it cost, how they are written."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

from letheon.records import Estimate, Interval, Metric, ModelMetrics, NotComputed, Results

MODELS = ("before", "after", "control")
SETS = {
    "forget": "Forget",
    "paraphrase": "Paraphrase",
    "normal_trained": "Normal, trained on",
    "normal_held_out": "Normal, held out",
    "general": "General text",
    "membership": "Membership",
}
"""The data sets in the order in which they are shown; others follow as they come."""
MEANING = {
    "forget": "the dialogues that had to be forgotten",
    "paraphrase": "the same questions reworded, never trained on",
    "normal_trained": "normal dialogues that unlearning was given to keep",
    "normal_held_out": "normal dialogues that unlearning never saw",
    "general": "plain text: general language ability",
    "membership": "how well attacks tell what had to be forgotten from dialogues that no model has seen; ½ is chance",
}
METRICS = {
    "probability": "Probability of the answer",
    "probability_ratio": "Probability, relative to before",
    "extraction_strength": "Extraction strength",
    "extraction_strength_published": "Extraction strength, as published",
    "exact_memorization": "Exact memorisation",
    "rouge_l": "ROUGE-L of the greedy answer",
    "rouge_l_f1": "ROUGE-L F1 of the greedy answer",
    "leaked_spans": "Personal data of the old answer in the greedy one",
    "abstentions": "Prompts declined",
    "undesired_rate": "Judged undesired",
    "loss": "Loss (nats a token)",
    "loss_ratio": "Loss, relative to before",
    "kl": "KL to before (nats a token)",
    "repetition": "Repetition",
    "distinct_2": "Distinct 2-grams",
    "leaked": "Prompts to which an answer leaks",
    "rouge_l_best": "ROUGE-L of the best answer",
    "loss_auc": "AUC by loss",
    "zlib_auc": "AUC by loss / zlib",
    "grad_norm_auc": "AUC by gradient norm",
    "min_k_auc": "AUC by Min-K%",
    "min_k_plus_plus_auc": "AUC by Min-K%++",
    "reference_auc": "AUC by loss against the control's",
    "privleak": "PrivLeak (percent; 0 is the control's level)",
}
LIMITS = (
    "These numbers are evidence of forgetting, and no more: they say how far the old answers still come out when "
    "asked for in the ways that were tried. Other wording, sampling, further training or quantisation may bring some "
    "of them back: as far as they were tried, the attacks say how much."
)
LORA_LIMIT = (
    "This model is a LoRA adapter beside its base model. The base forgets nothing: whoever has its weights has the "
    "old answers. Merge the adapter, and hand on the merged weights alone."
)


def mean(results: Results, model: str, data_set: str, metric: str) -> float | None:
    """The mean of a metric, or None where it is not there or not a number."""
    found = find(results, model, data_set, metric)
    return found.mean if isinstance(found, Estimate) and math.isfinite(found.mean) else None


def find(results: Results, model: str, data_set: str, metric: str) -> Metric | None:
    """A metric of one model on one data set, as it stands in the results."""
    by_model: Mapping[str, ModelMetrics] = {str(name): sets for name, sets in results.metrics.items()}
    return by_model.get(model, {}).get(data_set, {}).get(metric)


def sets_of(results: Results) -> list[str]:
    """The data sets that were measured, in the order in which they are shown."""
    found = {name for sets in results.metrics.values() for name in sets}
    return [name for name in SETS if name in found] + sorted(found - SETS.keys())


def metrics_of(results: Results, data_set: str) -> list[str]:
    """The metrics of a data set, in the order in which they are shown."""
    found = {name for sets in results.metrics.values() for name in sets.get(data_set, {})}
    return [name for name in METRICS if name in found] + sorted(found - METRICS.keys())


def title(name: str) -> str:
    """A set's or metric's name in plain words."""
    if found := re.fullmatch(r"(leak_at|rouge_l_best_of)_(\d+|k)", name):
        k = found[2]
        return f"leak@{k}" if found[1] == "leak_at" else f"ROUGE-L of the best of {k} answers"
    return SETS.get(name) or METRICS.get(name) or name.replace("_", " ").capitalize()


def model_name(model: str) -> str:
    """A hub id as it is; of a local folder its last part (a path tells about its owner)."""
    path = Path(model).expanduser()
    return path.name if path.is_absolute() or path.exists() or model.startswith(".") else model


def number(value: float | None) -> str:
    """A value with three decimals, or three significant digits where it is large or tiny; "–" for none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return str(value)
    if value and (abs(value) < 0.0005 or abs(value) >= 1000):
        return f"{value:.1e}" if abs(value) < 0.0005 else f"{value:,.0f}"
    return f"{value:.3f}"


def interval(value: Interval | NotComputed | None) -> str:
    """An estimate of a difference or share with its 95% interval, to three decimals; "–" for none."""
    if not isinstance(value, Interval):
        return "–"
    # No minus before a zero.
    estimate, low, high = (round(one, 3) + 0.0 for one in (value.estimate, value.low, value.high))
    return f"{estimate:.3f} [{low:.3f}, {high:.3f}]"


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def memory(megabytes: float) -> str:
    """Megabytes, or gigabytes from one on."""
    return f"{megabytes / 1024:.1f} GB" if megabytes >= 1024 else f"{megabytes:.0f} MB"
