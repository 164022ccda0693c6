"""The command line: thin verbs over the stages. `--help` imports no torch.

Exit codes: 0 done; 1 a gate failed; 2 the input is wrong; 3 a missing optional part, with its install command.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import warnings
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from letheon.console import Console
from letheon.errors import GateError, InputError, LetheonError, check_all
from letheon.methods import METHODS
from letheon.suites.options import LM_EVAL, NAMES, Options, check_options

if TYPE_CHECKING:
    from letheon.run import Run

app = typer.Typer(
    name="letheon",
    help="Make a trained language model unlearn: screen dialogues, forget the bad ones, keep the rest, show it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Where = Annotated[Path, typer.Argument(help="A recipe file, or a run folder.", show_default=False)]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field, e.g. objective.negative.rho=0.1; repeatable."),
]
KeepCache = Annotated[
    bool,
    typer.Option(
        "--keep-cache",
        help="Leave what the model said before in cache/ for the next training; it tells of what is forgotten.",
    ),
]


class Engine(str, Enum):
    """Where the judges of a screening work."""

    local = "local"
    ray = "ray"


class Tuning(str, Enum):
    """Which weights learn."""

    lora = "lora"
    full = "full"


@app.command()
def demo(
    output: Annotated[Path, typer.Option(help="The run folder.")] = Path("runs/demo"),
    tuning: Annotated[Tuning, typer.Option(help="Train an adapter, or all weights.")] = Tuning.lora,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo what an earlier demo has cached.")] = False,
    overrides: Sets = None,
) -> None:
    """Tell the whole story on a small real model: teach it bad habits, screen, unlearn, evaluate, report."""
    from letheon.demo.story import tell

    tell(Console(), output=output, tuning=tuning.value, seed=seed, fresh=fresh, overrides=overrides or [])


@app.command()
def init(
    data: Annotated[Path, typer.Argument(help="Your dialogue file.", show_default=False)],
    model: Annotated[str, typer.Argument(help="Your model's folder, or a hub id.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the recipe is written.")] = Path(
        "recipe.yaml"
    ),
    method: Annotated[
        str, typer.Option(help=f"Settings of Letheon's own, or of a published method: {', '.join(METHODS)}.")
    ] = "letheon",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing recipe.")] = False,
) -> None:
    """Write a commented starter recipe for a dialogue file and a model."""
    from letheon.starter import write_starter

    console = Console()
    for line in write_starter(data, model, output, method=method, force=force):
        console.say(line)


@app.command()
def validate(data: Annotated[Path, typer.Argument(help="Dialogue file or recipe.", show_default=False)]) -> None:
    """Check a dialogue file and name every bad row; or check a recipe and all that it names."""
    from letheon.dialogues import check_file

    console = Console()
    if data.suffix in (".yaml", ".yml") or data.is_dir():
        from letheon.run import Run

        run = Run.open(data)
        run.check(whole=True)
        console.say(f"{data}: fine; {len(run.dialogues)} dialogues")
        return
    dialogues, faults = check_file(data)
    if faults:
        found = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError([*faults, f"{found}; {len(dialogues)} rows are fine"])
    labels = [dialogue.label for dialogue in dialogues]
    turns = sum(1 for dialogue in dialogues for _ in dialogue.turns())
    console.say(
        f"{data}: fine; {len(dialogues)} dialogues, {turns} assistant turns; labelled "
        f"{labels.count('forget')} forget, {labels.count('normal')} normal, {labels.count(None)} without a label"
    )


@app.command()
def run(
    recipe: Where,
    overrides: Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was cut off.")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Redo every stage.")] = False,
    keep_cache: KeepCache = False,
) -> None:
    """Run a recipe: screen, unlearn, evaluate, report. Only what its inputs changed is redone."""
    from letheon import pipeline
    from letheon.run import Run

    opened = Run.open(recipe, overrides or [])
    results = pipeline.run_all(opened, Console(), resume=resume, fresh=fresh, keep_cache=keep_cache)
    pipeline.check_gates(results)


@app.command()
def screen(
    where: Where,
    fit: Annotated[
        Path | None,
        typer.Option("--fit", help="Labelled dialogues to learn from (screen.examples); adds the embedding judge."),
    ] = None,
    target_recall: Annotated[
        float | None, typer.Option("--target-recall", help="Share to be found of what must go, e.g. 0.95.")
    ] = None,
    target_precision: Annotated[
        float | None, typer.Option("--target-precision", help="Share that must go of what is forgotten, e.g. 0.9.")
    ] = None,
    engine: Annotated[
        Engine | None,
        typer.Option("--engine", help="local: judge in this process; ray: on the workers of a Ray cluster."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, metavar="N", help="Ray's processes that judge.")
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="HOST:PORT", help="Ray cluster to join, instead of this machine."),
    ] = None,
    overrides: Sets = None,
) -> None:
    """Pick out the dialogues that need unlearning: verdicts.jsonl."""
    from letheon import pipeline
    from letheon.run import Run

    chosen = list(overrides or [])
    given = {
        "target_recall": target_recall,
        "target_precision": target_precision,
        "engine": engine.value if engine else None,
        "ray.workers": workers,
        "ray.address": _yaml(ray_address) if ray_address else None,
    }
    chosen += [f"screen.{name}={value}" for name, value in given.items() if value is not None]
    if fit is not None:
        chosen.append(f"screen.examples={_yaml(str(fit))}")
        judges = Run.open(where, chosen).recipe.screen.judges
        chosen.append(f"screen.judges={_yaml(list(dict.fromkeys([*judges, 'embedding'])))}")
    opened = Run.open(where, chosen)
    if opened.recipe.screen.engine != "ray" and (workers or ray_address):
        raise InputError("--workers and --ray-address need --engine ray")
    pipeline.prepare(opened)
    console = Console()
    pipeline.screen_stage(opened, console)
    if chosen and not where.is_dir():
        console.say(f"go on with 'letheon run {opened.folder}': it has these settings, and {where} has not")


@app.command()
def review(
    where: Where,
    port: Annotated[int | None, typer.Option(help="Port on 127.0.0.1.", show_default="a free one")] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the URL and open no browser.")] = False,
    blur: Annotated[bool, typer.Option("--blur", help="Start with blurred texts, shown when asked for.")] = False,
    audit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Label N random normal verdicts, to estimate what was missed."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write what was decided as labelled dialogues, WITH texts, and stop."),
    ] = None,
    queue: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the queue, WITH texts, to fill in without a browser, and stop."),
    ] = None,
    filled: Annotated[
        Path | None, typer.Option("--import", metavar="FILE", help="Read a queue that was filled in, and stop.")
    ] = None,
    overrides: Sets = None,
) -> None:
    """Confirm or change the verdicts on a local page: decisions.jsonl, which wins over the judges."""
    from letheon.review import exchange
    from letheon.review.serve import review as serve
    from letheon.run import Run

    opened, console = Run.open(where, overrides or []), Console()
    given = {"--export": export, "--queue": queue, "--import": filled}
    named = [name for name, file in given.items() if file is not None]
    if len(named) > 1:
        raise InputError(f"{' and '.join(named)}: give one of them at a time")
    if named and audit is not None:
        raise InputError(f"--audit {audit} opens the page, and {named[0]} does not: give one of them at a time")
    if export is not None:
        exchange.export_decided(opened, export, console)
    elif queue is not None:
        exchange.write_queue(opened, queue, console)
    elif filled is not None:
        exchange.import_queue(opened, filled, console)
    else:
        serve(opened, console, port=port, open_browser=not no_open, blur=blur, audit_size=audit)


@app.command()
def expect(
    where: Where,
    id: Annotated[str | None, typer.Option("--id", help="One dialogue, with the texts of its answers.")] = None,
    overrides: Sets = None,
) -> None:
    """Show which answers the model will be pulled toward, and why."""
    from letheon.expect_view import show_expected
    from letheon.run import Run

    show_expected(Run.open(where, overrides or []), Console(), id)


@app.command()
def subjects(
    where: Annotated[Path, typer.Argument(help="A recipe, a run folder, or a dialogue file.", show_default=False)],
    show: Annotated[bool, typer.Option("--show", help="Print names and contacts in full.")] = False,
    most: Annotated[int, typer.Option("--most", min=1, help="Rows to print.")] = 40,
    overrides: Sets = None,
) -> None:
    """List whom the log is about, and in which dialogues; names are masked unless asked for, texts never shown."""
    from letheon.dialogues import read_dialogues
    from letheon.run import Run
    from letheon.screen.privacy import find_names, source_of
    from letheon.screen.subjects import list_subjects

    is_recipe = where.is_dir() or where.suffix in (".yaml", ".yml")
    if overrides and not is_recipe:
        raise InputError(f"--set needs a recipe; {where} is a dialogue file")
    opened = Run.open(where, overrides or []) if is_recipe else None
    dialogues, ner = (opened.dialogues, opened.recipe.screen.ner) if opened else (read_dialogues(where), "auto")
    console = Console()
    with console.progress(f"looking for names (by {source_of(ner)})"):
        rows = list_subjects(dialogues, find_names(ner))
    shown = [
        (row.kind, row.label if show else row.masked, len(row.dialogues), ", ".join(row.dialogues[:4]))
        for row in rows[:most]
    ]
    console.table(f"{len(rows)} subjects in {len(dialogues)} dialogues", ["kind", "who", "dialogues", "ids"], shown)
    if len(rows) > most:
        console.say(f"… and {len(rows) - most} more: --most {len(rows)}")


@app.command()
def unlearn(
    where: Where,
    subject: Annotated[
        str | None, typer.Option("--subject", help="Forget what the log says of this subject, and nothing else.")
    ] = None,
    aliases: Annotated[
        list[str] | None,
        typer.Option("--alias", help="What else the subject goes by: a name, e-mail or phone; repeatable."),
    ] = None,
    overrides: Sets = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was cut off.")] = False,
    keep_cache: KeepCache = False,
) -> None:
    """Train the model to forget what verdicts.jsonl says: model/. Exit code 1 if it broke the guards."""
    from letheon import pipeline
    from letheon.review.settle import settle

    chosen = [*(overrides or []), *([] if subject is None else [f"data.subject={_yaml(subject)}"])]
    chosen += [f"data.aliases={_yaml(aliases)}"] if aliases else []
    console = Console()
    opened = _after_screening(where, chosen, console)
    pipeline.prepare(opened)
    settle(opened, console.warn)
    if opened.recipe.data.subject is not None and not opened.is_current("screen"):
        pipeline.screen_stage(opened, console)
    stop = pipeline.unlearn_stage(opened, console, resume=resume, keep_cache=keep_cache)
    if not stop.within_guards:
        raise GateError(f"the model is not fit for use: {stop.reason}; lower train.learning_rate, or raise a guard")


@app.command()
def evaluate(
    where: Annotated[
        Path, typer.Argument(help="A recipe file or a run folder; with --suite, a model.", show_default=False)
    ],
    overrides: Sets = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", metavar="NAME", help=f"Measure any model, without a run, by {', '.join(NAMES)}."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", metavar="FOLDER", help="The suite's files; see docs/metrics.md.")
    ] = None,
    control: Annotated[
        str | None,
        typer.Option("--control", metavar="MODEL", help="A model that never saw what was to be forgotten."),
    ] = None,
    before: Annotated[
        str | None,
        typer.Option(
            "--before", metavar="MODEL", help="The model before unlearning: measured as well, and KL to it."
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Results of a suite.", show_default="results-SUITE.json"),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=2, metavar="N", help="Read at most N rows of each file.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(
            "--samples", min=0, max=256, metavar="K", help="Answers drawn to a prompt, for leak@k.", show_default="8"
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Forget set of the suite tofu.", show_default="forget10")
    ] = None,
    judge: Annotated[
        Path | None, typer.Option("--judge", metavar="RECIPE", help="Whose judges judge in the suite harm.")
    ] = None,
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", metavar="NAMES", help="Tasks of the suite lm-eval, with commas between them."),
    ] = None,
    show_texts: Annotated[
        bool, typer.Option("--show-texts", help="Write prompts and answers into the results, this time.")
    ] = False,
) -> None:
    """Measure before, after and a control: results.json, exit code 1 if a gate fails. Or any model by a suite."""
    given: dict[str, object] = {"--data": data, "--control": control, "--before": before, "--output": output}
    given |= {"--limit": limit, "--samples": samples, "--split": split, "--judge": judge, "--tasks": tasks}
    given |= {"--show-texts": show_texts}
    check_options(suite, given)
    if suite is None:
        _evaluate_run(where, overrides or [], show_texts=show_texts)
        return
    if overrides:
        raise InputError("--set changes a recipe, and a suite has none; leave it out")
    output = output or Path(f"results-{suite}.json")
    if suite == LM_EVAL:
        from letheon.suites.lm_eval import run_tasks

        named = [name.strip() for name in (tasks or "").split(",") if name.strip()]
        run_tasks(str(where), named, output, limit, Console())
        return
    from letheon.suites.run import Plan, run_suite

    chosen: dict[str, Any] = {
        name: value for name, value in (("samples", samples), ("split", split)) if value is not None
    }
    options = Options(str(where), before, control, limit=limit, judge=judge, **chosen)
    run_suite(Plan(suite, data or Path(), output, show_texts, options), Console())


def _after_screening(where: Path, overrides: list[str], console: Console) -> Run:
    """Open a run for what comes after its screening, whose settings stand unless others are named here."""
    from letheon.run import Run

    opened = Run.open(where, overrides)
    otherwise = opened.screened_otherwise()
    if not otherwise or any(override.startswith("screen.") for override in overrides):
        return opened
    # All its faults at once, before a file that lacks is one.
    opened.check()
    screened = opened.as_screened()
    if opened.is_current("screen") or not screened.is_current("screen"):
        return opened
    console.warn(
        f"{opened.folder} was screened with other settings than those of {where} ({', '.join(otherwise)}), "
        f"and goes on with its own; 'letheon run {where}' screens again"
    )
    return screened


def _evaluate_run(where: Path, overrides: list[str], *, show_texts: bool) -> None:
    from letheon import pipeline
    from letheon.records import Results
    from letheon.review.settle import settle
    from letheon.run import Run

    console = Console()
    opened = _after_screening(where, overrides, console)
    pipeline.prepare(opened)
    settle(opened, console.warn)
    if show_texts:
        # The recipe in the folder stays as it is, so that the next run takes the texts out again.
        opened = Run(opened.recipe.model_copy(update={"show_texts": True}))
    pipeline.evaluate_stage(opened, console)
    pipeline.check_gates(Results.load(opened.results_file))


@app.command()
def stress(
    where: Where,
    attacks: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="relearn, quantise, rephrase, sample, probe, adapter-off; with commas between them.",
            show_default="all",
        ),
    ] = None,
    show_texts: Annotated[
        bool, typer.Option("--show-texts", help="Keep what the models said under attack in stress.json.")
    ] = False,
    overrides: Sets = None,
) -> None:
    """Attack the model to bring the old answers back: stress.json. Exit code 1 if a gate of `stress` fails."""
    from letheon import pipeline
    from letheon.review.settle import settle
    from letheon.stress.make import chosen_attacks
    from letheon.stress.show import show
    from letheon.stress.stage import check_stress_gates, stress_stage

    console = Console()

    def prepared() -> Run:
        run = _after_screening(where, overrides or [], console)
        pipeline.prepare(run)
        return run

    chosen, opened = check_all([lambda: chosen_attacks(_names("--attacks", attacks)), prepared])
    settle(opened, console.warn)
    results = stress_stage(opened, console, chosen, show_texts=show_texts)
    show(results, console)
    console.say(f"written: {opened.stress_file}; 'letheon report {opened.folder}' shows it")
    check_stress_gates(results)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)]) -> None:
    """Write report.html from the files of a run folder."""
    from letheon.report import write_model_card, write_report

    console = Console()
    if folder.is_dir() and not (folder / "recipe.yaml").is_file():
        raise InputError(f"{folder}: no recipe.yaml in this folder, so it is no run folder; nothing to report")
    console.say(f"report: {write_report(folder)}")
    if (folder / "model").is_dir():
        console.say(f"model card: {write_model_card(folder)}")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    output: Annotated[Path, typer.Argument(help="Where the model is written.", show_default=False)],
    merge: Annotated[
        bool, typer.Option("--merge", help="Put an adapter into its base; beside its base it forgets nothing.")
    ] = False,
) -> None:
    """Write the unlearned model as a folder of its own, with its model card."""
    from letheon.export import export as write
    from letheon.run import read_manifest

    read_manifest(folder / "manifest.json")
    write(folder, output, Console(), merge=merge)


@app.command()
def bench(
    task: Annotated[str, typer.Argument(help="leak, leak-05, harm, hallucination or outdated.", show_default=False)],
    methods: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Methods, with commas between them.", show_default="all")
    ] = None,
    seeds: Annotated[str, typer.Option(metavar="NUMBERS", help="Seeds, with commas between them.")] = "0,1,2",
    trials: Annotated[int, typer.Option(help="Trials of each method on each seed, 1 to 6.")] = 4,
    budget: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Most seconds that a trial may take.")
    ] = 600,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the data sets lie.")] = Path("data"),
    tuning: Annotated[Tuning, typer.Option(help="Train an adapter, or all weights.")] = Tuning.lora,
    output: Annotated[Path, typer.Option(help="Where rows, tables and pictures go; it may be shared.")] = Path(
        "runs/bench"
    ),
    model: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What is fine-tuned first.", show_default="the demo model")
    ] = None,
    overrides: Sets = None,
) -> None:
    """Compare methods on one task: same victim, data, trials and budget. Goes on where it was cut off."""
    from letheon.bench.bench import Plan
    from letheon.bench.bench import bench as compare
    from letheon.methods import METHODS

    plan = Plan(
        task=task,
        methods=_names("--methods", methods) or list(METHODS),
        seeds=_numbers(seeds),
        trials=trials,
        budget=budget,
        data=data,
        tuning=tuning.value,
        output=output,
        model=model,
        overrides=overrides or [],
    )
    console = Console()
    # A kill, too, is to leave no text behind: what is to be forgotten lies in a temporary folder meanwhile.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for file in compare(plan, console):
        console.say(f"written: {file}")


def _yaml(value: Any) -> str:
    """A value as an override has it: JSON is YAML, but for the halves into which it escapes characters like emoji."""
    return json.dumps(value, ensure_ascii=False)


def _names(option: str, text: str | None) -> list[str]:
    """Names with commas between them; none where the option was not given."""
    names = [name.strip() for name in (text or "").split(",") if name.strip()]
    if text is not None and not names:
        raise InputError(f"{option} {text!r}: names none; name some, or leave it out for all")
    return names


def _numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    # Numpy's seeds have 32 bits.
    if not all(part.isdecimal() and int(part) < 2**32 for part in parts):
        raise InputError(f"--seeds {text!r}: expected whole numbers from 0 with commas between them, such as 0,1,2")
    return list(dict.fromkeys(map(int, parts)))


@app.command()
def doctor() -> None:
    """Say what this machine has, and what each missing thing costs."""
    from letheon.doctor import findings

    Console().table("letheon doctor", ["what", "found", "if missing"], findings())


def main() -> None:
    """Run the command line; a user's mistake prints a line for each fault, never a traceback."""
    hush_libraries()
    try:
        app()
    except LetheonError as error:
        _fail(*str(error).splitlines(), code=error.exit_code)
    except KeyboardInterrupt:
        _fail(INTERRUPTED, code=INTERRUPT)
    except SystemExit as end:
        # typer turns the user's Ctrl-C into an exit.
        if end.code == INTERRUPT:
            _fail(INTERRUPTED, code=INTERRUPT)
        raise
    except Exception as error:
        if is_full_disk(error):
            _fail("the disk is full; free some space and run again (an unlearning with --resume)", code=2)
        if isinstance(error, OSError) and error.filename is not None:
            _fail(_of_path(error), code=2)
        raise


