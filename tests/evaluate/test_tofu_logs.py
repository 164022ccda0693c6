"""Our reductions give what TOFU's authors publish, from their own logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from letheon.evaluate.forget_quality import forget_quality
from letheon.evaluate.model_utility import METRICS, SETS, model_utility
from letheon.evaluate.multiple_choice import probability_among
from letheon.evaluate.truth_ratio import forgotten_truth, kept_truth, truth_ratio
from letheon.records import Estimate

NAMES = {"retain": "Retain", "forget": "Forget", "real_authors": "Real Authors", "world_facts": "Real World"}


@pytest.fixture(scope="module")
def logs(shared_data: Path) -> Path:
    return shared_data / "tofu-logs"


@pytest.fixture(scope="module")
def pairs(logs: Path) -> list[dict[str, Any]]:
    return json.loads((logs / "expected.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def log(logs: Path, name: str) -> dict[str, Any]:
    return json.loads((logs / f"{name}.json").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def ratios(own: dict[str, Any]) -> list[float]:
    return [truth_ratio(c, w) for c, w in zip(own["avg_paraphrased_loss"], own["average_perturb_loss"], strict=True)]


def scores(name: str, own: dict[str, Any]) -> dict[str, list[float]]:
    truth = forgotten_truth if name == "forget" else kept_truth
    wrong = own["average_perturb_loss"] if name in ("real_authors", "world_facts") else [[]] * len(own["avg_gt_loss"])
    return {
        "probability": [probability_among(c, w) for c, w in zip(own["avg_gt_loss"], wrong, strict=True)]
        if name in ("real_authors", "world_facts")
        else [2.718281828459045**-loss for loss in own["avg_gt_loss"]],
        "rouge_l": own["rougeL_recall"],
        "kept_truth": [truth(ratio) for ratio in ratios(own)],
    }


@pytest.mark.shared_data
def test_against_the_authors_figures(logs: Path, pairs: list[dict[str, Any]]) -> None:
    assert len(pairs) == 4
    for pair in pairs:
        own = log(logs, pair["model"])
        found = {name: scores(name, own[name]) for name in NAMES}
        for name, title in NAMES.items():
            for metric, label in zip(METRICS, ("Prob.", "ROUGE", "Truth Ratio"), strict=True):
                mean = sum(found[name][metric]) / len(found[name][metric])
                assert mean == pytest.approx(pair["utility"][f"{label} {title}"], abs=1e-9)
        utility = model_utility({name: found[name] for name in SETS})
        assert isinstance(utility, Estimate)
        assert utility.mean == pytest.approx(pair["utility"]["Model Utility"], abs=1e-9)
        quality = forget_quality(ratios(own["forget"]), ratios(log(logs, pair["control"])["forget"]))
        assert quality.p_value == pytest.approx(pair["forget"]["Forget Quality"], rel=1e-6)
        assert quality.distance == pytest.approx(pair["forget"]["KS Test Forget"], abs=1e-9)
