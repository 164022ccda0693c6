"""The comparison itself: for each seed a victim and a control, for each method its trials, a row for each."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from letheon.bench import grid, tasks
from letheon.bench.compare import compared
from letheon.bench.look import look, memorised
from letheon.bench.rows import BEFORE, CONTROL, REFERENCES, Row, file_of, load, load_all, numbers, save
from letheon.bench.start import victim_and_control, write_data
from letheon.bench.table import write_tables
from letheon.bench.task import REPORT, VALIDATION, Metrics, Task
from letheon.bench.trial import Outcome, free, settings_of, train
from letheon.chat import encode_turn
from letheon.console import Console
from letheon.demo.fine_tune import FineTuned
from letheon.demo.weights import demo_model
from letheon.embed import Embedder
from letheon.errors import InputError, LetheonError, check_all, require_extra
from letheon.evaluate.teacher_forced import score_sequences
from letheon.material import split_of
from letheon.methods import METHODS, at, merged
from letheon.models import Model, Tokenizer, check_model, load_model, load_tokenizer, model_hash
from letheon.pipeline import screen_stage
from letheon.recipe import Recipe, apply_override, check_recipe
from letheon.records import Turn, write_jsonl
from letheon.run import Run
from letheon.split import Split

LEVEL = {"extraction_strength": 0.02, "exact_memorization": 0.05}
"""How far above the control's the old answers' memorisation may be where a training "has reached the level"."""

Parts = Mapping[str, Metrics]
"""Metrics by part."""

NOWHERE = {"model": "none", "data": {"dialogues": "none"}}
"""What a recipe must have beside its settings."""

BROKEN = (LetheonError, RuntimeError, ValueError, ArithmeticError)
"""What a training may end with, out of memory among them; the row says so and the next one begins."""


@dataclass(frozen=True)
class Plan:
    """What is to be compared.

    Attributes:
        task: Name of the task.
        methods: Their names, in the order in which they are run.
        seeds: Each with its own victim, control and choice of settings.
        trials: Trials of each method on each seed.
        budget: Seconds of unlearning that a trial may take; None: as its schedule says.
        data: Folder with the data sets.
        tuning: "lora" or "full".
        output: Where rows, tables and pictures go; several processes may share it.
        model: Folder of the model that victim and control are made of; None: the demo model.
        overrides: Each "objective.positive.weight=0", of every method's recipe.
    """

    task: str
    methods: Sequence[str]
    seeds: Sequence[int]
    trials: int
    budget: float | None
    data: Path
    tuning: str
    output: Path
    model: Path | None = None
    overrides: Sequence[str] = ()

    def settings(self, method: str, trial: dict[str, Any]) -> dict[str, Any]:
        """The settings of a method's trial, as this comparison has them."""
        found = grid.settings(method, self.tuning, trial)
        for override in self.overrides:
            apply_override(found, override)
        return found


def bench(plan: Plan, console: Console) -> list[Path]:
    """Compute the rows that are missing, and write table and pictures.

    Returns:
        The files that were written.

    Raises:
        InputError: Unknown names, files that are missing, damaged rows.
        MissingExtraError: The table's pictures or a task's judges lack their part.
    """
    require_extra("a comparison", "screen")
    require_extra("its pictures", "report")
    seeds = {seed: _Seed(plan, task, seed, console) for seed, task in _checked(plan).items()}
    for seed, one in seeds.items():
        if one.missing():
            one.run()
        else:
            console.say(f"seed {seed}: every row is there")
    rows = load_all(plan.output, plan.task, plan.tuning)
    for seed in {row.seed for row in rows} - seeds.keys():
        seeds[seed] = _Seed(plan, tasks.build(plan.task, plan.data, seed), seed, console)
    alike = _alike(rows, seeds)
    if len(alike) < len(rows):
        console.warn(
            f"{len(rows) - len(alike)} rows in {plan.output / 'rows'} are left out of the table: they are of other "
            "settings, data, budget or victims than this comparison's"
        )
    return write_tables(plan.output, plan.task, plan.tuning, alike, seeds[plan.seeds[-1]].task)


def _alike(rows: Sequence[Row], seeds: Mapping[int, _Seed]) -> list[Row]:
    """Those of the rows, whoever computed them, that are of this comparison, and of one victim and control a seed."""
    fitting = [row for row in rows if seeds[row.seed].fits(row)]
    made = {row.seed: row.models for row in fitting if row.method == BEFORE}
    return [row for row in fitting if row.models == made.get(row.seed)]