INTERRUPT = 130
INTERRUPTED = (
    "interrupted; 'letheon run … --resume' goes on from the last checkpoint of a training, if it came to one, "
    "and a bench from its last row"
)


WAYS_OUT = {
    errno.EISDIR: "name a file, not a folder",
    errno.EEXIST: "it is in the way; choose another path",
    errno.ENOTDIR: "a part of this path is a file; choose another path",
    errno.ENOENT: "check the path",
    errno.ENAMETOOLONG: "choose a shorter one",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "choose a path that can be written to",
}
"""What to do about an error that the system has with a path."""


def _of_path(error: OSError) -> str:
    # Of a rename the second name is the one that the user gave.
    path = error.filename if error.filename2 is None else error.filename2
    why = (error.strerror or "cannot be used").lower()
    return f"{path}: {why}; {WAYS_OUT.get(error.errno or 0, 'check the path and its disk')}"


def _fail(*lines: str, code: int) -> NoReturn:
    for line in lines:
        print(f"letheon: {line}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def hush_libraries() -> None:
    """Keep progress bars, notices and warnings of the libraries out of our output; Letheon's own warnings stay.

    Whoever wants them back sets TRANSFORMERS_VERBOSITY, HF_HUB_VERBOSITY or PYTHONWARNINGS.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.filterwarnings("ignore", module=r"(?!letheon\b)")


QUIET = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def is_full_disk(error: BaseException) -> bool:
    """Whether an error means "no space left on device"; safetensors and torch wrap it in errors of their own."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return True
    # torch.save says only that its file came out shorter than it should.
    return os.strerror(errno.ENOSPC) in str(error) or "inline_container" in str(error)


if __name__ == "__main__":
    main()
