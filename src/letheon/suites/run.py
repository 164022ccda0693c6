"""Run a suite: read its files, examine the model and the control, write what was found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from letheon.chat import check_tokenizer
from letheon.console import Console, span
from letheon.errors import InputError
from letheon.evaluate.membership import PROBED
from letheon.measure import Measured, release_memory
from letheon.models import (
    Tokenizer,
    check_model,
    context_length,
    fingerprint,
    load_config,
    load_model,
    load_tokenizer,
    model_hash,
)
from letheon.records import Turn, write_text
from letheon.screen.kept import kept_open
from letheon.suites import hallucination, harm, leak, muse, tofu, wmdp
from letheon.suites.examine import check_fits, encode_sets, examine
from letheon.suites.find import find
from letheon.suites.options import Options
from letheon.suites.results import BEFORE, CONTROL, OWN, Examined, SuiteResults, check_output, show
from letheon.suites.suite import NO_BEFORE, Findings, Seen, Suite

SUITES: dict[str, Callable[[Path, Options], Suite]] = {
    "leak": leak.read,
    "harm": harm.read,
    "hallucination": hallucination.read,
    "tofu": tofu.read,
    "muse": muse.read,
    "wmdp": wmdp.read,
}
NO_CONTROL = "no control was given: name a model that never saw the data with --control"


@dataclass(frozen=True)
class Plan:
    """What is to be measured.

    Attributes:
        suite: Name of the suite, one of `SUITES`.
        data: The suite's folder.
        output: The results file; the scores of each sample lie beside it, as .samples.jsonl.
        show_texts: Whether the samples file holds prompts and answers.
        options: The models, and how the suite is read.
    """

    suite: str
    data: Path
    output: Path
    show_texts: bool
    options: Options


def run_suite(plan: Plan, console: Console) -> SuiteResults:
    """Measure a model by a suite.

    Raises:
        InputError: A model, a file or a column that is missing; what does not fit the context; an output that cannot
            be written.
        MissingExtraError: A suite or its judge needs a part that is not installed.
    """
    if plan.output.suffix != ".json":
        raise InputError(f"--output {plan.output}: expected a file that ends in .json")
    samples = plan.output.with_suffix(".samples.jsonl")
    check_output(plan.output, samples)
    if not plan.data.is_dir():
        raise InputError(f"--data {plan.data}: no such folder; docs/metrics.md says what a suite's folder holds")
    options = plan.options
    named = {OWN: options.model, BEFORE: options.before, CONTROL: options.control}
    models = {which: name for which, name in named.items() if name is not None}
    for name in models.values():
        check_model(name)
    suite = SUITES[plan.suite](plan.data, options)
    tokenizers = {which: _tokenizer_for(suite, name) for which, name in models.items()}
    no_kl = _no_kl(suite, models, tokenizers)
    seen: dict[str, Seen] = {}
    seconds: dict[str, float] = {}

    def say_estimate(total: float) -> None:
        given, asked = (sum(map(len, sets.values())) for sets in (suite.given, suite.asked))
        drawn = sum(len(suite.asked[name]) for name in suite.drawn) if options.samples else 0
        more = f", {drawn} of them {options.samples} times more" if drawn else ""
        work = f"{given} answers to score, {asked} prompts to answer{more}"
        console.say(f"{plan.suite}: {work}; about {span(total * len(models))} in all, by what a few took")

    # It has to be there while others are compared with it.
    before = load_model(options.before).eval() if options.before is not None and suite.kept else None
    for which, name in models.items():
        with Measured() as cost:
            console.say(f"{which}: {name}")
            seen[which] = examine(
                before if which == BEFORE and before is not None else load_model(name),
                tokenizers[which],
                suite,
                console,
                samples=options.samples,
                before=no_kl.get(which, before),
                say_estimate=say_estimate if which == OWN else None,
            )
        seconds[which] = round(cost.seconds, 2)
        release_memory()
    del before
    with kept_open():
        control = seen.get(CONTROL, NO_CONTROL)
        found = {
            which: find(suite, own, "this is the control itself" if which == CONTROL else control)
            for which, own in seen.items()
        }
    results = SuiteResults(
        suite=plan.suite,
        models={w: Examined(name=name, hash=model_hash(name), seconds=seconds[w]) for w, name in models.items()},
        data={str(path.relative_to(plan.data)): fingerprint(path) for path in suite.files},
        limit=options.limit,
        samples=options.samples if suite.drawn else 0,
        notes=[*suite.notes, *_limited(options.limit)],
        metrics={which: one.values for which, one in found.items()},
    )
    results.save(plan.output)
    write_text(samples, "".join(_lines(suite, found, seen, show_texts=plan.show_texts)))
    show(results, console)
    console.say(f"written: {plan.output}, {samples}")
    return results


def _tokenizer_for(suite: Suite, model: str) -> Tokenizer:
    """A model's tokenizer, once all that the suite asks is known to fit the model."""
    tokenizer = load_tokenizer(model)
    if any(
        isinstance(item, Turn) for sets in (suite.given, suite.asked) for group in sets.values() for item in group
    ):
        check_tokenizer(tokenizer)
    check_fits(tokenizer, suite, context_length(load_config(model)))
    return tokenizer


def _no_kl(suite: Suite, models: dict[str, str], tokenizers: dict[str, Tokenizer]) -> dict[str, str]:
    """The models of which there is no KL to the one before, and why."""
    if BEFORE not in models:
        return dict.fromkeys(models, NO_BEFORE)
    configs = {which: load_config(name) for which, name in models.items()}
    kept = {w: encode_sets(tokenizers[w], suite.kept, context_length(configs[w])) for w in models}
    tokens = {w: (configs[w].get_text_config().vocab_size, kept[w]) for w in models}
    why = {which: "it has other tokens than the model before" for which in models if tokens[which] != tokens[BEFORE]}
    if OWN in why and suite.kept:
        raise InputError(
            f"--before {models[BEFORE]}: it has other tokens than {models[OWN]}, so that what the two say cannot be "
            "compared; name the model that this one was made from"
        )
    return why | {BEFORE: "this is the model before itself"}


def _limited(limit: int | None) -> list[str]:
    return [] if limit is None else [f"of each file at most {limit} rows were read: the numbers are of a part"]


def _lines(suite: Suite, found: dict[str, Findings], seen: dict[str, Seen], *, show_texts: bool) -> list[str]:
    """A line for each item of each set; its texts only where the user wants them."""
    lines = []
    for which, findings in found.items():
        for name, rows in findings.rows.items():
            plain = name.removeprefix(PROBED)
            items, answers = suite.asked.get(name) or suite.given.get(plain, ()), seen[which].answers.get(name)
            for number, scores in enumerate(rows):
                # Of a choice there are several items to a row.
                item = items[number] if len(items) == len(rows) else None
                line: dict[str, object] = {"model": which, "set": name, "number": number}
                line |= {"id": item.dialogue.id} if isinstance(item, Turn) else {}
                line["scores"] = scores
                if show_texts and answers is not None and item is not None:
                    prompt = item.question if isinstance(item, Turn) else item.prompt
                    line |= {"prompt": prompt, "answer": answers[number]}
                lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines
