"""The screening on Ray's workers. Starting them takes half a minute, so one cluster serves several questions."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import yaml

from letheon.embed import Embedder
from letheon.errors import InputError, missing_modules
from letheon.recipe import Ray, Screen
from letheon.records import Dialogue, Message, Turn, Verdict
from letheon.screen import build_screener, stream
from letheon.screen.duplicates import Duplicates
from letheon.screen.stream import screen_stream

Letheon = Callable[..., tuple[int, str, str]]
with_ray = pytest.mark.skipif(bool(missing_modules("ray")), reason="the extra 'ray' is not installed")


def log(size: int) -> list[Dialogue]:
    answers = ["You idiot, who cares?", "It opens at nine.", "Ring Ann Lee on 555-0142.", "It was built in {n}."]
    rows = []
    for n in range(size):
        # Some say the same, and some in the next batch.
        asked = Message(role="user", content=f"What of the tower number {n % 11}?")
        said = Message(role="assistant", content=answers[n % 4].format(n=1900 + n % 13))
        rows.append(Dialogue(id=f"d{n}", messages=(asked, said), expected=("In 1911.",) if n % 6 == 0 else ()))
    return rows


@pytest.fixture
def settings(tmp_path: Path) -> Screen:
    """Every judge that needs no model of the user's."""
    rule = {"name": "rude", "category": "harmful", "keywords": ["idiot"], "unless": "kind"}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump([rule]))
    fact = {"about": ["tower"], "old": "nine", "new": "ten", "since": "2024"}
    (tmp_path / "facts.yaml").write_text(yaml.safe_dump([fact]))
    return Screen.model_validate(
        {
            "judges": ["labels", "embedding", "privacy", "contradiction", "rules", "outdated"],
            "rules": tmp_path / "rules.yaml",
            "changed_facts": tmp_path / "facts.yaml",
            "normal_below": 0.3,
        }
    )


def test_a_copy_of_a_screener_judges_as_it_does(settings: Screen, embedder: Embedder) -> None:
    screener = build_screener(settings, embedder)
    turns = [turn for dialogue in log(12) for turn in dialogue.turns()]
    wanted = screener(turns)
    assert len({verdict.judge for verdict in wanted}) > 2
    copied = pickle.dumps(screener)
    # What was fitted goes along, the embedder's weights (90 MB) do not.
    assert len(copied) < 20e6
    assert pickle.loads(copied)(turns) == wanted


def test_no_ray(talk: Path, letheon: Letheon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = letheon("screen", "recipe.yaml", "--engine", "ray")
    assert (code, "pip install 'letheon[ray]'" in err, (talk / "run/verdicts.jsonl").exists()) == (3, True, False)
    # Whoever asks to be forgotten is looked for without judges.
    arguments = ["--set", "screen.engine=ray", "--set", "data.subject=Ann"]
    assert "letheon[ray]" not in letheon("screen", "recipe.yaml", *arguments)[2]


API = ["--set", "screen.judges=[api]", "--set", "screen.api={url: http://localhost/v1, model: m}"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--workers", 2], "--workers and --ray-address need --engine ray"),
        (["--ray-address", "head:6379"], "--workers and --ray-address need --engine ray"),
        (["--engine", "ray", *API], "engine 'ray' does not go with judge 'api'"),
    ],
)
def test_what_does_not_go_together(talk: Path, letheon: Letheon, arguments: list[object], fault: str) -> None:
    code, _, err = letheon("screen", "recipe.yaml", *arguments)
    assert (code, fault in err) == (2, True)


def test_verdicts_do_not_depend_on_the_engine(talk: Path) -> None:
    from letheon.run import Run

    ways: list[list[str]] = [[], ["screen.engine=ray", "screen.ray.workers=3"]]
    assert len({Run.open(talk / "recipe.yaml", own).key("screen") for own in ways}) == 1


@pytest.fixture
def known_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find this file."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))


