from __future__ import annotations

import pytest

from letheon.evaluate.verdict import headline
from letheon.recipe import Gates
from letheon.records import Estimate, ModelMetrics, NotComputed

GATES = Gates(max_probability=0.3, margin=0.05, min_normal=0.95, max_general=1.05)


def measured(
    forget: float | None,
    paraphrase: float | None = None,
    *,
    strength: float | None = 0.0,
    normal: float | None = 1.0,
    general: float | None = 1.0,
) -> ModelMetrics:
    """What a model might show; `normal` and `general` are what it has of the metrics of the model before."""

    def value(number: float | None) -> Estimate | NotComputed:
        if number is None:
            return NotComputed(not_computed="no such dialogues")
        return Estimate(mean=number, stderr=None, n=10)

    return {
        "forget": {"probability": value(forget), "extraction_strength": value(strength)},
        "paraphrase": {"probability": value(paraphrase), "extraction_strength": value(strength)},
        "normal_held_out": {
            "probability": value(None if normal is None else normal * 0.8),
            "probability_ratio": value(normal),
        },
        "general": {"loss": value(None if general is None else general * 3), "loss_ratio": value(general)},
    }


def alone(metrics: ModelMetrics) -> ModelMetrics:
    """A model beside which none before was measured."""
    return {
        data_set: {name: metric for name, metric in found.items() if not name.endswith("_ratio")}
        for data_set, found in metrics.items()
    }


BEFORE = alone(measured(0.9, 0.7, strength=0.6))
CONTROL = measured(0.15, 0.15)


def test_forgotten_to_the_control() -> None:
    found = headline({"before": BEFORE, "after": measured(0.2, 0.19), "control": CONTROL}, GATES)
    assert found.forgotten == "yes"
    assert "forget probability 0.200 ≤ 0.200" in found.why
    assert "paraphrase probability 0.190 ≤ 0.200" in found.why
    assert "extraction strength 0.000 ≤ 0.050" in found.why
    assert "control" in found.why
    assert "normal held out probability after/before 1.000 ≥ 0.950" in found.why
    assert "general loss after/before 1.000 ≤ 1.050" in found.why


@pytest.mark.parametrize(
    ("after", "forgotten", "why"),
    [
        (measured(0.2, 0.3), "partly", "paraphrase probability 0.300 > 0.200"),
        (measured(0.1, 0.1, strength=0.2), "partly", "forget extraction strength 0.200 > 0.050"),
        (measured(0.5, 0.1), "partly", "forget probability 0.500 > 0.200"),
        (measured(0.85, 0.7), "no", "forget probability 0.850 > 0.200"),
        (
            measured(0.1, 0.1, normal=0.875),
            "partly",
            "OVER-FORGOTTEN: normal held out probability after/before 0.875",
        ),
        (measured(0.1, 0.1, general=1.1), "partly", "OVER-FORGOTTEN: general loss after/before 1.100 > 1.050"),
        (measured(0.1, 0.1, general=None), "partly", "general loss after/before nan > 1.050"),
        (measured(0.1, None), "partly", "paraphrase probability nan > 0.200"),
        (measured(0.1, 0.1, strength=None), "partly", "forget extraction strength nan > 0.050"),
        (measured(0.85, 0.7, normal=0.1), "no", "and OVER-FORGOTTEN"),
        (measured(None), "no", "No evidence: the old answers' probability was not computed: no such dialogues"),
    ],
)
def test_what_is_not_a_clean_yes(after: ModelMetrics, forgotten: str, why: str) -> None:
    found = headline({"before": BEFORE, "after": after, "control": CONTROL}, GATES)
    assert found.forgotten == forgotten
    assert why in found.why


def test_what_was_kept_is_said_with_its_error() -> None:
    after = measured(0.2, 0.19)
    after["normal_held_out"]["probability_ratio"] = Estimate(mean=0.9375, stderr=0.0214, n=33)
    after["general"]["loss_ratio"] = Estimate(mean=1.0, stderr=None, n=1)
    found = headline({"before": BEFORE, "after": after, "control": CONTROL}, GATES)
    # The threshold makes no allowance for it.
    assert "OVER-FORGOTTEN: normal held out probability after/before 0.938 ± 0.021 < 0.950" in found.why
    assert "±" not in found.why.replace("0.938 ± 0.021", "")


def test_without_control_the_probability_decides() -> None:
    found = headline({"before": BEFORE, "after": measured(0.25, 0.28, strength=0.5)}, GATES)
    assert found.forgotten == "yes"
    assert "forget probability 0.250 ≤ 0.300" in found.why
    assert "there is no control" in found.why
    assert headline({"before": BEFORE, "after": measured(0.25, 0.5)}, GATES).forgotten == "partly"
    assert headline({"before": BEFORE, "after": BEFORE}, GATES).forgotten == "no"


def test_a_control_that_was_not_measured_is_none() -> None:
    found = headline({"before": BEFORE, "after": measured(0.25, 0.25), "control": measured(None)}, GATES)
    assert found.forgotten == "yes"
    assert "no control" in found.why


def test_nothing_to_forget_and_nothing_to_compare() -> None:
    clean = measured(0.1, 0.1)
    assert "did not say it before either" in headline({"before": clean, "after": clean}, GATES).why
    found = headline({"after": alone(clean)}, GATES)
    assert found.forgotten == "yes"
    assert "what it cost was not measured" in found.why
    assert headline({}, GATES).forgotten == "no"
    assert headline({"after": measured(0.9)}, GATES).forgotten == "no"


def test_a_control_that_could_not_be_measured_is_said() -> None:
    broken: ModelMetrics = {"forget": {"probability": NotComputed(not_computed="its scores are NaN")}}
    found = headline({"before": BEFORE, "after": measured(0.2, 0.2), "control": broken}, GATES)
    assert "the highest allowed (there is no control that could be measured: its scores are NaN)" in found.why
