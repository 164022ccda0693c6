"""Watching a training of one number: probes are functions of the weight."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from letheon.train import Probe, UnlearnConfig
from letheon.train import watch as watch_module
from letheon.train.reader import Watched
from letheon.train.scale_back import Line
from letheon.train.watch import Watch

Look = Callable[[float], Probe]


def probe(probability: float = 0.5, **changes: Any) -> Probe:
    fields: dict[str, Any] = {"step": 0, "extraction_strength": 0.06, "normal_ratio": 1.0, "kl": 0.0}
    return Probe(**{**fields, "probability": probability, **changes})


class Looks:
    """Stands for a prober."""

    def __init__(self, quick: Look, whole: Look | None = None, repetition: Callable[[float], float] = lambda at: 0.0):
        self._quick, self._whole, self._repetition = quick, whole or quick, repetition
        self.options: dict[str, Any] = {}

    def quick(self, model: nn.Linear, step: int) -> Probe:
        return replace(self._quick(model.weight.item()), step=step)

    def whole(self, model: nn.Linear, step: int) -> Probe:
        return replace(self._whole(model.weight.item()), step=step)

    def with_answers(self, model: nn.Linear, found: Probe) -> Probe:
        return replace(found, repetition=self._repetition(model.weight.item()))


@pytest.fixture
def model() -> nn.Linear:
    found = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(found.weight)
    return found


@pytest.fixture
def begun(tmp_path: Path, model: nn.Linear, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Watch]:
    """Make a watch that has taken its first probe, of a weight of 0."""

    def make(looks: Looks, **settings: Any) -> Watch:
        args = UnlearnConfig(output_dir=str(tmp_path), use_cpu=True, stop_every=1, **settings)
        given: dict[str, Any] = {"tokenizer": None, "log": lambda seen: None, "autocast": nullcontext}
        found = Watch(args, None, Watched([], [], []), on=True, folder=tmp_path, **given)
        monkeypatch.setattr(watch_module, "Prober", lambda *data, **options: looks.options.update(options) or looks)

        class Cache:
            batch_size, prefix = 1, None

            def __call__(self, *asked: Any) -> list[Any]:
                return []

        found.begin(model, Cache())  # type: ignore[arg-type]
        return found

    return make


@pytest.fixture
def walk(model: nn.Linear, tmp_path: Path) -> Callable[..., None]:
    """Take steps to weights, look at each of them, and end there."""

    def take(watch: Watch, *weights: float) -> None:
        line = Line(dict(model.named_parameters()), tmp_path)
        for step, weight in enumerate(weights, start=1):
            nn.init.constant_(model.weight, weight)
            watch.look(step)
        watch.finish(len(weights), line)

    return take


def test_a_model_that_is_clean_at_a_quick_look_is_looked_at_whole(begun: Callable[..., Watch]) -> None:
    clean, not_clean = (lambda at, x=x: probe(0.9, extraction_strength=x) for x in (0.0, 0.9))
    assert begun(Looks(clean, not_clean)).stop is None
    assert begun(Looks(not_clean, clean)).stop is None
    stop = begun(Looks(clean, clean)).stop
    assert stop is not None
    assert stop.reason.startswith("already clean")


def test_what_a_quick_look_calls_forgotten_is_looked_at_whole_and_with_answers(
    begun: Callable[..., Watch], model: nn.Linear
) -> None:
    forgotten = Looks(lambda at: probe(0.9 - at))
    missed = Looks(lambda at: probe(0.9 - at), lambda at: probe(0.9 - at / 2))
    babbling = Looks(lambda at: probe(0.9 - at), repetition=lambda at: at)
    for looks, stops, last in ((forgotten, True, 0.1), (missed, False, 0.5), (babbling, False, 0.1)):
        nn.init.zeros_(model.weight)
        watch = begun(looks)
        nn.init.constant_(model.weight, 0.8)
        assert watch.look(4) == stops
        assert watch.probes[-1].probability == pytest.approx(last)
        assert (watch.probes[-1].repetition is None) == (looks is missed)


def test_of_the_end_and_the_best_state_on_the_way_the_more_forgotten_is_kept(
    begun: Callable[..., Watch], walk: Callable[..., None], model: nn.Linear
) -> None:
    """The end is scaled back to what the guards allow; the whole probe knows better than a quick one."""

    def quick(at: float) -> Probe:
        return probe(0.9 - at / 2, kl=0.5 * at**2)

    # At the end, 0.8, the KL is 0.32; 0.45 is the last multiple of 0.05 with at most 0.12.
    watch = begun(Looks(quick))
    walk(watch, 0.48, 0.8)
    assert watch.stop is not None
    assert (watch.stop.step, watch.stop.within_guards) == (1, True)
    assert "went back to step 1" in watch.stop.reason
    assert model.weight.item() == pytest.approx(0.48)
    # Of the whole probe the way there is the worse one.
    nn.init.zeros_(model.weight)
    watch = begun(Looks(quick, lambda at: replace(quick(at), probability=0.8 if at == pytest.approx(0.48) else 0.5)))
    walk(watch, 0.48, 0.8)
    assert watch.stop is not None
    assert (watch.stop.step, watch.stop.within_guards) == (2, True)
    assert "56% of the change was kept" in watch.stop.reason
    assert model.weight.item() == pytest.approx(0.45)


def test_scaled_back_answers_must_not_repeat_themselves(
    begun: Callable[..., Watch], walk: Callable[..., None], model: nn.Linear
) -> None:
    for repetition, kept in ((0.0, True), (0.9, False)):
        nn.init.zeros_(model.weight)
        looks = Looks(lambda at: probe(0.9 - at / 2, kl=0.5 * at**2), repetition=lambda at, r=repetition: r)
        watch = begun(looks)
        walk(watch, 0.8)
        assert watch.stop is not None
        assert watch.stop.within_guards == kept
        assert watch.probes[-1].alpha == 0.5625
        assert watch.probes[-1].repetition == repetition


def test_what_is_forgotten_beyond_the_guards_alone_is_said(
    begun: Callable[..., Watch], walk: Callable[..., None], model: nn.Linear
) -> None:
    watch = begun(Looks(lambda at: probe(0.9 - at, kl=0.5 * at**2)))
    walk(watch, 0.85)
    assert watch.stop is not None
    assert watch.stop.reason == "forgotten only beyond the guards; 56% of the change was kept"
    assert watch.stop.within_guards
    assert model.weight.item() == pytest.approx(0.85 * 0.5625)


def test_a_checkpoint_holds_all_that_a_watch_knows(begun: Callable[..., Watch]) -> None:
    looks = Looks(lambda at: probe(0.9))
    one, other = begun(looks), begun(looks)
    one.look(5)
    one.rule.flat, one.rule.best_step, one.holding, one.next_probe = 3, 4, True, 17
    other.restore(json.loads(json.dumps(one.state())))
    for name in ("rule", "holding", "next_probe", "probes"):
        assert getattr(other, name) == getattr(one, name), name


def test_the_limits_are_those_of_the_settings(begun: Callable[..., Watch]) -> None:
    settings = {
        "stop_probability": 0.2,
        "stop_extraction": 0.3,
        "stop_truth": 0.7,
        "stop_normal_budget": 1.4,
        "stop_kl_budget": 0.5,
        "stop_normal_kept": 0.6,
    }
    looks = Looks(lambda at: probe())
    watch = begun(looks, stop_patience=7, probe_size=5, **settings)
    assert [*watch.rule.limits().values()] == [*settings.values()]
    assert (watch.rule.every, watch.rule.patience) == (1, 7)
    assert math.isinf(watch.rule.best_remaining)
    assert looks.options["size"] == 5


def test_the_best_state_is_that_of_its_weights(begun: Callable[..., Watch], model: nn.Linear) -> None:
    watch = begun(Looks(lambda at: probe(0.9 - at)))
    for step, weight in enumerate((0.1, 0.3, 0.2), start=1):
        nn.init.constant_(model.weight, weight)
        watch.look(step)
    assert watch.rule.best_step == 2
    watch.best.load(dict(model.named_parameters()))
    assert torch.equal(model.weight.detach(), torch.tensor([[0.3]]))
