"""Ordinary fine-tuning that is cached: what makes a model that knows a log by heart, and a control that does not."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from filelock import FileLock

from letheon.console import Console
from letheon.measure import Measured, release_memory
from letheon.models import cache_folder, load_model, load_tokenizer, model_hash
from letheon.records import Dialogue


@dataclass(frozen=True)
class Schooling:
    """How a model is fine-tuned: all weights, linear decay. With the demo's log it then says most of it by heart."""

    epochs: int = 3
    learning_rate: float = 2e-4
    batch: int = 8


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model and what its training cost."""

    folder: Path
    seconds: float
    peak_mb: float


def fine_tune(
    console: Console,
    name: str,
    base: Path,
    dialogues: Sequence[Dialogue],
    seed: int,
    schooling: Schooling = Schooling(),
    *,
    fresh: bool = False,
) -> FineTuned:
    """Fine-tune a model with our own trainer, or take what was fine-tuned alike before from the cache.

    Args:
        console: Where progress is shown.
        name: What the model is called there.
        base: Folder of the model.
        dialogues: What it learns.
        seed: Of the order.
        schooling: How.
        fresh: Do it again.
    """
    folder = _cached(name, base, dialogues, seed, schooling)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Of several processes that need it one fine-tunes, and the others wait for it.
    with FileLock(f"{folder}.lock"):
        return _fine_tune(console, name, base, dialogues, seed, schooling, folder, fresh=fresh)


def _fine_tune(
    console: Console,
    name: str,
    base: Path,
    dialogues: Sequence[Dialogue],
    seed: int,
    schooling: Schooling,
    folder: Path,
    *,
    fresh: bool,
) -> FineTuned:
    from letheon.train import UnlearnConfig, UnlearnTrainer
    from letheon.train.progress import quiet

    cost_file = folder / "cost.json"
    if cost_file.is_file() and not fresh:
        cost = json.loads(cost_file.read_text(encoding="utf-8"))
        console.say(f"     {name}: from the cache ({cost['seconds']:.0f} s when it was trained)")
        return FineTuned(folder, cost["seconds"], cost["peak_mb"])
    scratch = folder.with_name(folder.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    with (
        Measured() as measured,
        console.progress(f"     fine-tuning '{name}' on {len(dialogues)} dialogues") as update,
    ):
        tokenizer = load_tokenizer(str(base))
        trainer = UnlearnTrainer(
            load_model(str(base)),
            UnlearnConfig(
                output_dir=str(scratch),
                num_train_epochs=schooling.epochs,
                learning_rate=schooling.learning_rate,
                per_device_train_batch_size=schooling.batch,
                gradient_accumulation_steps=1,
                lr_scheduler_type="linear",
                seed=seed,
            ),
            normal_dataset=dialogues,
            processing_class=tokenizer,
        )
        quiet(trainer, update)
        trainer.train()
    trainer.save_model(str(scratch))
    del trainer
    release_memory()
    cost = {"seconds": round(measured.seconds, 2), "peak_mb": round(measured.peak_mb, 1)}
    (scratch / "cost.json").write_text(json.dumps(cost), encoding="utf-8")
    scratch.rename(folder)
    return FineTuned(folder, cost["seconds"], cost["peak_mb"])


def _cached(name: str, base: Path, dialogues: Sequence[Dialogue], seed: int, schooling: Schooling) -> Path:
    """The cache folder of exactly this fine-tuning."""
    log = "".join(dialogue.model_dump_json() for dialogue in dialogues)
    what = json.dumps([model_hash(str(base)), *astuple(schooling), seed])
    key = hashlib.sha256((what + log).encode()).hexdigest()[:12]
    return cache_folder() / "demo" / f"{name}-{key}"
