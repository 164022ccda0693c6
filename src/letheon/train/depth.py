"""How deep to tune, by trial: a few steps at each depth, and the depth that forgets most in a second at equal harm.

Fewer layers make a cheaper step, and may tell one subject from another less well. So speed alone does not decide: a
shallower depth is taken only where, for the same forgetting, normal answers pay about what they pay at the deepest.
Each depth starts from θ₀ with the run's own seed and settings, and the model is put back as it was. To choose so, and
the rule, are ours.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from transformers import TrainerCallback

from letheon.console import OnProgress
from letheon.errors import InputError
from letheon.measure import release_memory, wait_for_device
from letheon.models import Model
from letheon.recipe import Tuning
from letheon.records import LayerTrial, TriedLayers
from letheon.train.config import UnlearnConfig
from letheon.train.progress import quiet
from letheon.train.scope import DEFAULT_LAYERS, adapter_for, freeze_others, learning_layers
from letheon.train.stop import Decision, Probe, StopRule
from letheon.train.trainer import UnlearnTrainer

DEPTHS = ("all", "top-66%", "top-33%")
"""What is tried, the deepest first."""

STEPS, EVERY = 12, 4
"""Steps of each depth, and between two probes; the usual warm-up takes four."""

PROBED = 64
"""Dialogues of each kind in a probe: few normal answers bear most of the harm, and a quick probe may miss them."""

AS_BLUNT = 1.25
"""A depth that harms by more than so many times what the deepest does, for the same forgetting, is not chosen."""

NOTICEABLE = 0.05
"""With less forgetting nothing has been measured: what is left has fallen by 5%."""


def choose_layers(
    model: Model,
    tuning: Tuning | None = None,
    args: UnlearnConfig | None = None,
    *,
    progress: OnProgress = lambda done, total: None,
    **data: Any,
) -> LayerTrial:
    """Choose by a trial which layers to tune: all of them, the upper two thirds, or the upper third.

    forgetting = log(left before / left after 12 steps), with left = max(1, probability / its limit, extraction
    strength / its limit) on the probe, the limits being the stop rule's. What is left falls at a nearly constant rate
    until it is at the limits, so the most forgetting in a second is the shortest run.
    harm = KL / KL of the deepest when it had forgotten as much, with the KL to θ₀ on the normal probe, interpolated
    between probes. It grows with forgetting in no simple way, and to compare after as many steps would flatter the
    depth that has forgotten less.
    Of the depths with harm ≤ 1.25 the one with the most forgetting in a second is chosen. Where the deepest forgets
    less than 0.05 there is nothing to compare with, and the default stands.

    Seconds are those of this machine at this time, so another trial may choose otherwise.

    Args:
        model: The model, without an adapter; it is left with the weights it had.
        tuning: As of `adapter_for`; of its layers nothing is asked.
        args: Settings of the training to come. Of them the trial leaves out checkpoints, logs and evaluations.
        progress: Told how many steps have been taken, of how many.
        **data: What `UnlearnTrainer` will get: forget_dataset, normal_dataset, probe_dataset, normal_probe_dataset,
            objective, processing_class.

    Returns:
        The trial. What it has `chosen` is for `Tuning(layers=…)`.

    Raises:
        InputError: The model has an adapter, there is nothing to forget or to keep, or several processes share the
            work; and as `UnlearnTrainer`.
    """
    tuning, args = tuning or Tuning(), args or UnlearnConfig()
    check_alone(args)
    if hasattr(model, "peft_config"):
        raise InputError("the model has an adapter, and so its layers are chosen; give it without")
    if not data.get("forget_dataset"):
        raise InputError("forget_dataset is missing or empty: layers are chosen by how fast they forget it")
    if not data.get("normal_dataset") and not data.get("normal_probe_dataset"):
        raise InputError("normal_dataset is missing or empty: what normal answers pay could not be measured")
    total = model.config.get_text_config().num_hidden_layers
    depths: dict[int, str] = {}
    for layers in DEPTHS:
        # Of two layers, two thirds are all.
        depths.setdefault(len(learning_layers(Tuning(layers=layers), total)), layers)
    default = DEFAULT_LAYERS[tuning.kind]
    if len(depths) == 1:
        return LayerTrial(chosen=default, why="the default: the model has but one layer")
    tried: list[TriedLayers] = []
    for layers in depths.values():
        one = _try(
            model,
            tuning.model_copy(update={"layers": layers}),
            args,
            lambda done, _: progress(len(tried) * STEPS + min(done, STEPS), len(depths) * STEPS),
            data,
        )
        # It holds the moments of one depth, and would be there beside those of the next.
        release_memory()
        if one is None:
            return LayerTrial(chosen=default, why="the default: the model does not say the old answers as it is")
        tried.append(one)
    return pick(tried, default)


def check_alone(args: UnlearnConfig) -> None:
    """Refuse a trial in several processes.

    Raises:
        InputError: There are several.
    """
    if args.world_size > 1:
        raise InputError(
            f"tuning.layers=auto: each of {args.world_size} processes would choose for itself; choose in one "
            "(letheon.choose_layers), and set tuning.layers to what it has chosen"
        )


def pick(tried: Sequence[TriedLayers], default: str) -> LayerTrial:
    """Choose by the figures of a trial; equal figures choose the same.

    Args:
        tried: The deepest first.
        default: The layers where nothing can be compared.
    """
    deepest = tried[0]
    if not _forgets(deepest):
        who = f"{deepest.layers}, which the others are compared with," if any(map(_forgets, tried)) else "none"
        why = f"the default: in {deepest.steps} steps {who} forgot too little to tell"
        return LayerTrial(chosen=default, why=why, tried=tuple(tried))
    tried = [one.model_copy(update={"harm": _harm(one, deepest)}) for one in tried]
    best = max((one for one in tried if one.harm is not None and one.harm <= AS_BLUNT), key=_rate)
    why = f"forgets most in a second ({_rate(best):.3g})"
    if blunter := [one.layers for one in tried if _rate(one) > _rate(best)]:
        why += f"; {' and '.join(blunter)} would forget more, but at more than {AS_BLUNT} times the harm"
    return LayerTrial(chosen=best.layers, why=why, tried=tuple(tried))


def _forgets(one: TriedLayers) -> bool:
    return bool(one.forgetting) and one.forgetting[-1] >= NOTICEABLE


def _rate(one: TriedLayers) -> float:
    """Forgetting in a second."""
    return one.forgetting[-1] / one.steps / one.seconds if one.forgetting else 0.0


def _harm(one: TriedLayers, deepest: TriedLayers) -> float | None:
    """What normal answers pay for the same forgetting, in multiples of what they pay at the deepest."""
    if one is deepest:
        return 1.0
    if not _forgets(one):
        return None
    same = min(max(one.forgetting), max(deepest.forgetting))
    paid = _kl_at(same, deepest)
    return _kl_at(same, one) / paid if paid > 0 else None


def _kl_at(forgetting: float, one: TriedLayers) -> float:
    """The KL when so much was forgotten for the first time."""
    reached, paid = [0.0], [0.0]
    for more, kl in zip(one.forgetting, one.kl, strict=True):
        if more > reached[-1]:
            reached.append(more)
            paid.append(kl)
    return float(np.interp(forgetting, reached, paid))


def _try(
    model: Model, tuning: Tuning, args: UnlearnConfig, update: OnProgress, data: dict[str, Any]
) -> TriedLayers | None:
    """Take the steps at one depth; None where there is nothing to forget."""
    assert args.output_dir is not None
    Path(args.output_dir).mkdir(parents=True, exist_ok=True)
    place = TemporaryDirectory(dir=args.output_dir, prefix="trial-", ignore_cleanup_errors=True)
    with place as own, _as_before(model):
        clock = _Clock()
        if tuning.kind == "full":
            freeze_others(model, tuning)
        trainer = _Trial(
            model,
            _settings(args, own),
            peft_config=None if tuning.kind == "full" else adapter_for(model, tuning),
            callbacks=[clock],
            **data,
        )
        quiet(trainer, update)
        try:
            trainer.train()
        finally:
            trainer.put_back()
    if not clock.seconds:
        return None
    forgetting, kl = trainer.curve()
    return TriedLayers(
        layers=tuning.layers or "",
        steps=len(clock.seconds),
        forgetting=forgetting,
        kl=kl,
        seconds=median(clock.seconds),
        prepare=clock.prepare,
    )


def _settings(args: UnlearnConfig, folder: str) -> UnlearnConfig:
    """The run's own, but for what it leaves behind, and for its probes."""
    settings = copy.copy(args)
    settings.output_dir, settings.cache_dir, settings.keep_cache = folder, None, False
    settings.stop_rule, settings.stop_every = True, EVERY
    settings.probe_size = max(settings.probe_size, PROBED)
    settings.save_strategy = settings.eval_strategy = settings.logging_strategy = "no"
    settings.report_to, settings.load_best_model_at_end, settings.push_to_hub = [], False, False
    return settings


