"""One training of one method: timed, with a watch on when the old answers have come to the control's level."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from letheon.console import OnProgress
from letheon.expected import Target
from letheon.material import expected_of, rehearsed_of
from letheon.measure import release_memory, wait_for_device
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.recipe import Recipe
from letheon.run import Run
from letheon.split import Split
from letheon.train.recipe_run import base_of, objective_of, train_from_recipe, training_data

WATCHED = 5
"""Steps between two looks at the old answers."""


@dataclass
class Outcome:
    """What a training gave.

    Attributes:
        model: The model, an adapter merged in; in eval mode.
        steps: Steps taken.
        stop: Why it stopped.
        seconds: Of all that the method asks for (expected answers, rehearsal, reference, probes of its own stop rule,
            steps), given the victim in memory; without the watch.
        tokens: Read in the steps of training.
        level_seconds: When the watch first saw the level; None where it never did.
        level_step: The step of that.
        within_guards: Whether a stop rule found the model fit for use.
    """

    model: Model
    steps: int
    stop: str
    seconds: float
    tokens: int
    level_seconds: float | None
    level_step: int | None
    within_guards: bool


def train(
    run: Run,
    victim: Model,
    tokenizer: Tokenizer,
    data: Split,
    *,
    reached: Callable[[Model], bool],
    budget: float | None,
    update: OnProgress,
) -> Outcome:
    """Train a copy of the victim as a recipe says.

    The base of an adapter stays in float32, where `letheon unlearn` would hold it in bfloat16: the results are the
    same, and it can be evaluated as it is.

    Args:
        run: The run, screened.
        victim: The model before unlearning; it is not changed.
        tokenizer: Its tokenizer.
        data: The division of the log.
        reached: Whether a model has come to the level.
        budget: Seconds after which it is told to end; a stop rule then still settles what is kept.
        update: Progress, in steps.
    """
    recipe = run.recipe
    model = copy.deepcopy(victim)
    watch = Watch(reached, budget)
    targets = _targets(run, data, model, tokenizer)
    rehearsed, base = rehearsed_of(run, model, tokenizer), base_of(recipe, tokenizer, data)
    given = training_data(recipe, model, tokenizer, targets, data, rehearsed, base)
    trained, stop = train_from_recipe(
        run, model, recipe.tuning, given, update, resume=False, keep_cache=False, callbacks=[watch]
    )
    wait_for_device()
    seconds = watch.seconds()
    trained = trained.merge_and_unload() if hasattr(trained, "peft_config") else trained
    trained.eval()
    if watch.level_step is None and reached(trained):
        # What is done to the weights when the steps are over may be what gets them there.
        watch.level_seconds, watch.level_step = seconds, stop.step
    reason = stop.reason
    if watch.spent:
        reason = f"the budget of {budget:g} s was spent; {reason}"
    return Outcome(
        model=trained,
        steps=stop.step,
        stop=reason,
        seconds=seconds,
        tokens=watch.tokens,
        level_seconds=watch.level_seconds,
        level_step=watch.level_step,
        within_guards=stop.within_guards,
    )


class Watch(TrainerCallback):  # type: ignore[misc]
    """Keeps the time, ends a training whose budget is spent, and looks for the level without being timed.

    Args:
        reached: Whether a model has come to the level.
        budget: In seconds.
    """

    def __init__(self, reached: Callable[[Model], bool], budget: float | None):
        self.reached, self.budget = reached, budget
        self.spent = False
        self.tokens = 0
        self.level_seconds: float | None = None
        self.level_step: int | None = None
        self._looking = 0.0
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds so far, without its own looks."""
        return time.perf_counter() - self._start - self._looking

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look every few steps until the level is there; end when the budget is spent."""
        if self.level_step is None and state.global_step % WATCHED == 0:
            self._look(state.global_step, kwargs["model"])
        if self.budget is not None and self.seconds() >= self.budget and not control.should_training_stop:
            self.spent = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what was counted."""
        self.tokens = int(state.num_input_tokens_seen)

    def _look(self, step: int, model: Model) -> None:
        wait_for_device()
        seconds, begun = self.seconds(), time.perf_counter()
        with in_eval_mode(model):
            there = self.reached(model)
        wait_for_device()
        self._looking += time.perf_counter() - begun
        if there:
            self.level_seconds, self.level_step = seconds, step


def _targets(run: Run, data: Split, model: Model, tokenizer: Tokenizer) -> Sequence[Target]:
    """What to forget; what to say instead is looked for where the objective asks."""
    objective = objective_of(run.recipe.objective)
    if not objective.reads_expected:
        return [Target(turn, (), "data") for turn in data.forget]
    return expected_of(run, data, model, tokenizer)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What a recipe's training must have in a comparison: nothing written that no one reads, tokens counted."""
    return {**recipe.train, "save_strategy": "no", "include_num_input_tokens_seen": "all"}


def free(outcome: Outcome) -> None:
    """Let go of a trained model."""
    outcome.model = None
    release_memory()
