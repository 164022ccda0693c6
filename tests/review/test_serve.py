from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from letheon.console import Console
from letheon.errors import InputError
from letheon.records import read_verdicts
from letheon.review.serve import listen, open_session, show
from letheon.run import Run

pytest.importorskip("uvicorn")

Letheon = Callable[..., tuple[int, str, str]]
Screened = Callable[..., Path]


class Review:
    """`letheon review` in a process of its own."""

    def __init__(self, recipe: Path, *options: str):
        command = [sys.executable, "-m", "letheon.cli", "review", str(recipe), "--no-open", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.told: list[str] = []
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.told.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", line):
                self.url = found[0]
                return
        raise AssertionError(self.told)

    def post(self, path: str, **body: Any) -> Any:
        data = json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.url}api/{path}", data, timeout=10) as answer:
            return json.load(answer)

    def end(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        code = self.process.wait(20)
        assert self.process.stderr is not None
        self.told.extend(self.process.stderr.readlines())
        self.process.stderr.close()
        return code


@pytest.fixture
def review() -> Iterator[Callable[..., Review]]:
    running: list[Review] = []

    def start(*arguments: Any) -> Review:
        running.append(Review(*arguments))
        return running[-1]

    yield start
    for one in running:
        if one.process.poll() is None:
            one.end(signal.SIGKILL)


def verdicts(folder: Path) -> dict[str, str]:
    return {
        verdict.id: f"{verdict.decision} by {verdict.judge}" for verdict in read_verdicts(folder / "verdicts.jsonl")
    }


def test_killed_in_the_middle(screened: Screened, review: Callable[..., Review], tmp_path: Path) -> None:
    recipe, run = screened(), tmp_path / "run"
    first = review(recipe)
    first.post("decide", number=1, decision="forget", category="harmful")
    first.post("decide", number=3, decision="normal")
    assert first.end(signal.SIGKILL) == -signal.SIGKILL
    # The decisions are there, and the verdicts do not know of them yet.
    decisions = run / "decisions.jsonl"
    assert len(decisions.read_text().splitlines()) == 2
    assert "person" not in (run / "verdicts.jsonl").read_text()
    # A third was being written when the machine went down.
    with decisions.open("a") as file:
        file.write('{"id":"d4","turn":1,"deci')
    second = review(recipe)
    assert "the last line was cut off" in "".join(second.told)
    state = second.post("decide", number=4, decision="forget")["state"]
    assert (state["counts"]["forget"], state["counts"]["normal"]) == (2, 1)
    assert second.end(signal.SIGINT) == 0
    assert "decided: 3 turns (2 forget, 1 normal); still in review: 0" in "".join(second.told)
    assert f"'letheon run {run}' redoes what follows" in "".join(second.told)
    found = verdicts(run)
    assert [found[name] for name in ("d1", "d3", "d4")] == [
        "forget by person",
        "normal by person",
        "forget by person",
    ]
    assert [found[name] for name in ("d0", "d2", "d5")] == [
        "forget by privacy",
        "normal by privacy",
        "normal by privacy",
    ]
    assert all(json.loads(line) for line in decisions.read_text().splitlines())


def test_answers_this_machine_alone_until_it_is_ended(
    screened: Screened, review: Callable[..., Review], tmp_path: Path
) -> None:
    one = review(screened([0.1] * 9), "--audit", "3")
    address = re.search(r":(\d+)/", one.url)
    assert address is not None
    others = {entry[4][0] for entry in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for host in others - {"127.0.0.1"}:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, int(address[1])), timeout=1)
    by_name = one.url.replace("127.0.0.1", "localhost")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(by_name[:-2] + "/", timeout=10)
    with urllib.request.urlopen(by_name, timeout=10) as answer:
        assert answer.status == 200
        assert "server" not in answer.headers
    with urllib.request.urlopen(f"{one.url}api/queue?tab=audit", timeout=10) as answer:
        number = json.load(answer)["items"][0]["number"]
    one.post("decide", number=number, decision="normal")
    assert one.end(signal.SIGTERM) == 0
    assert verdicts(tmp_path / "run")[f"d{number}"] == "normal by person"
    assert "audit: 0 of 1 turns called normal should have been forgotten (2 are still" in "".join(one.told)


