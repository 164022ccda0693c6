"""Make attacks on several models alike, and put together what they bring back of each."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from letheon.console import Console
from letheon.errors import BrokenModelError, InputError
from letheon.measure import release_memory
from letheon.models import MERGED, Model
from letheon.stress.adapter_off import adapter_off
from letheon.stress.attack import Attack, Found, Given, as_it_is
from letheon.stress.gates import check_stress
from letheon.stress.probe import probe
from letheon.stress.quantise import quantise
from letheon.stress.records import AttackedAnswer, Name, NotRun, StressResults
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


def chosen_attacks(names: Sequence[str]) -> list[str]:
    """Attacks by name, in the order in which they are made; of no names, all.

    Raises:
        InputError: There is no attack of a name.
    """
    if unknown := [name for name in names if name not in ATTACKS]:
        raise InputError(f"there is no attack {' or '.join(map(repr, unknown))}; there are {', '.join(ATTACKS)}")
    return [name for name in ATTACKS if not names or name in names]


def attack_models(
    models: Mapping[Name, Callable[[], Model]],
    given: Given,
    attacks: Sequence[str] = (),
    *,
    console: Console | None = None,
    show_texts: bool = False,
) -> StressResults:
    """Attack each model in turn, all alike: only the difference accuses.

    Args:
        models: What makes the model "before", that "after", and "control" where there is one; each is called when its
            turn comes, and its model given up before the next. An attack leaves a model as it was.
        given: What the attacks work with.
        attacks: Names of `ATTACKS`; none: all.
        console: Where progress is shown; None: nowhere.
        show_texts: Keep what the models said under attack.

    Returns:
        What each attack brought back, with the gates of `given.settings`.

    Raises:
        InputError: There is no attack of a name, or "before" or "after" is missing.
    """
    if missing := [name for name in ("before", "after") if name not in models]:
        raise InputError(f"no model {missing[0]!r} to attack: what comes back is told from before and after")
    made: dict[str, Attack] = {NONE: as_it_is, **{name: ATTACKS[name] for name in chosen_attacks(attacks)}}
    found: dict[str, dict[Name, list[Found]]] = {attack: {} for attack in made}
    not_run: dict[tuple[str, str | None], NotRun] = {}
    seconds = dict.fromkeys(made, 0.0)
    merged: dict[Name, bool] = {}
    for name, load in models.items():
        model = load().eval()
        merged[name] = bool(getattr(model, MERGED, ""))
        for attack, make in made.items():
            start = time.perf_counter()
            what = "asking" if attack == NONE else attack
            with (console or Console(quiet=True)).progress(f"{what}: {name}") as update:
                try:
                    for one in make(model, given, update):
                        if isinstance(one, Found) and not all(map(math.isfinite, one.scores)):
                            why = f"the model {name} is broken by it: its scores are not finite"
                            one = NotRun(attack=attack, variant=one.variant, why=why)
                        if isinstance(one, Found):
                            found[attack].setdefault(name, []).append(one)
                        else:
                            not_run[one.attack, one.variant] = one
                except BrokenModelError as error:
                    not_run[attack, None] = NotRun(attack=attack, why=f"{name}: {error}")
            seconds[attack] += time.perf_counter() - start
        del model
        release_memory()
    if "adapter-off" in made and not merged["after"]:
        found["adapter-off"] = {}
        why = "no adapter was merged into the model after"
        not_run["adapter-off", None] = NotRun(attack="adapter-off", why=why)
    results = StressResults(
        seed=given.seed,
        items=len(given.scored),
        relearned=len(given.relearned),
        merged=merged["after"],
        not_run=list(not_run.values()),
        seconds={attack: round(spent, 2) for attack, spent in seconds.items()},
        answers=list(_answers(given, found)) if show_texts else [],
    )
    plain: dict[str, dict[Name, Sequence[float]]] = {}
    for name, ones in found[NONE].items():
        for one in ones:
            plain.setdefault(one.metric, {})[name] = one.scores
    of = [turn.dialogue.id for turn in given.scored]
    for attack, by_model in found.items():
        if "after" in by_model:
            results.rows.extend(rows_of(attack, by_model, plain, given.seed, of))
            results.curves.extend(curves_of(attack, by_model, plain, of))
    results.gates.extend(check_stress(results.rows, results.not_run, given.settings, results.seconds))
    return results


def together(new: StressResults, known: StressResults, given: Given) -> StressResults:
    """New results beside what is known of other attacks on the same models."""
    order = [NONE, *ATTACKS]
    kept = known.without(list(new.seconds))
    parts = {part: [*getattr(kept, part), *getattr(new, part)] for part in ("rows", "curves", "not_run", "answers")}
    for part in ("rows", "curves"):
        parts[part].sort(key=lambda one: order.index(one.attack))
    seconds = known.seconds | new.seconds
    gates = check_stress(parts["rows"], parts["not_run"], given.settings, seconds)
    return new.model_copy(update=parts | {"seconds": seconds, "gates": gates})


def _answers(given: Given, found: Mapping[str, Mapping[Name, Sequence[Found]]]) -> Iterator[AttackedAnswer]:
    """What the models said, where an attack has kept it."""
    for attack, by_model in found.items():
        for name, ones in by_model.items():
            for one in ones:
                turns = [given.scored[item] for item in one.items or range(len(given.scored))]
                for turn, answer in zip(turns, one.answers, strict=False):
                    yield AttackedAnswer(
                        attack=attack, variant=one.variant, model=name, id=turn.dialogue.id, answer=answer
                    )
