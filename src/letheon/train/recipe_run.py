"""A recipe's training: from its sections to trainer, objective and settings."""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import get_available_reporting_integrations

from letheon.chat import Encoded
from letheon.console import OnProgress
from letheon.errors import InputError, require_extra
from letheon.expected import Target
from letheon.models import MERGED, Model, Tokenizer, fast_bf16, load_model
from letheon.objective import (
    DPO,
    MASC,
    NLUL,
    NPO,
    RMU,
    UNDIAL,
    WGA,
    AdaptiveRMU,
    AnswerPreservation,
    BaseOdds,
    ClusterMean,
    CrossEntropy,
    FlatTV,
    GradientAscent,
    InvertedHinge,
    JensUn,
    LogitFlattening,
    LogOddsHinge,
    MaxEntropy,
    Objective,
    ReferenceJS,
    ReferenceKL,
    ReferenceStates,
    SatImp,
    SimNPO,
    Term,
)
from letheon.recipe import NegativeName, ObjectiveRecipe, Recipe, Tuning
from letheon.records import LayerTrial, Stop, Turn, mend_end, write_text
from letheon.run import Run
from letheon.split import Split
from letheon.train.base import BaseSaid, ask_base
from letheon.train.config import UnlearnConfig
from letheon.train.depth import check_alone, choose_layers
from letheon.train.progress import quiet
from letheon.train.scope import adapter_for, check_reach, freeze_others, layer_read, learning_layers
from letheon.train.trainer import STATE_FILE, UnlearnTrainer

LORA_SAVE_STEPS, FULL_SAVE_STEPS = 10, 25
"""A full checkpoint is written to disk with its optimizer: three times the model."""

GUARDING = 8
"""Every so many of the rehearsed answers are not trained on: the guards see them."""

TRIAL_FILE = "layers.json"

PLAIN = {"bool": "true or false", "int": "a whole number", "float": "a number", "str": "a text", "None": "null"}
"""What the words in a plain field's type stand for, such as "<class 'int'>" or "float | None"."""


PACKAGES = {"use_liger_kernel": "liger-kernel", "deepspeed": "deepspeed"}
"""What settings of the Trainer need, and no extra of Letheon brings."""

DISTANCES: dict[NegativeName, Callable[..., Term]] = {
    "hinge": LogOddsHinge,
    "masc": MASC,
    "inverted-hinge": InvertedHinge,
    "nlul": NLUL,
    "npo": NPO,
    "simnpo": SimNPO,
    "dpo": DPO,
    "flat-tv": FlatTV,
    "undial": UNDIAL,
    "wga": WGA,
    "satimp": SatImp,
    "max-entropy": MaxEntropy,
    "logit-flattening": LogitFlattening,
    "jensun": JensUn,
    "rmu": RMU,
    "adaptive-rmu": AdaptiveRMU,
    "gradient-ascent": GradientAscent,
    "reinforce": CrossEntropy,
    "base": BaseOdds,
}
"""The negative terms by their names in a recipe."""


def base_of(recipe: Recipe, tokenizer: Tokenizer, data: Split) -> BaseSaid | None:
    """What the base of a recipe says of what is to be forgotten, if it names one; the base is let go again."""
    if recipe.base is None:
        return None
    longest = recipe.train.get("max_length")
    return ask_base(load_model(recipe.base), tokenizer, data.forget, probed_of(recipe, data), max_length=longest)


def probed_of(recipe: Recipe, data: Split) -> list[Turn]:
    """What the stop rule looks at; none: what is trained on.

    The base says of old answers as they were asked, too, how likely they would be unseen: there they fall last.
    """
    return [*data.probe, *data.forget] if recipe.base is not None and data.probe else data.probe


def training_data(
    recipe: Recipe,
    model: Model,
    tokenizer: Tokenizer,
    targets: Sequence[Target],
    data: Split,
    rehearsed: Sequence[Encoded],
    base: BaseSaid | None = None,
) -> dict[str, Any]:
    """What a recipe's trainer is given beside model and settings.

    Args:
        recipe: The recipe.
        model: The model.
        tokenizer: The tokenizer.
        targets: What to forget, and what to say instead.
        data: The division of the log.
        rehearsed: What the model answered to everyday questions, to be kept too.
        base: As of `base_of`.
    """
    return {
        "forget_dataset": targets,
        "normal_dataset": [*data.normal, *(answer for n, answer in enumerate(rehearsed) if n % GUARDING)],
        "probe_dataset": probed_of(recipe, data),
        # A tenth of a log is few, and two that break would end the run.
        "normal_probe_dataset": [*data.normal_probe, *rehearsed[::GUARDING]],
        "objective": objective_of(recipe.objective, _layer(recipe, model), recipe.seed),
        "processing_class": tokenizer,
        "base": base,
    }