# -- what cannot be reviewed -----------------------------------------------------------------------------------------


def test_not_screened(screened: Screened, letheon: Letheon, tmp_path: Path) -> None:
    recipe = screened()
    (tmp_path / "run/verdicts.jsonl").unlink()
    code, _, err = letheon("review", recipe)
    assert (code, "not screened yet; run 'letheon screen" in err) == (2, True)


def test_verdicts_of_another_log(screened: Screened, letheon: Letheon, tmp_path: Path) -> None:
    recipe = screened()
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    (tmp_path / "log.jsonl").write_text("\n".join(lines[:-1]) + "\n")
    code, _, err = letheon("review", recipe)
    assert (code, "names turns that the log does not have" in err) == (2, True)


def test_an_erasure_request(screened: Screened, letheon: Letheon) -> None:
    code, _, err = letheon("review", screened(), "--set", "data.subject=ann")
    assert (code, "an erasure request" in err) == (2, True)


def test_nothing_to_audit(screened: Screened, letheon: Letheon) -> None:
    code, _, err = letheon("review", screened([0.5, 0.9]), "--audit", "5")
    assert (code, "nothing to draw" in err) == (2, True)


def test_all_are_taken_where_there_are_few(screened: Screened, capsys: pytest.CaptureFixture[str]) -> None:
    session = open_session(Run.open(screened()), Console(), 50)
    assert "there are only 2 normal verdicts to draw" in capsys.readouterr().err
    assert session.audit is not None
    assert session.audit.population == len(session.audit.sample) == 2


def test_a_new_screening_draws_anew(screened: Screened, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = screened([0.1] * 20)
    before = open_session(Run.open(recipe), Console(), 5).audit
    file = tmp_path / "run/verdicts.jsonl"
    file.write_text(
        file.read_text().replace('"d3", "turn": 1, "decision": "normal"', '"d3", "turn": 1, "decision": "forget"')
    )
    after = open_session(Run.open(recipe), Console(), 5).audit
    assert "a new one is drawn" in capsys.readouterr().err
    assert before is not None
    assert after is not None
    assert (before.population, after.population) == (20, 19)


@pytest.mark.parametrize("port", [-1, 70000])
def test_no_port(port: int) -> None:
    with pytest.raises(InputError, match=f"--port {port}: not a port; give another"):
        listen(port)


def test_a_port_that_is_taken() -> None:
    with listen(None) as first, pytest.raises(InputError, match="in use; give another from 1024"):
        listen(first.getsockname()[1])


def test_without_the_extra(screened: Screened, letheon: Letheon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = letheon("review", screened())
    assert (code, err) == (3, "letheon: the review page needs the extra 'review': pip install 'letheon[review]'\n")


# -- the browser -----------------------------------------------------------------------------------------------------


def test_browser(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[str] = []

    class Window(webbrowser.BaseBrowser):
        def open(self, url: str, new: int = 0, autoraise: bool = True) -> bool:
            opened.append(url)
            return True

    monkeypatch.setattr(webbrowser, "get", Window)
    show("http://x", Console())
    assert (opened, capsys.readouterr().err) == (["http://x"], "")


@pytest.mark.parametrize("kind", ["none", "text"])
def test_no_browser(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def get() -> webbrowser.BaseBrowser:
        if kind == "none":
            raise webbrowser.Error("none")
        return webbrowser.GenericBrowser("false")

    monkeypatch.setattr(webbrowser, "get", get)
    show("http://x", Console())
    assert "open the URL yourself" in capsys.readouterr().err
