"""Put a suite to a model: how long it will take, then all of it, sequences of like length together."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from letheon.chat import Encoded
from letheon.console import Console, OnProgress
from letheon.errors import BrokenModelError, InputError
from letheon.evaluate.divergence import divergences
from letheon.evaluate.generation import encode_either, greedy_answers, sampled_answers
from letheon.evaluate.gradient_norm import gradient_norms
from letheon.evaluate.look import Item, encode_item, known_beginning
from letheon.evaluate.teacher_forced import score_sequences
from letheon.forward import can_pack
from letheon.measure import wait_for_device
from letheon.models import Model, Tokenizer, context_length, in_eval_mode
from letheon.records import Turn
from letheon.split import spread
from letheon.suites.suite import ANSWER_TOKENS, NO_BEFORE, Seen, Suite

PILOT = 6
"""Items of each job that are done first, to tell how long all will take."""
BATCH = 16
DRAWN_AT_ONCE = 32
DRAWN, KL = "drawn", "kl"

Do = Callable[[Sequence[int], Callable[[float], None]], list[Any]]
"""Does the items of these numbers; it tells how many each batch has done."""


@dataclass
class _Job:
    """Work of one kind on many items.

    Attributes:
        what: What is done, for people.
        costs: Of each item, in proportion to the time it takes.
        do: See `Do`.
        done: Results, by number.
    """

    what: str
    costs: Sequence[float]
    do: Do
    done: dict[int, Any] = field(default_factory=dict)

    def run(self, numbers: Sequence[int], tick: Callable[[float], None] = lambda more: None) -> None:
        if numbers:
            self.done |= dict(zip(numbers, self.do(numbers, tick), strict=True))

    def estimate(self) -> float:
        """Seconds for all items, from doing some of them."""
        some = spread(range(len(self.costs)), PILOT)
        start = time.perf_counter()
        self.run(some)
        wait_for_device()
        spent = time.perf_counter() - start
        return extrapolated(spent, [self.costs[n] for n in some], self.costs)

    def rest(self) -> list[int]:
        return [number for number in range(len(self.costs)) if number not in self.done]

    def results(self) -> list[Any]:
        return [self.done[number] for number in range(len(self.costs))]


def extrapolated(seconds: float, some: Sequence[float], costs: Sequence[float]) -> float:
    """Seconds that all of it takes, if some of it took so many: in proportion to what it costs."""
    return seconds * sum(costs) / sum(some) if some else 0.0


def check_fits(tokenizer: Tokenizer, suite: Suite, max_length: int | None) -> None:
    """Look for what a model's context has no room for, before it is loaded.

    Raises:
        InputError: The first item of a set that does not fit, without its text.
    """
    encode_sets(tokenizer, suite.given, max_length)
    for name, items in suite.asked.items():
        for number, item in enumerate(items, start=1):
            length = len(encode_either(tokenizer, item.prompt)) + _length(suite, name)
            if max_length is not None and length > max_length:
                raise InputError(
                    f"{name}: prompt {number} and an answer to it need {length} tokens, and the model's context has "
                    f"{max_length}; shorten it or leave it out"
                )


def encode_sets(
    tokenizer: Tokenizer, sets: Mapping[str, Sequence[Item]], max_length: int | None
) -> dict[str, list[Encoded]]:
    """The items of each set as tokens.

    Raises:
        InputError: One does not fit.
    """
    return {name: [encode_item(tokenizer, item, max_length) for item in items] for name, items in sets.items()}


def examine(
    model: Model,
    tokenizer: Tokenizer,
    suite: Suite,
    console: Console,
    *,
    samples: int,
    before: Model | str = NO_BEFORE,
    say_estimate: Callable[[float], None] | None = None,
) -> Seen:
    """Have a model do all that a suite asks of it.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        suite: The suite.
        console: Shows progress.
        samples: Answers drawn to an item.
        before: The model before, which stays in memory beside it; or why there is none.
        say_estimate: Told the seconds that all will take, measured on a few items of each kind.
    """
    encoded = encode_sets(tokenizer, suite.given, context_length(model))
    with in_eval_mode(model):
        # Tried out once, which is no part of the time.
        can_pack(model)
        jobs = _jobs(model, tokenizer, suite, encoded, samples, before)
        if say_estimate is not None:
            say_estimate(_estimate(jobs, samples))
        for job in jobs.values():
            rest, total = job.rest(), len(job.costs)
            if not rest:
                continue
            with console.progress(job.what, total) as update:
                done: float = total - len(rest)
                update(int(done), total)

                def tick(more: float, update: OnProgress = update, total: int = total) -> None:
                    nonlocal done
                    done += more
                    update(round(done), total)

                job.run(rest, tick)
        broken = _is_broken(model, tokenizer, suite)
    return replace(_seen(tokenizer, suite, jobs, encoded, before), broken=broken)


def _is_broken(model: Model, tokenizer: Tokenizer, suite: Suite) -> bool:
    """Whether nothing can be drawn after the first prompt of a set: then greedy answers are noise, too."""
    prompts = [item.prompt for group in suite.asked.values() for item in group[:1]]
    try:
        sampled_answers(model, tokenizer, prompts, samples=1, max_new_tokens=1)
    except BrokenModelError:
        return True
    return False


def _jobs(
    model: Model,
    tokenizer: Tokenizer,
    suite: Suite,
    encoded: dict[str, list[Encoded]],
    samples: int,
    before: Model | str,
) -> dict[str, _Job]:
    given = [one for group in encoded.values() for one in group]
    items = [item for group in suite.given.values() for item in group]
    probed = [one for name in suite.probed for one in encoded[name]]
    scoring = _Job(
        "scoring given answers",
        [len(one.ids) for one in given],
        lambda numbers, tick: score_sequences(
            model,
            [given[n] for n in numbers],
            batch_size=BATCH,
            standardise=bool(suite.probed),
            progress=tick,
        ),
    )
    jobs = {"scores": scoring}
    jobs["norms"] = _Job(
        "measuring gradients",
        [len(one.ids) for one in probed],
        lambda numbers, tick: gradient_norms(model, [probed[n] for n in numbers], progress=tick),
    )
    groups = {} if isinstance(before, str) else encode_sets(tokenizer, suite.kept, context_length(model))
    kept = [one for group in groups.values() for one in group]
    jobs[KL] = _Job(
        "comparing with the model before",
        [len(one.ids) for one in kept],
        lambda numbers, tick: divergences(model, before, [kept[n] for n in numbers], batch_size=BATCH, progress=tick),
    )

    def known(item: Item) -> list[int]:
        """What the model has shown that it would say; not of plain text, whose tokens may join at the seam."""
        if not isinstance(item, Turn):
            return []
        number = places.get(item)
        return known_beginning(given[number], scoring.done[number]) if number in scoring.done else []

    places = {item: number for number, item in enumerate(items)}
    for length in sorted({_length(suite, name) for name in suite.asked}):
        asked = [item for name, group in suite.asked.items() if _length(suite, name) == length for item in group]
        jobs[f"answers: {length}"] = _Job(
            f"answering in up to {length} tokens",
            [1.0] * len(asked),
            lambda numbers, tick, asked=asked, length=length: greedy_answers(  # type: ignore[misc]
                model,
                tokenizer,
                [asked[n].prompt for n in numbers],
                known=[known(asked[n]) for n in numbers],
                batch_size=BATCH,
                max_new_tokens=length,
                progress=tick,
            ),
        )
    drawn = [item for name in suite.drawn for item in suite.asked[name]] if samples else []

    def draw(numbers: Sequence[int], tick: Callable[[float], None]) -> list[list[str]]:
        try:
            return sampled_answers(
                model,
                tokenizer,
                [drawn[n].prompt for n in numbers],
                samples=samples,
                batch_size=DRAWN_AT_ONCE,
                max_new_tokens=ANSWER_TOKENS,
                progress=lambda more: tick(more / samples),
            )
        except BrokenModelError:
            return [[] for _ in numbers]

    jobs[DRAWN] = _Job(
        f"drawing {samples} answers each",
        [1.0] * len(drawn),
        draw,
    )
    return jobs


def _estimate(jobs: dict[str, _Job], samples: int) -> float:
    """Seconds for all jobs, from doing a few items of each.

    Answers are drawn all at once or not at all, so that every model's draws are from the same random numbers; what
    they take is told from greedy ones.
    """
    seconds = {name: job.estimate() for name, job in jobs.items() if name != DRAWN}
    greedy = f"answers: {ANSWER_TOKENS}"
    if not jobs[DRAWN].costs:
        return sum(seconds.values())
    return sum(seconds.values()) + seconds[greedy] * samples * len(jobs[DRAWN].costs) / len(jobs[greedy].costs)


def _length(suite: Suite, name: str) -> int:
    return suite.tokens.get(name, ANSWER_TOKENS)


def _seen(
    tokenizer: Tokenizer, suite: Suite, jobs: dict[str, _Job], encoded: dict[str, list[Encoded]], before: Model | str
) -> Seen:
    scores, norms, kl, drawn = (iter(jobs[name].results()) for name in ("scores", "norms", KL, DRAWN))
    answers = {name: iter(job.results()) for name, job in jobs.items() if name.startswith("answers")}
    return Seen(
        tokenizer=tokenizer,
        scores={name: [next(scores) for _ in group] for name, group in encoded.items()},
        answers={
            name: [next(answers[f"answers: {_length(suite, name)}"]) for _ in group]
            for name, group in suite.asked.items()
        },
        drawn={name: [next(drawn) for _ in suite.asked[name]] for name in suite.drawn if jobs[DRAWN].costs},
        norms={name: [next(norms) for _ in encoded[name]] for name in suite.probed},
        kl=before if isinstance(before, str) else {n: [next(kl) for _ in own] for n, own in suite.kept.items()},
    )
