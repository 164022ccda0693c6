"""The adapter taken off: with LoRA the base still knows, and whoever has both has the old answers."""

from __future__ import annotations

from collections.abc import Iterator

from letheon.console import OnProgress
from letheon.models import MERGED, Model, device
from letheon.stress.attack import EXTRACTION, Found, Given, extraction
from letheon.stress.records import NotRun


def adapter_off(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """Score the base of a model that was merged from an adapter; another has nothing that could be taken off."""
    if folder := getattr(model, MERGED, ""):
        from peft import AutoPeftModelForCausalLM

        model = AutoPeftModelForCausalLM.from_pretrained(folder, dtype="float32").unload().to(device()).eval()
    how = "With the adapter taken off its base"
    yield Found("base alone", how, EXTRACTION, extraction(model, given.sequences, given.batch_size))