class Numbered:
    """A judge that says who it was, and does as the answer bids it."""

    def __call__(self, turns: Sequence[Turn]) -> list[Verdict]:
        for turn in turns:
            if turn.answer == "fail":
                raise InputError(["model: no such folder", "rules: no such file"])
            told = Path(turn.answer)
            if told.is_absolute() and not told.exists():
                told.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return [_verdict(turn, str(os.getpid())) for turn in turns]


def _verdict(turn: Turn, judge: str) -> Verdict:
    place = {"id": turn.dialogue.id, "turn": turn.index}
    return Verdict.model_validate({**place, "decision": "normal", "category": "normal", "score": 0.1, "judge": judge})


def dialogue(number: int, answer: str = "ok") -> Dialogue:
    return Dialogue(
        id=f"d{number}", messages=(Message(role="user", content="?"), Message(role="assistant", content=answer))
    )


@pytest.mark.slow
@with_ray
def test_two_workers_give_the_verdicts_of_one_process(
    settings: Screen, embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from letheon.screen.cluster import on_workers

    monkeypatch.setattr(stream, "BATCH", 16)
    screener, rows = build_screener(settings, embedder), log(150)
    list(screen_stream(rows, partial(map, screener), tmp_path / "local.jsonl", "key", Duplicates()))

    def cut_off() -> Iterator[Dialogue]:
        yield from rows[:40]
        raise KeyboardInterrupt

    # What one process has begun, workers go on with.
    into = tmp_path / "ray.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(screen_stream(cut_off(), partial(map, screener), into, "key", Duplicates()))
    with on_workers(screener, Ray(workers=2)) as judge:
        known = [known for _, known in screen_stream(rows, judge, into, "key", Duplicates())]
    assert into.read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert known == [True] * 2 + [False] * 8


@pytest.mark.slow
@with_ray
@pytest.mark.usefixtures("known_to_workers")
def test_a_worker_that_dies_a_fault_and_how_far_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from letheon.screen.cluster import AHEAD, on_workers

    monkeypatch.setattr(stream, "BATCH", 1)
    read = written = lead = 0

    def rows() -> Iterator[Dialogue]:
        nonlocal read, lead
        for number in range(80):
            read, lead = number + 1, max(lead, number + 1 - written)
            yield dialogue(number, {30: str(tmp_path / "died"), 79: "fail"}.get(number, "ok"))

    into = tmp_path / "verdicts.jsonl"
    with on_workers(Numbered(), Ray(workers=2)) as judge:
        screening = screen_stream(rows(), judge, into, "key")
        for _ in range(79):
            next(screening)
            written += 1
        with pytest.raises(InputError) as caught:
            next(screening)
    assert caught.value.faults == ["on a worker: model: no such folder", "on a worker: rules: no such file"]
    lines = (tmp_path / "verdicts.jsonl.partial").read_text().splitlines()
    verdicts = [Verdict.model_validate_json(line) for line in lines]
    assert [verdict.id for verdict in verdicts] == [f"d{n}" for n in range(79)]
    # Two, and the one that took the dead one's place.
    assert len({verdict.judge for verdict in verdicts}) == 3
    assert lead <= AHEAD * 2 + 2


@pytest.mark.slow
@with_ray
def test_workers_without_what_the_judges_need(tmp_path: Path) -> None:
    from letheon.screen.cluster import on_workers

    # They do not find this file, and so not its judge.
    with on_workers(Numbered(), Ray(workers=1)) as judge, pytest.raises(InputError, match="'test_cluster'"):
        list(screen_stream([dialogue(0)], judge, tmp_path / "verdicts.jsonl", "key"))


@pytest.mark.slow
@with_ray
def test_no_cluster_there(talk: Path, letheon: Letheon) -> None:
    code, _, err = letheon("screen", "recipe.yaml", "--engine", "ray", "--ray-address", "127.0.0.1:1")
    assert (code, "127.0.0.1:1: no Ray cluster to judge on" in err) == (2, True)