@contextmanager
def _as_before(model: Model) -> Iterator[None]:
    """After the block those parameters learn that did before, and nothing else hangs on the model than did."""
    learning = {parameter: parameter.requires_grad for parameter in model.parameters()}
    training, attributes = model.training, dict(model.__dict__)
    try:
        yield
    finally:
        # Of a model that trains itself accelerate has wrapped the forward.
        model.__dict__.clear()
        model.__dict__.update(attributes)
        for parameter, learns in learning.items():
            parameter.requires_grad_(learns)
        model.train(training)


class _GoesOn(StopRule):
    """Has a training go on whatever it sees, and looks every so many steps."""

    def look(self, probe: Probe) -> Decision:
        return Decision("continue")

    def is_best(self, probe: Probe) -> bool:
        return False

    def wait(self, probe: Probe) -> int:
        return self.every


class _Trial(UnlearnTrainer):
    """A training that is not ended by what it forgets, and leaves nothing behind."""

    def __init__(self, *given: Any, **settings: Any):
        super().__init__(*given, **settings)
        self._watch.rule = _GoesOn(**vars(self._watch.rule))

    def _finish(self) -> None:
        if self.probes[-1].step != self.state.global_step:
            self._watch.look(self.state.global_step)

    def curve(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Forgetting and the KL on the normal probe, by probe; none of a training that has diverged."""
        rule, (before, *others) = self._watch.rule, self.probes
        if self.stop is not None or not all(map(rule.is_finite, others)):
            return (), ()
        left = max(rule.remaining(before), 1.0)
        forgetting = (math.log(left / max(rule.remaining(probe), 1.0)) for probe in others)
        return tuple(forgetting), tuple(probe.kl for probe in others)

    def put_back(self) -> None:
        """The weights of θ₀, without an adapter."""
        if self._line is not None:
            self._line.go(0)
            self._line.close()
        if hasattr(self.model, "peft_config"):
            self.model.unload()


class _Clock(TrainerCallback):  # type: ignore[misc]
    """Measures the steps, and ends the training after so many."""

    def __init__(self) -> None:
        self.prepare = 0.0
        self.seconds: list[float] = []
        self._since = time.perf_counter()

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not self.seconds:
            self.prepare = self._lap()
        self._lap()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(self._lap())
        if len(self.seconds) == STEPS:
            control.should_training_stop = True

    def _lap(self) -> float:
        wait_for_device()
        since, self._since = self._since, time.perf_counter()
        return self._since - since
