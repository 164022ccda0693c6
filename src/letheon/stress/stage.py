"""The stage `stress`: attack the model of a run, the one before and the control; `stress.json`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

from letheon.console import Console
from letheon.errors import GateError, InputError
from letheon.material import split_of
from letheon.models import context_length, load_config, load_model, load_tokenizer
from letheon.records import Results, StressVerdict, Turn
from letheon.run import Run
from letheon.split import Split, spread
from letheon.stress.attack import Given
from letheon.stress.gates import failed_gates
from letheon.stress.make import attack_models, together
from letheon.stress.records import GateCheck, Name, StressResults, read_stress


def stress_stage(run: Run, console: Console, attacks: Sequence[str], *, show_texts: bool = False) -> StressResults:
    """Make attacks, and write what they brought back, beside what is known of others on the same model.

    Each model is loaded once and attacked in turn; an attack leaves it as it was. An adapter is merged into its base,
    as the evaluation does.

    Args:
        run: The run.
        console: Where progress is shown.
        attacks: Names of `letheon.stress.make.ATTACKS`; none: all.
        show_texts: Keep what the models said under attack, as where the recipe says so.
    """
    recipe = run.recipe
    stop = Results.load(run.results_file).stop
    if stop is None:
        raise InputError(f"{run.folder}: nothing to attack yet; run 'letheon unlearn {run.folder}' first")
    if stop.step > 0 and not run.model_folder.is_dir():
        raise InputError(f"{run.model_folder}: the trained model is gone; run 'letheon unlearn {run.folder}' again")
    if not run.is_current("unlearn"):
        console.warn(
            "the model was trained with other settings, data or verdicts than those it is attacked with now; "
            f"'letheon run {run.folder}' trains it again"
        )
    names: dict[Name, str] = {
        "before": recipe.model,
        "after": str(run.model_folder) if run.model_folder.is_dir() else recipe.model,
    }
    if recipe.evaluate.control:
        names["control"] = recipe.evaluate.control
    else:
        console.say("no control (evaluate.control): what an attack would bring out of any model counts")
    key, given = run.key("stress"), given_of(run, split_of(run))
    known = read_stress(run.stress_file) if run.is_current("stress") else None
    run.start("stress")
    models = {name: partial(load_model, source) for name, source in names.items()}
    show_texts = show_texts or recipe.show_texts
    results = attack_models(models, given, attacks, console=console, show_texts=show_texts)
    if known is not None:
        results = together(results, known, given)
    if not show_texts:
        results.answers.clear()
    results.save(run.stress_file)
    _note(run, results.gates)
    run.finish("stress", key)
    return results


def given_of(run: Run, data: Split) -> Given:
    """What the attacks work with: whole dialogues are held out for relearning, none of which is looked for."""
    recipe, settings = run.recipe, run.recipe.stress
    dialogues = list(dict.fromkeys(turn.dialogue.id for turn in data.asked))
    random.Random(f"{recipe.seed}-relearn").shuffle(dialogues)
    relearned = set(dialogues[: min(settings.relearn_items, len(dialogues) // 3)])
    scored = spread([turn for turn in data.asked if turn.dialogue.id not in relearned], settings.items)
    reworded: dict[str, list[Turn]] = {}
    for paraphrase in run.paraphrases():
        # Those of the probe have decided when training ended.
        if paraphrase.split == "test":
            reworded.setdefault(paraphrase.of, []).append(paraphrase.dialogue.last_turn)
    return Given(
        tokenizer=load_tokenizer(recipe.model),
        scored=scored,
        relearned=[turn for turn in data.asked if turn.dialogue.id in relearned],
        normal=data.normal,
        general=run.general(),
        # A paraphrase is of a dialogue's last turn.
        rewordings=[
            reworded.get(turn.dialogue.id, []) if turn.index == turn.dialogue.last_turn.index else []
            for turn in scored
        ],
        settings=settings,
        seed=recipe.seed,
        batch_size=recipe.evaluate.batch_size,
        max_new_tokens=recipe.evaluate.max_new_tokens,
        context=context_length(load_config(recipe.model)),
    )


def _note(run: Run, gates: Sequence[GateCheck]) -> None:
    """The gates' outcome in `results.json`."""
    failed = failed_gates(gates)
    kept = f"{len(gates)} gates kept" if gates else "no gate was set, or no attack made that one speaks of"
    why = "; ".join(failed) or kept
    results = Results.load(run.results_file)
    results.stress = StressVerdict(passed=not failed, why=why)
    results.save(run.results_file)


def check_stress_gates(results: StressResults) -> None:
    """Turn a breached gate into a failing exit code.

    Raises:
        GateError: A line for each.
    """
    if failed := failed_gates(results.gates):
        raise GateError("\n".join(f"gate failed: {line}" for line in failed))