def chosen_before(run: Run) -> LayerTrial | None:
    """The trial of layers of a training that was cut off after it; None where there was none."""
    file = run.checkpoints / TRIAL_FILE
    return LayerTrial.model_validate_json(file.read_text(encoding="utf-8")) if file.is_file() else None


def choose_for_recipe(run: Run, model: Model, data: dict[str, Any], update: OnProgress) -> LayerTrial:
    """Try out which layers to tune, and leave the trial beside the checkpoints: seconds differ from day to day.

    Args:
        run: The run.
        model: Its model.
        data: As of `training_data`.
        update: Progress, in steps.
    """
    settings = training_settings(run.recipe, str(run.checkpoints))
    trial = choose_layers(model, run.recipe.tuning, settings, progress=update, **data)
    write_text(run.checkpoints / TRIAL_FILE, trial.model_dump_json() + "\n")
    return trial


def train_from_recipe(
    run: Run,
    model: Model,
    tuning: Tuning,
    data: dict[str, Any],
    update: OnProgress,
    *,
    resume: bool,
    keep_cache: bool,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[Model, Stop]:
    """Train as a recipe says; `training.jsonl` grows a line a step.

    Args:
        run: The run.
        model: Its model.
        tuning: Which weights learn, with layers that have been chosen.
        data: As of `training_data`.
        update: Progress, in steps.
        resume: Continue from the last checkpoint, if there is one.
        keep_cache: Leave what the model said before in the run folder, for the next training.
        callbacks: What else looks on.

    Returns:
        The trained model (with its adapter), and why training stopped.
    """
    layer = _layer(run.recipe, model)
    if tuning.kind == "full":
        freeze_others(model, tuning, layer)
    settings = training_settings(run.recipe, str(run.checkpoints))
    settings.cache_dir, settings.keep_cache = str(run.cache), keep_cache
    trainer = UnlearnTrainer(
        model,
        settings,
        peft_config=None if tuning.kind == "full" else adapter_for(model, tuning, layer),
        callbacks=[TrainingLog(run, append=resume), *callbacks],
        **data,
    )
    quiet(trainer, update)
    trainer.train(resume_from_checkpoint=_last_checkpoint(run) if resume else None)
    assert trainer.stop is not None
    return trainer.model, trainer.stop


def _layer(recipe: Recipe, model: Model) -> int | None:
    """The layer of a model whose states a recipe's objective reads, if it does."""
    return layer_read(recipe.objective, model.config.get_text_config().num_hidden_layers)


def holds_base_in_bf16(recipe: Recipe, model: Model) -> bool:
    """Whether nothing of a model is needed in float32: it is the base of an adapter, under autocast throughout."""
    # Of a merged model the weights themselves are saved.
    settings = training_settings(recipe, "")
    # Several devices under one process get no autocast.
    mixed = fast_bf16() and bool(settings.bf16) and settings.n_gpu <= 1
    whole = not getattr(model, MERGED, False) and not recipe.quantizes
    return recipe.tuning.kind == "lora" and mixed and whole


def _last_checkpoint(run: Run) -> str | None:
    """The last whole checkpoint; one that was cut off while it was written lacks the file that is written last."""
    whole = [file.parent for file in run.checkpoints.glob(f"checkpoint-*/{STATE_FILE}")]
    return str(max(whole, key=lambda folder: int(folder.name.split("-")[1]))) if whole else None


def objective_of(recipe: ObjectiveRecipe, layer: int | None = None, seed: int = 0) -> Objective:
    """The objective that a recipe describes.

    Args:
        recipe: The section.
        layer: The layer whose states it reads, where it does; see `letheon.train.scope.layer_read`.
        seed: Of what a term draws.
    """
    negative = recipe.negative
    keep: dict[str, Term | None] = {
        "ce+kl": ReferenceKL(),
        "ce": CrossEntropy(),
        "kl": ReferenceKL(cross_entropy=False),
        "states": None if layer is None else ReferenceStates(layer),
        "js": ReferenceJS(),
        "ap": AnswerPreservation() if recipe.normal.beta is None else AnswerPreservation(recipe.normal.beta),
        "none": None,
    }
    own: dict[str, Any] = negative.own_settings()
    if negative.reads_states:
        own |= {"layer": layer, "seed": seed}
    return Objective(
        negative=None if negative.name == "none" else DISTANCES[negative.name](**own),
        positive=None if recipe.positive.name == "none" else ClusterMean(),
        normal=keep[recipe.normal.name],
        weights=(negative.weight, recipe.positive.weight, recipe.normal.weight),
    )


def check_layers(recipe: Recipe, total: int) -> None:
    """Check that the layers which a recipe names are there, and that those which learn get a gradient.

    Args:
        recipe: The recipe.
        total: The model's layers.

    Raises:
        InputError: They are not, or do not.
    """
    layer = layer_read(recipe.objective, total)
    if recipe.tuning.layers == "auto":
        return
    learning = learning_layers(recipe.tuning, total, layer)
    # A pattern says by itself which layers have an adapter.
    modules = recipe.tuning.lora.target_modules
    pattern = recipe.tuning.kind == "lora" and isinstance(modules, str) and modules != "all-linear"
    if layer is not None and not pattern:
        check_reach(learning, layer, alone=not objective_of(recipe.objective, layer).reads_logits)


def training_settings(recipe: Recipe, output: str) -> UnlearnConfig:
    """The settings of a recipe; its `train` section wins over what the other sections set.

    Raises:
        InputError: `train` names a setting that does not exist, or gives one a value that does not fit.
    """
    objective, stop, normal = recipe.objective, recipe.stop, recipe.objective.normal
    save_steps = LORA_SAVE_STEPS if recipe.tuning.kind == "lora" else FULL_SAVE_STEPS
    settings: dict[str, Any] = {
        "output_dir": output,
        "seed": recipe.seed,
        "save_strategy": "steps",
        "save_steps": save_steps,
        "save_total_limit": 2,
        "disable_tqdm": True,
        "adapter_init": recipe.tuning.lora.init,
        "directions": recipe.tuning.full.directions,
        "damping": recipe.tuning.damping,
        "sam_rho": objective.negative.sam_rho,
        "robust": objective.robust,
        "token_choice": objective.negative.tokens,
        "balance": objective.balance,
        "top_k": normal.top_k,
        "dual_rate": normal.dual_rate,
        "normal_floor": normal.floor,
        "normal_budget": normal.budget,
        "stop_every": stop.every,
        "stop_probability": stop.probability,
        "stop_extraction": stop.extraction_strength,
        "stop_truth": stop.truth_probability,
        "stop_normal_budget": stop.normal_budget,
        "stop_kl_budget": stop.kl_budget,
        "stop_normal_kept": stop.normal_kept,
        "stop_patience": stop.patience,
        **recipe.train,
    }
    known = {field.name: str(field.type) for field in fields(UnlearnConfig)}
    faults = []
    for name, value in recipe.train.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            faults.append(f"unknown setting 'train.{name}'" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif name == "output_dir":
            faults.append("'train.output_dir' is the run folder's to set; set 'output' instead")
        elif name in {"cache_dir", "keep_cache"}:
            faults.append(f"'train.{name}' is the run folder's to set; use --keep-cache instead")
        elif name == "eval_strategy" and value != "no":
            faults.append("'train.eval_strategy' has no data in a recipe: the stop rule's probes look at training")
        elif wanted := _unmet(known[name], value):
            faults.append(f"'train.{name}' is {value!r}, expected {wanted}")
    if faults:
        raise InputError(faults)
    try:
        config = UnlearnConfig(**settings)
    except (TypeError, ValueError) as error:
        raise InputError(f"train: {' '.join(str(error).split())}") from None
    # Transformers makes a list of whatever is given.
    if missing := {*(config.report_to or ())} - {*get_available_reporting_integrations()}:
        names = ", ".join(sorted(missing))
        raise InputError(f"train.report_to: not installed here: {names}; install what you want, leave the rest out")
    optimizer = str(recipe.train.get("optim", ""))
    if "bnb" in optimizer or "8bit" in optimizer:
        require_extra(f"train.optim={optimizer}", "quantize")
    for name, package in PACKAGES.items():
        if getattr(config, name) and importlib.util.find_spec(package.replace("-", "_")) is None:
            raise InputError(f"train.{name} needs a package: pip install {package}, or leave it out")
    if recipe.tuning.layers == "auto":
        check_alone(config)
    return config


def _unmet(kind: str, value: object) -> str | None:
    """What a value of a plain type should have been; None where it is, or where the type is not plain."""
    words = set(re.findall(r"\w+", kind)) - {"class"}
    own = "None" if value is None else type(value).__name__
    if not words <= PLAIN.keys() or own in words or (own == "int" and "float" in words):
        return None
    return " or ".join(said for word, said in PLAIN.items() if word in words)


class TrainingLog(TrainerCallback):  # type: ignore[misc]
    """Writes what the trainer logs to `training.jsonl`."""

    def __init__(self, run: Run, *, append: bool):
        self.path = run.training_file
        if append:
            mend_end(self.path)
        else:
            self.path.unlink(missing_ok=True)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write a line: parts of the loss and weights, or a probe."""
        if not logs or "train_runtime" in logs:
            return
        probe = {name.removeprefix("probe_"): value for name, value in logs.items() if name.startswith("probe_")}
        line = {"step": state.global_step, **({"probe": probe} if probe else logs)}
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
