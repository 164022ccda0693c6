"""The stages of a run, in order; each reads files of the run folder and leaves files there."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.console import Console, OnProgress
from letheon.dialogues import count_dialogues
from letheon.errors import GateError, InputError, require_extra
from letheon.material import answer_judge, expected_of, rehearsed_of, split_of
from letheon.measure import Measured, release_memory
from letheon.models import load_model, load_tokenizer, save_model
from letheon.recipe import Recipe
from letheon.records import (
    Dialogue,
    Example,
    Headline,
    LayerTrial,
    PersonDecision,
    Results,
    Stop,
    Turn,
    Verdict,
    stream_verdicts,
    write_jsonl,
    write_text,
)
from letheon.review.decisions import own_categories, standing, with_decisions
from letheon.review.settle import decisions_of, settle
from letheon.run import Run
from letheon.split import spread

if TYPE_CHECKING:
    from letheon.screen.duplicates import Duplicates
    from letheon.screen.stream import JudgeStream

EMPTY: dict[str, dict[str, Any]] = {
    "screen": {"screening": None},
    "unlearn": {"layers": None, "stop": None},
    "evaluate": {"verdict": None, "metrics": {}, "notes": [], "examples": []},
    "stress": {"stress": None},
}
"""The sections of the results that each stage fills, as they are before it."""


def run_all(
    run: Run, console: Console, *, resume: bool = False, fresh: bool = False, keep_cache: bool = False
) -> Results:
    """Run every stage whose inputs have changed, and write the report.

    Args:
        run: The run.
        console: Where progress is shown.
        resume: Continue a training that was cut off.
        fresh: Redo every stage.
        keep_cache: Leave what the model said before unlearning in `cache/`, for the next training.
    """
    require_extra("unlearning toward expected answers", "screen")
    require_extra("the report", "report")
    otherwise = run.screened_otherwise()
    prepare(run, whole=True)
    if run.is_current("screen"):
        settle(run, console.warn)
    elif otherwise:
        console.warn(
            f"{run.folder} was screened with other settings ({', '.join(otherwise)}), and is screened again with "
            f"those of this recipe; to go on from a 'letheon screen', run its folder: 'letheon run {run.folder}'"
        )
    stages: dict[str, Callable[[], object]] = {
        "screen": lambda: screen_stage(run, console),
        "unlearn": lambda: unlearn_stage(run, console, resume=resume, keep_cache=keep_cache),
        "evaluate": lambda: evaluate_stage(run, console),
    }
    for name, stage in stages.items():
        if not fresh and run.is_current(name):
            console.say(f"{name}: up to date")
        else:
            stage()
    report_stage(run, console)
    return Results.load(run.results_file)


def prepare(run: Run, *, whole: bool = False) -> None:
    """Check everything that can be checked before weights load, then write the resolved recipe.

    Args:
        run: The run.
        whole: Every stage is going to run.

    Raises:
        InputError: Every fault at once; nothing has been written then. Or another process is at work on the run, or
            this is one of several that were started together.
    """
    # Before settings of the Trainer are made, which would wait for the others.
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError(
            f"a run is one process's, and this is one of {os.environ['WORLD_SIZE']}: start letheon by itself; "
            "letheon.UnlearnTrainer trains in several, from a script of yours"
        )
    run.check(whole=whole)
    run.hold()
    run.save_recipe()


# -- screen ----------------------------------------------------------------------------------------------------------


def screen_stage(run: Run, console: Console) -> None:
    """Judge every turn of the log, and write `verdicts.jsonl`; what a person has decided wins.

    The log is read batch by batch. A screening that was cut off goes on where it was.
    """
    from letheon.embed import WINDOW
    from letheon.screen import build_screener, score_screening
    from letheon.screen.kept import kept_open
    from letheon.screen.progress import heard_by
    from letheon.screen.stream import BATCH, clear_left, screen_stream

    recipe, key, screener, duplicates = run.recipe, run.key("screen"), None, None
    if _on_cluster(recipe):
        require_extra("the engine 'ray'", "ray")
    decisions = decisions_of(run, console.warn)
    run.start("screen")
    done = kept = cut = 0
    with Measured() as cost, kept_open():
        if recipe.data.subject is None:
            tuning = console.progress("tuning MiniLM") if recipe.screen.fine_tune else nullcontext()
            with tuning as update:
                screener = build_screener(
                    recipe.screen, seed=recipe.seed, model=recipe.model, scores=run.scores_file, progress=update
                )
            duplicates = _duplicates(recipe)
            for line in screener.says():
                console.say(line)
        total = count_dialogues(recipe.data.dialogues)
        with console.progress("screening", total, speed=True) as update:

            def within(share: float) -> None:
                update(done + int(share * min(BATCH, total - done)), total)

            with heard_by(within), _at_work(recipe, screener or _eraser(recipe, decisions)) as judge:
                update(0, total)
                for turns, left in screen_stream(run.log(), judge, run.verdicts_file, key, duplicates):
                    done += len({turn.dialogue.id for turn in turns})
                    kept += len(turns) if left else 0
                    cut += screener.cut(turns) if screener else 0
                    update(done, total)
    if decisions and screener:
        own = own_categories(decisions, run.log())
        write_jsonl(run.verdicts_file, with_decisions(stream_verdicts(run.verdicts_file), decisions, own))
    found = score_screening(stream_verdicts(run.verdicts_file), run.log() if screener else ())
    outlook = found.model_copy(update={"expected": screener.outlook}) if screener else None
    _update(run, "screen", cost, screening=outlook)
    line = f"screened {found.n} turns: {found.forget} forget, {found.review} review, {found.normal} normal"
    if found.precision is not None and found.recall is not None:
        line += f"; against the log's labels: precision {found.precision:.3f}, recall {found.recall:.3f}"
    console.say(line)
    if kept:
        console.say(f"{kept} of them had been judged before an earlier screening was cut off")
    if duplicates is not None and duplicates.shared:
        console.say(f"{duplicates.shared} of them say the same as others, and share their verdicts")
    if cut:
        console.warn(
            f"{cut} of them have a question or an answer of more than {WINDOW} word pieces, of which the judge "
            "'embedding' reads the beginning alone; another judge beside it reads the rest (classifier, guard)"
        )
    run.finish("screen", key, keep_scores=found.review > 0)
    clear_left(run.verdicts_file)


def _on_cluster(recipe: Recipe) -> bool:
    """Whether judges work elsewhere; whoever asks to be forgotten is looked for here, without judges."""
    return recipe.screen.engine == "ray" and recipe.data.subject is None


@contextmanager
def _at_work(recipe: Recipe, judge: Callable[[list[Turn]], list[Verdict]]) -> Iterator[JudgeStream]:
    """What judges batch after batch: the judge itself, or copies of it on the workers of a cluster."""
    if not _on_cluster(recipe):
        yield partial(map, judge)
        return
    from letheon.screen.cluster import on_workers

    with on_workers(judge, recipe.screen.ray) as judge_stream:
        yield judge_stream


SLOW_JUDGES = {"embedding", "classifier", "guard", "pair", "api", "consistency"}
"""To look for duplicates would take longer than the others take to judge."""


def _duplicates(recipe: Recipe) -> Duplicates | None:
    """What finds turns that say the same, where that pays."""
    from letheon.screen.duplicates import Duplicates

    like = recipe.screen.duplicates
    return Duplicates(near=like == "near") if like != "none" and SLOW_JUDGES & set(recipe.screen.judges) else None


def _eraser(recipe: Recipe, decisions: Sequence[PersonDecision]) -> Callable[[list[Turn]], list[Verdict]]:
    """What finds the turns about whoever asks to be forgotten."""
    from letheon.screen.subject import Subject, subject_verdicts

    assert recipe.data.subject is not None
    subject = Subject(recipe.data.subject, recipe.data.aliases)
    # What a person found unfit is not trained on as normal either.
    unfit = {key for key, made in standing(decisions).items() if made.decision == "forget"}

    def find(turns: list[Turn]) -> list[Verdict]:
        dialogues = {turn.dialogue.id: turn.dialogue for turn in turns}
        return subject_verdicts(list(dialogues.values()), subject, unfit)

    return find


# -- unlearn ---------------------------------------------------------------------------------------------------------


def unlearn_stage(run: Run, console: Console, *, resume: bool = False, keep_cache: bool = False) -> Stop:
    """Train, and write `model/` and `training.jsonl`; `cache/` is left if asked."""
    from letheon.forward import hold_in_bf16
    from letheon.train.recipe_run import (
        base_of,
        choose_for_recipe,
        chosen_before,
        holds_base_in_bf16,
        probed_of,
        train_from_recipe,
        training_data,
    )

    if not run.is_current("screen"):
        console.warn(
            "verdicts.jsonl is not of this log and these judges, or the screening was cut off; "
            f"'letheon run {run.folder}' screens again"
        )
    key, data = run.key("unlearn"), split_of(run)
    probe = probed_of(run.recipe, data)
    probed = f"probed on {len(probe)}" if probe else "and probed"
    console.say(
        f"to forget: {len(data.forget)} turns ({probed}); to keep: {len(data.normal)} dialogues, "
        f"{len(data.normal_probe)} for the guards, {len(data.normal_held_out)} held out"
    )
    if data.normal_unused:
        console.say(
            f"the log has {data.normal_unused} normal dialogues more: "
            f"{run.recipe.data.most_normal} are used, drawn at random (data.most_normal)"
        )
    if data.normal_unwanted:
        console.warn(
            f"{data.normal_unwanted} normal dialogues say the same as others that are to be forgotten: they are used "
            f"for nothing; 'letheon review {run.folder}' settles which they are"
        )
    if data.paraphrase_seen:
        console.warn(
            f"{data.paraphrase_seen} paraphrases for evaluation ask what training or the stop rule asks too, word by "
            "word: they are left out, for they would tell nothing of other wordings"
        )
    inputs = run.checkpoints / "inputs.txt"
    if resume and not inputs.is_file():
        console.say("no training was cut off here: it starts from the beginning")
        resume = False
    if resume and inputs.read_text(encoding="utf-8", errors="replace") != key:
        console.warn("settings or data have changed since the training was cut off: it starts anew")
        resume = False
    if not resume:
        shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.start("unlearn", "evaluate", "stress")
    # It speaks of another model.
    run.stress_file.unlink(missing_ok=True)
    write_text(inputs, key)
    if not keep_cache:
        shutil.rmtree(run.cache, ignore_errors=True)
    with Measured() as cost:
        quantize = run.recipe.tuning.lora.quantize if run.recipe.quantizes else None
        tokenizer = load_tokenizer(run.recipe.model)
        # Before the model is there: never two in memory.
        base = base_of(run.recipe, tokenizer, data)
        model = load_model(run.recipe.model, quantize=quantize)
        with console.progress("finding expected answers"):
            targets = expected_of(run, data, model, tokenizer)
        if holds_base_in_bf16(run.recipe, model):
            hold_in_bf16(model)
        rehearsed = []
        if run.recipe.objective.normal.rehearsal:
            with console.progress("rehearsing everyday questions"):
                rehearsed = rehearsed_of(run, model, tokenizer)
            # Judge and generation have left holes behind, in which training would not fit.
            release_memory()
            console.say(f"to keep besides: the model's own answers to {len(rehearsed)} everyday questions")
        given = training_data(run.recipe, model, tokenizer, targets, data, rehearsed, base)
        tuning, trial = run.recipe.tuning, chosen_before(run)
        if tuning.layers == "auto":
            if trial is None:
                with console.progress("trying out layers") as update:
                    trial = choose_for_recipe(run, model, given, update)
            for line in _trial_in_words(trial):
                console.say(line)
            tuning = tuning.model_copy(update={"layers": trial.chosen})
        with console.progress("unlearning") as update:
            trained, stop = train_from_recipe(run, model, tuning, given, update, resume=resume, keep_cache=keep_cache)
    scratch = run.folder / "model.new"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        if stop.step > 0:
            save_model(trained, tokenizer, scratch)
        shutil.rmtree(run.model_folder, ignore_errors=True)
        if stop.step > 0:
            scratch.rename(run.model_folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    if not keep_cache:
        shutil.rmtree(run.cache, ignore_errors=True)
    _update(run, "unlearn", cost, layers=trial, stop=stop)
    console.say(f"stopped at step {stop.step}: {stop.reason}")
    run.finish("unlearn", key)
    return stop


def _trial_in_words(trial: LayerTrial) -> Iterator[str]:
    """A line for each depth that was tried, and one for the choice."""
    for one in trial.tried:
        cost = f"{one.seconds:.2f} s a step, after {one.prepare:.1f} s of preparation"
        harm = "" if one.harm is None else f", harm × {one.harm:.2f}"
        found = f"forgetting {one.forgetting[-1]:.3f}, KL {one.kl[-1]:.4f}{harm}" if one.forgetting else "diverged"
        yield f"layers {one.layers}: {found}; {cost}"
    yield f"layers chosen: {trial.chosen}: {trial.why}"


# -- evaluate --------------------------------------------------------------------------------------------------------


def evaluate_stage(run: Run, console: Console) -> Headline:
    """Measure the model before and after, and the control; write metrics, verdict and `samples.jsonl`."""
    from letheon.evaluate import EvalSets, Evaluation, evaluate_model, headline, with_control
    from letheon.evaluate.undesired import same_judge, selected_by
    from letheon.screen.kept import kept_open
    from letheon.screen.privacy import find_names, names_by_patterns

    recipe = run.recipe
    results = Results.load(run.results_file)
    if results.stop is None:
        raise InputError(f"{run.folder}: nothing to evaluate yet; run 'letheon unlearn {run.folder}' first")
    if results.stop.step > 0 and not run.model_folder.is_dir():
        raise InputError(f"{run.model_folder}: the trained model is gone; run 'letheon unlearn {run.folder}' again")
    if not run.is_current("unlearn"):
        console.warn(
            "the model was trained with other settings, data or verdicts than those it is evaluated on now; "
            f"'letheon run {run.folder}' trains it again"
        )
    key = run.key("evaluate")
    run.start("evaluate")
    data, most = split_of(run), recipe.evaluate.normal
    sets = EvalSets(
        forget=data.asked,
        paraphrase=data.paraphrase,
        normal_trained=_normal_turns(data.normal, most),
        normal_held_out=_normal_turns(data.normal_held_out, most),
        general=run.general(),
        non_members=[dialogue.last_turn for dialogue in run.non_members()],
        reworded=data.paraphrase_of,
    )
    stages = ["score", "answer"]
    stages += ["draw"] if recipe.evaluate.samples else []
    stages += ["attack"] if sets.non_members else []
    # A model that was already clean has been left as it was.
    sources = {"before": recipe.model, "after": str(run.model_folder) if run.model_folder.is_dir() else recipe.model}
    if recipe.evaluate.control:
        sources["control"] = recipe.evaluate.control
    tokenizer = load_tokenizer(recipe.model)
    found: dict[str, Evaluation] = {}
    with Measured() as cost, kept_open():
        judge = answer_judge(recipe, run.scores_file)
        # A network that finds names is asked where the screening has asked it as well.
        names = find_names(recipe.screen.ner) if "privacy" in recipe.screen.judges else names_by_patterns
        for name, source in sources.items():
            with console.progress(f"evaluating {name}") as update:
                found[name] = evaluate_model(
                    load_model(source),
                    tokenizer,
                    sets,
                    judge=judge,
                    find_names=names,
                    reference=found.get("before"),
                    batch_size=recipe.evaluate.batch_size,
                    max_new_tokens=recipe.evaluate.max_new_tokens,
                    samples=recipe.evaluate.samples,
                    seed=recipe.seed,
                    progress=_in_turn(update, stages),
                )
            release_memory()
    control = found.get("control", "there is no control, a model that never saw the data (evaluate.control)")
    for name, own in found.items():
        found[name] = with_control(own, "this is the control itself" if name == "control" else control)
    metrics = {name: evaluation.metrics for name, evaluation in found.items()}
    verdict = headline(metrics, recipe.gates)
    _write_samples(run.samples_file, found, show_texts=recipe.show_texts)
    examples = _examples(sets, found, recipe.evaluate.examples, show_texts=recipe.show_texts)
    same = same_judge(found["after"].judges, selected_by(run.stream_verdicts()))
    notes = [f"undesired_rate: {same}"] if same else []
    _update(run, "evaluate", cost, metrics=metrics, notes=notes, verdict=verdict, examples=examples)
    for note in notes:
        console.say(note)
    console.say(f"forgotten: {verdict.forgotten}. {verdict.why}")
    run.finish("evaluate", key)
    return verdict


def _normal_turns(dialogues: Sequence[Dialogue], most: int) -> list[Turn]:
    """What is to be kept: the log's own label overrules a screening that missed an undesired answer."""
    return [dialogue.last_turn for dialogue in dialogues if dialogue.label != "forget"][:most]


