"""Take a run's model out of its folder: merged into plain weights, or the adapter as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

from letheon.console import Console
from letheon.errors import InputError
from letheon.models import load_model, load_tokenizer, save_model
from letheon.records import Results
from letheon.report import write_model_card
from letheon.report.figures import LORA_LIMIT


def export(run: Path, output: Path, console: Console, *, merge: bool) -> None:
    """Write the unlearned model as a folder that `from_pretrained` reads, with tokenizer and model card.

    Merged are the very weights that evaluation and stress have measured: both merge an adapter to measure it, in
    float32, and so are these files.

    Args:
        run: The run folder.
        output: Where the model is written; nothing may be there.
        console: Where the user is told.
        merge: Put an adapter into its base.

    Raises:
        InputError: No model in the run, or something at `output`.
    """
    model = run / "model"
    results = Results.load(run / "results.json")
    if not model.is_dir():
        clean = results.stop is not None and results.stop.step == 0
        raise InputError(
            f"{run}: no model to export: "
            + ("it was already clean, and left as it is" if clean else f"run 'letheon unlearn {run}' first")
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output}: there is something already; name another folder")
    adapter = (model / "adapter_config.json").is_file()
    if adapter and merge:
        save_model(load_model(str(model)), load_tokenizer(str(model)), output)
    else:
        shutil.copytree(model, output, dirs_exist_ok=True)
    write_model_card(run, output)
    if results.verdict is None or results.verdict.forgotten != "yes":
        said = "it has not been evaluated" if results.verdict is None else results.verdict.why
        console.warn(f"exported all the same: {said}")
    if adapter and not merge:
        console.warn(f"{LORA_LIMIT} 'letheon export {run} --merge OUT' does.")
    kind = "merged weights" if adapter and merge else "adapter" if adapter else "weights"
    console.say(f"{output}: {kind}" + ("" if results.verdict is None else ", as they were measured"))