def _checked(plan: Plan) -> dict[int, Task]:
    """The task of each seed. Every mistake is told at once, before anything is fine-tuned."""

    def built() -> dict[int, Task]:
        return {seed: tasks.build(plan.task, plan.data, seed) for seed in plan.seeds}

    def overridden() -> None:
        raw = merged(NOWHERE, {})
        for override in plan.overrides:
            apply_override(raw, override)
        check_recipe(raw, "--set")

    def trials() -> None:
        if not 1 <= plan.trials <= grid.MOST:
            raise InputError(f"--trials {plan.trials}: a method has 1 to {grid.MOST} trials")

    found: list[dict[int, Task]] = check_all(
        [
            built,
            lambda: grid.check_methods(list(plan.methods)),
            trials,
            overridden,
            lambda: check_model(str(plan.model)) if plan.model is not None else None,
        ]
    )
    return found[0]


@dataclass
class _Ready:
    """What a seed's rows have in common, in memory."""

    victim: Model
    tokenizer: Tokenizer
    data: Split
    recipe: dict[str, Any]
    before: Parts
    control: Parts


class _Seed:
    """The rows of one seed."""

    def __init__(self, plan: Plan, task: Task, seed: int, console: Console):
        self.plan, self.task, self.seed, self.console = plan, task, seed, console
        # Before a review changes what is measured.
        self._built = task
        self._models = ""

    def fits(self, row: Row) -> bool:
        """Whether a row is of this comparison's settings and, once these are there, of its victim and control."""
        trials: list[dict[str, Any]] = [{}]
        if row.method not in REFERENCES:
            known = row.method.removesuffix(grid.WITH_STOP) in METHODS
            trials = grid.trials(row.method, self.plan.tuning, grid.MOST) if known else []
        if row.trial >= len(trials) or self._models not in ("", row.models):
            return False
        return row.key == self.key(row.method, trials[row.trial])

    def missing(self) -> list[tuple[str, int, dict[str, Any]]]:
        """Methods and trials whose row is not there, or not of these settings."""
        found: list[tuple[str, int, dict[str, Any]]] = []
        wanted: list[tuple[str, int, dict[str, Any]]] = [(BEFORE, 0, {}), (CONTROL, 0, {})]
        for method in self.plan.methods:
            wanted += [(method, n, t) for n, t in enumerate(grid.trials(method, self.plan.tuning, self.plan.trials))]
        for method, number, trial in wanted:
            path = file_of(self.plan.output, self.plan.task, self.plan.tuning, method, self.seed, number)
            if not path.is_file() or not self.fits(load(path)):
                found.append((method, number, trial))
        return found

    def key(self, method: str, trial: dict[str, Any]) -> str:
        """A hash of what a row depends on."""
        plan, task = self.plan, self._built
        own = {} if method in (BEFORE, CONTROL) else plan.settings(method, trial)
        model = model_hash(str(plan.model)) if plan.model else "demo"
        log = [dialogue.model_dump(mode="json") for dialogue in (*task.victim, *task.log)]
        reworded = [(one.of, one.split, one.dialogue.model_dump(mode="json")) for one in task.paraphrases]
        measured = {
            name: [_told(part.given), _told(part.asked), list(part.texts)] for name, part in task.parts.items()
        }
        parts = [plan.task, self.seed, own, plan.budget, model, vars(task.schooling), dict(task.recipe), log]
        parts += [reworded, dict(task.files), measured, task.answer_tokens]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def run(self) -> None:
        """Compute what is missing."""
        base = self.plan.model or demo_model()
        victim, control = victim_and_control(self.console, self.plan.task, self.task, base, self.seed)
        self._models = "-".join(model_hash(str(made.folder))[:12] for made in (victim, control))
        # What is to be forgotten stands in its files, which go when it is done.
        with tempfile.TemporaryDirectory(prefix="letheon-bench-") as scratch:
            ready = self._prepare(Path(scratch), victim, control)
            missing = [one for one in self.missing() if one[0] not in (BEFORE, CONTROL)]
            for place, (method, number, trial) in enumerate(missing, start=1):
                what = f"seed {self.seed}: {method}, trial {number + 1} ({place} of {len(missing)} to go)"
                save(self.plan.output, self._row(ready, method, number, trial, what))

    def _prepare(self, scratch: Path, victim: FineTuned, control: FineTuned) -> _Ready:
        raw = write_data(self.task, scratch, victim.folder, self.seed)
        run = Run(check_recipe(raw))
        screen_stage(run, self.console)
        self._review(run)
        # What a method asks of the embedder is timed; that its library is loaded first is not.
        Embedder().encode(["."])
        tokenizer = load_tokenizer(str(victim.folder))
        seen = {}
        models = {}
        for name, made in ((BEFORE, victim), (CONTROL, control)):
            with self.console.progress(f"looking at the {'victim' if name == BEFORE else name}"):
                models[name] = load_model(str(made.folder)).eval()
                seen[name] = self._metrics(models[name], tokenizer)
        for name, made in ((BEFORE, victim), (CONTROL, control)):
            save(self.plan.output, self._reference(name, made, self._worth(seen[name], seen[BEFORE], seen[CONTROL])))
        return _Ready(models[BEFORE], tokenizer, split_of(run), raw, seen[BEFORE], seen[CONTROL])

    def _review(self, run: Run) -> None:
        """Set aside what judge and label do not agree on, as one who looks at the verdicts would.

        Otherwise what a judge has missed would be kept by every method's normal term, and no method could forget it.
        The old answers that are measured are those that are to be forgotten.
        """
        labels = {dialogue.id: dialogue.label for dialogue in self.task.log}
        verdicts = [
            verdict if verdict.decision == labels[verdict.id] else verdict.model_copy(update={"decision": "review"})
            for verdict in run.verdicts()
        ]
        write_jsonl(run.verdicts_file, verdicts)
        found = {verdict.id for verdict in verdicts if verdict.decision == "forget"}
        parts = {name: part.of_old(found) for name, part in self.task.parts.items()}
        self.task = replace(self.task, parts=parts)
        if aside := sum(verdict.decision == "review" for verdict in verdicts):
            self.console.say(f"set aside, for judge and label do not agree: {aside} of {len(verdicts)}")

    def _worth(self, own: Parts, before: Parts, control: Parts) -> dict[str, Metrics]:
        return {part: compared(self.task, own[part], before[part], control[part]) for part in own}

    def _metrics(self, model: Model, tokenizer: Tokenizer) -> dict[str, Metrics]:
        seen = look(model, tokenizer, self.task.parts, answer_tokens=self.task.answer_tokens)
        return {name: self.task.metrics(part, seen[name]) for name, part in self.task.parts.items()}

    def _reference(self, name: str, made: FineTuned, worth: dict[str, Metrics]) -> Row:
        return Row(
            task=self.plan.task,
            tuning=self.plan.tuning,
            method=name,
            seed=self.seed,
            trial=0,
            key=self.key(name, {}),
            models=self._models,
            seconds=made.seconds,
            stop="ordinary fine-tuning",
            validation=numbers(worth[VALIDATION]),
            report=numbers(worth[REPORT]),
        )

    def _row(self, ready: _Ready, method: str, number: int, trial: dict[str, Any], what: str) -> Row:
        """Train and measure; a row also of what fails."""
        fields: dict[str, Any] = {
            "task": self.plan.task,
            "tuning": self.plan.tuning,
            "method": method,
            "seed": self.seed,
            "trial": number,
            "key": self.key(method, trial),
            "models": self._models,
            "settings": " ".join(filter(None, [grid.flat(trial), *self.plan.overrides])) or "as it is",
        }
        try:
            outcome = self._train(ready, method, trial, what)
            own = self._metrics(outcome.model, ready.tokenizer)
        except BROKEN as error:
            self.console.warn(f"{method}, trial {number + 1}: {_in_words(error)}")
            return Row(**fields, failed=_in_words(error))
        worth = self._worth(own, ready.before, ready.control)
        row = Row(
            **fields,
            seconds=round(outcome.seconds, 3),
            tokens=outcome.tokens,
            steps=outcome.steps,
            stop=outcome.stop,
            within_guards=outcome.within_guards,
            level_seconds=None if outcome.level_seconds is None else round(outcome.level_seconds, 3),
            level_step=outcome.level_step,
            validation=numbers(worth[VALIDATION]),
            report=numbers(worth[REPORT]),
        )
        free(outcome)
        score = row.validation["score"]
        self.console.say(
            f"{method}, trial {number + 1}: {outcome.seconds:.1f} s, {outcome.steps} steps; on validation "
            + (f"score {score:.3f}" if score is not None else "no score: a metric is not a number")
        )
        return row

    def _train(self, ready: _Ready, method: str, trial: dict[str, Any], what: str) -> Outcome:
        raw = merged(ready.recipe, self.plan.settings(method, trial))
        if at(raw, "objective", "negative", "name") == "base":
            raw["base"] = str(self.plan.model or demo_model())
        recipe: Recipe = check_recipe(raw, f"{method}, {grid.flat(trial)}")
        recipe = recipe.model_copy(update={"train": settings_of(recipe)})
        with self.console.progress(what) as update:
            return train(
                Run(recipe),
                ready.victim,
                ready.tokenizer,
                ready.data,
                reached=self._reached(ready),
                budget=self.plan.budget,
                update=update,
            )

    def _reached(self, ready: _Ready) -> Callable[[Model], bool]:
        """Whether a model says no more of the old answers than the control, on validation."""
        turns = self.task.parts[VALIDATION].given["old"]
        encoded = [encode_turn(ready.tokenizer, turn) for turn in turns]
        limits = {name: ready.control[VALIDATION][name] + within for name, within in LEVEL.items()}

        def reached(model: Model) -> bool:
            found = memorised(score_sequences(model, encoded, batch_size=64))
            return all(found[name] <= limit for name, limit in limits.items())

        return reached


def _told(sets: Mapping[str, Sequence[Turn]]) -> dict[str, list[tuple[str, str]]]:
    """What is measured in sets of turns."""
    return {name: [(turn.question, turn.answer) for turn in turns] for name, turns in sets.items()}


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