def _in_turn(update: OnProgress, stages: Sequence[str]) -> Callable[[str, int, int], None]:
    """Stages as equal parts of one bar."""

    def progress(stage: str, done: int, total: int) -> None:
        update(round(100 * (stages.index(stage) + done / max(total, 1)) / len(stages)), 100)

    return progress


def _write_samples(path: Path, found: dict[str, Any], *, show_texts: bool) -> None:
    lines = []
    for name, evaluation in found.items():
        for sample in evaluation.samples:
            line = {"model": name, **sample.model_dump()}
            answer = evaluation.answers.get((sample.set, sample.id, sample.turn))
            if show_texts and answer is not None:
                line["answer"] = answer
            lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _examples(sets: Any, found: dict[str, Any], most: int, *, show_texts: bool) -> list[Example]:
    """Evenly spaced prompts of the forget set, its paraphrases and normal dialogues, with each model's answer."""
    turns = {(name, t.dialogue.id, t.index): t for name, ts in sets.turns().items() for t in ts}
    asked: list[Any] = []
    groups = (("forget",), ("paraphrase",), ("normal_held_out", "normal_trained"))
    for group in groups:
        keys = [key for key in found["before"].answers if key.set in group]
        asked += spread(keys, -(-most // len(groups)))
    return [
        Example(
            id=key.id,
            set=key.set,
            prompt=turns[key].question if show_texts else None,
            **{name: evaluation.answers.get(key) if show_texts else None for name, evaluation in found.items()},
        )
        for key in asked
    ]


# -- report ----------------------------------------------------------------------------------------------------------


def report_stage(run: Run, console: Console) -> Path:
    """Write `report.html`, and the model card where there is a model."""
    from letheon.report import write_model_card, write_report

    page = write_report(run.folder)
    if run.model_folder.is_dir():
        write_model_card(run.folder)
    console.say(f"report: {page}")
    return page


def check_gates(results: Results) -> None:
    """Turn a verdict other than "yes" into a failing exit code.

    Raises:
        GateError: It was not forgotten, or it cost too much.
    """
    if results.verdict is not None and results.verdict.forgotten != "yes":
        raise GateError(f"gate failed: {results.verdict.why}")


def _update(run: Run, stage: str, cost: Measured, **sections: Any) -> None:
    results = Results.load(run.results_file)
    seconds = {**results.seconds, stage: round(cost.seconds, 2)}
    peak = {**results.peak_memory_mb, stage: round(cost.peak_mb, 1)}
    # Round trip through validation: what is written can be read.
    fields = {**dict(results), "seconds": seconds, "peak_memory_mb": peak, **sections}
    stages = list(EMPTY)
    for later in stages[stages.index(stage) + 1 :]:
        # What a later stage found out about what is no longer so would mislead.
        if not run.is_current(later):
            fields |= EMPTY[later]
    Results.model_validate(fields).save(run.results_file)
