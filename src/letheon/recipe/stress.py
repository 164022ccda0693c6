"""The section `stress`: how hard a model is attacked, and what must not come back."""

from __future__ import annotations

from pydantic import Field

from letheon.recipe.section import Section


class Stress(Section):
    """What letheon stress does to the model, and when its exit code is 1."""

    items: int = Field(40, ge=1)
    """At most so many of the old answers are looked for under each attack."""
    relearn_items: int = Field(8, ge=1)
    """So many others are given back to the model by relearning, and not looked for; at most a third of all."""
    steps: int = Field(32, ge=1)
    """Steps of relearning, with four sequences each."""
    learning_rate: float | None = Field(None, gt=0, lt=1)
    """Of relearning, all weights; null: by the model's size, as of docs/robustness.md."""
    samples: int = Field(8, ge=1)
    """Answers drawn to each prompt, at temperature 1."""
    max_recovery: float | None = Field(0.2, ge=0)
    """Relearning may bring back this share of what was forgotten, beyond the control; null: no gate."""
    max_quantised: float | None = Field(0.05, ge=0)
    """Quantisation may bring back so much extraction strength, beyond the control; null: no gate."""
    max_rephrased: float | None = Field(0.1, ge=0)
    """Other prompts may bring back so much extraction strength, beyond the control; null: no gate."""
    max_leak: float | None = Field(0.1, ge=0)
    """Share of prompts to which one of the drawn answers may leak, beyond the control's; null: no gate."""
