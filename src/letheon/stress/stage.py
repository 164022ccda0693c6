"""The stage `stress`: attack the model of a run, the one before and the control; `stress.json`."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from letheon.console import Console
from letheon.errors import GateError, InputError
from letheon.material import split_of
from letheon.measure import release_memory
from letheon.models import context_length, load_config, load_model, load_tokenizer
from letheon.records import Results, StressVerdict, Turn
from letheon.run import Run
from letheon.split import Split, spread
from letheon.stress.adapter_off import adapter_off
from letheon.stress.attack import Attack, Found, Given, as_it_is
from letheon.stress.gates import check_stress, failed_gates
from letheon.stress.probe import probe
from letheon.stress.quantise import quantise
from letheon.stress.records import AttackedAnswer, GateCheck, Name, NotRun, StressResults, read_stress
from letheon.stress.relearn import relearn
from letheon.stress.rephrase import rephrase
from letheon.stress.rows import curves_of, rows_of
from letheon.stress.sample import sample

ATTACKS: dict[str, Attack] = {
    "relearn": relearn,
    "quantise": quantise,
    "rephrase": rephrase,
    "sample": sample,
    "probe": probe,
    "adapter-off": adapter_off,
}
"""The attacks by name, in the order in which they are made."""
NONE: Literal["none"] = "none"


def chosen_attacks(names: str) -> list[str]:
    """The attacks of a list with commas; "" means all.

    Raises:
        InputError: There is no attack of a name.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if unknown := [name for name in chosen if name not in ATTACKS]:
        raise InputError(f"--attacks: there is no attack {unknown[0]!r}; there are {', '.join(ATTACKS)}")
    return [name for name in ATTACKS if not chosen or name in chosen]


def stress_stage(run: Run, console: Console, attacks: Sequence[str], *, show_texts: bool = False) -> StressResults:
    """Make attacks, and write what they brought back, beside what is known of others on the same model.

    Each model is loaded once and attacked in turn; an attack leaves it as it was. An adapter is merged into its base,
    as the evaluation does.

    Args:
        run: The run.
        console: Where progress is shown.
        attacks: Names of `ATTACKS`.
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
    given = given_of(run, split_of(run))
    known = read_stress(run.stress_file) if run.is_current("stress") else None
    run.start("stress")
    not_run: dict[tuple[str, str | None], NotRun] = {}
    made: dict[str, Attack] = {NONE: as_it_is, **{name: ATTACKS[name] for name in attacks}}
    if "adapter-off" in made and not (run.model_folder / "adapter_config.json").is_file():
        del made["adapter-off"]
        why = "the model after has no adapter that could be taken off"
        not_run["adapter-off", None] = NotRun(attack="adapter-off", why=why)
    found: dict[str, dict[Name, list[Found]]] = {attack: {} for attack in [NONE, *attacks]}
    seconds = dict.fromkeys(made, 0.0)
    for name, source in names.items():
        model = load_model(source).eval()
        for attack, make in made.items():
            start = time.perf_counter()
            what = "asking" if attack == NONE else attack
            with console.progress(f"{what}: {name}") as update:
                for one in make(model, given, update):
                    if isinstance(one, Found) and not all(map(math.isfinite, one.scores)):
                        why = f"the model {name} is broken by it: its scores are not finite"
                        one = NotRun(attack=attack, variant=one.variant, why=why)
                    if isinstance(one, Found):
                        found[attack].setdefault(name, []).append(one)
                    else:
                        not_run[one.attack, one.variant] = one
            seconds[attack] += time.perf_counter() - start
        del model
        release_memory()
    results = _put_together(run, given, found, list(not_run.values()), known, seconds)
    if show_texts or recipe.show_texts:
        results.answers.extend(_answers(given, found))
    else:
        results.answers.clear()
    results.save(run.stress_file)
    _note(run, results.gates)
    run.finish("stress")
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


def _put_together(
    run: Run,
    given: Given,
    found: dict[str, dict[Name, list[Found]]],
    not_run: list[NotRun],
    known: StressResults | None,
    seconds: dict[str, float],
) -> StressResults:
    """Rows, curves and gates of what was found, with what is known of other attacks."""
    seed, settings = run.recipe.seed, run.recipe.stress
    plain: dict[str, dict[Name, Sequence[float]]] = {}
    for name, ones in found[NONE].items():
        for one in ones:
            plain.setdefault(one.metric, {})[name] = one.scores
    results = StressResults(
        seed=seed,
        items=len(given.scored),
        relearned=len(given.relearned),
        merged=(run.model_folder / "adapter_config.json").is_file(),
    )
    if known is not None:
        results = known.without(list(found))
    for attack, by_model in found.items():
        if "after" in by_model:
            results.rows.extend(rows_of(attack, by_model, plain, seed))
            results.curves.extend(curves_of(attack, by_model, plain))
    order = [NONE, *ATTACKS]
    results.rows.sort(key=lambda row: order.index(row.attack))
    results.curves.sort(key=lambda curve: order.index(curve.attack))
    results.not_run.extend(not_run)
    results.seconds.update({attack: round(spent, 2) for attack, spent in seconds.items()})
    results.gates[:] = check_stress(results.rows, settings, results.seconds)
    return results


def _answers(given: Given, found: dict[str, dict[Name, list[Found]]]) -> Iterator[AttackedAnswer]:
    """What the models said, where an attack has kept it."""
    for attack, by_model in found.items():
        for name, ones in by_model.items():
            for one in ones:
                turns = [given.scored[item] for item in one.items or range(len(given.scored))]
                for turn, answer in zip(turns, one.answers, strict=False):
                    yield AttackedAnswer(
                        attack=attack, variant=one.variant, model=name, id=turn.dialogue.id, answer=answer
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
