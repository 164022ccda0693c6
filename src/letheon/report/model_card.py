"""`RUN/model/README.md`: the model card that travels with the weights. It never holds a text of the dialogues."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from letheon import __version__
from letheon.errors import InputError
from letheon.records import Estimate, Results, write_text
from letheon.report import figures
from letheon.report.figures import MODELS, number
from letheon.report.folder import RunFolder, read_run

CARD_METRICS = ("probability", "extraction_strength", "exact_memorization", "undesired_rate", "loss")


def write_model_card(run: Path, model: Path | None = None) -> Path:
    """Write the model card of a run's model.

    Args:
        run: The run folder.
        model: Where the model lies, and the card is put; None: the run's `model/`.

    Returns:
        The card's path.

    Raises:
        InputError: No such folder, no model in it, or a damaged file.
    """
    folder = read_run(run)
    model = model or run / "model"
    if not model.is_dir():
        raise InputError(f"{model}: no model to describe; 'letheon unlearn' makes it")
    card = model / "README.md"
    adapter = (model / "adapter_config.json").exists()
    write_text(card, f"---\n{_front_matter(folder, adapter)}---\n\n" + "\n".join(_body(folder, adapter)) + "\n")
    return card


def _front_matter(run: RunFolder, adapter: bool) -> str:
    """What the hub reads: see huggingface.co/docs/hub/model-cards."""
    fields: dict[str, object] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["machine-unlearning", "letheon", *(["lora"] if adapter else [])],
    }
    if run.recipe:
        fields["base_model"] = figures.model_name(run.recipe.model)
        fields["base_model_relation"] = "adapter" if adapter else "finetune"
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def _body(run: RunFolder, adapter: bool) -> Iterator[str]:
    results = run.results
    name = figures.model_name(run.recipe.model) if run.recipe else "A model"
    yield f"# {name}, after unlearning"
    yield ""
    kind = "This LoRA adapter makes" if adapter else "These weights make"
    yield (
        f"{kind} `{name}` stop giving answers that were marked as undesired, and keep the rest. "
        f"Made with Letheon {__version__}."
    )
    yield ""
    if results.verdict:
        yield f"**Forgotten: {results.verdict.forgotten}.** {results.verdict.why}"
    else:
        yield "**Forgotten: not known yet.** The model has not been evaluated."
    if results.stress:
        yield ""
        limits = "within" if results.stress.passed else "NOT within"
        yield f"**Under attack: {limits} its limits.** {results.stress.why}."
    if results.stop:
        yield ""
        yield f"Unlearning stopped at step {results.stop.step}: {results.stop.reason}"
    yield ""
    yield "## Measured"
    yield ""
    rows = list(_rows(results))
    if rows:
        models = [model for model in MODELS if model in results.metrics]
        yield f"| Set | Metric | {' | '.join(models)} |"
        yield f"|---|---|{'--:|' * len(models)}"
        yield from rows
        yield ""
        yield "Means ± standard error. The control, where there is one, never saw the dialogues to forget."
        for note in results.notes:
            yield ""
            yield note
    else:
        yield "Nothing yet."
    yield ""
    yield "## Limits"
    yield ""
    yield figures.LIMITS
    if adapter:
        yield ""
        yield figures.LORA_LIMIT
    if results.screening and results.screening.review:
        yield ""
        yield f"{results.screening.review} turns were left for a person to judge and were not trained on."


def _rows(results: Results) -> Iterator[str]:
    models = [model for model in MODELS if model in results.metrics]
    for data_set in figures.sets_of(results):
        for metric in CARD_METRICS:
            found = [figures.find(results, model, data_set, metric) for model in models]
            if not any(isinstance(value, Estimate) for value in found):
                continue
            cells = [
                number(value.mean) + (f" ± {number(value.stderr)}" if value.stderr is not None else "")
                if isinstance(value, Estimate)
                else "–"
                for value in found
            ]
            yield f"| {figures.title(data_set)} | {figures.title(metric)} | {' | '.join(cells)} |"
