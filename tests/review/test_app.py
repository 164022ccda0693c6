from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from screened_run import talk, verdict, write_run
from starlette.testclient import TestClient

from letheon.console import Console
from letheon.review.app import HEADERS, make_app
from letheon.review.serve import learner_of, open_session
from letheon.review.view import utf16
from letheon.run import Run

TOKEN, HOST = "a-secret", "127.0.0.1:8765"
Screened = Callable[..., Path]


@pytest.fixture(autouse=True)
def learns_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letheon.review.learn.Learner.look", lambda self: None)


def client_of(recipe: Path, audit_size: int | None = None) -> TestClient:
    run, console = Run.open(recipe), Console(quiet=True)
    session = open_session(run, console, audit_size)
    settings = {"run": "run", "normal_below": 0.3, "forget_above": 0.7, "blur": False}
    app = make_app(session, learner_of(run, session, console), token=TOKEN, hosts=(HOST,), settings=settings)
    return TestClient(app, base_url=f"http://{HOST}")


def get(client: TestClient, path: str, **query: Any) -> Any:
    answer = client.get(f"/{TOKEN}/api/{path}", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(client: TestClient, path: str, status: int = 200, **body: Any) -> Any:
    answer = client.post(f"/{TOKEN}/api/{path}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


# -- who is answered -------------------------------------------------------------------------------------------------

PATHS = ["/", "/page.css", "/page.js", "/api/start", "/api/queue", "/api/decided", "/api/turn/0", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("token", ["", "/wrong", f"/{TOKEN}x", f"/{TOKEN[:-1]}", "//", f"/x/{TOKEN}", "/é"])
def test_without_the_token_nothing_is_answered(screened: Screened, token: str, path: str) -> None:
    client = client_of(screened())
    answer = client.get(token + path)
    assert (answer.status_code, answer.text) == (403, "Forbidden: open the URL that the command printed")
    assert client.post(token + path, json={}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", f"{HOST}.evil.example", f"evil@{HOST}"])
def test_another_host_name_is_refused(screened: Screened, host: str) -> None:
    client = client_of(screened())
    assert client.get(f"/{TOKEN}/", headers={"Host": host}).status_code == 403
    assert client.get(f"/{TOKEN}/").status_code == 200


@pytest.mark.parametrize("path", ["/", "/page.js", "/page.css", "/api/start", "/nothing", "/../.."])
def test_headers_of_every_answer(screened: Screened, path: str) -> None:
    client = client_of(screened())
    for answer in (client.get(f"/{TOKEN}{path}"), client.get(path)):
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]


def test_only_its_own_files_are_served(screened: Screened) -> None:
    client = client_of(screened())
    for name in ("app.py", "page.html", "..%2Fcli.py", "%2e%2e/cli.py"):
        assert client.get(f"/{TOKEN}/{name}").status_code == 404


def test_nothing_is_fetched_from_elsewhere(screened: Screened) -> None:
    client = client_of(screened())
    for name in ("", "page.css", "page.js"):
        text = client.get(f"/{TOKEN}/{name}").text.replace("http://www.w3.org/2000/svg", "").replace("http%3A", "")
        assert "http:" not in text
        assert "https:" not in text
        assert "@import" not in text
        assert "url(" not in text
    script = client.get(f"/{TOKEN}/page.js").text
    assert "innerHTML =" not in script
    assert "insertAdjacentHTML" not in script


# -- the queue -------------------------------------------------------------------------------------------------------


def test_only_the_next_texts_are_sent(screened: Screened) -> None:
    client = client_of(screened([0.5] * 40))
    answer = client.get(f"/{TOKEN}/api/start")
    assert len(answer.json()["items"]) == 3
    assert answer.text.count("Call 030-") == 3
    assert "Call 030-" not in client.get(f"/{TOKEN}/api/decided", params={"tab": "decided"}).text


def test_item(tmp_path: Path) -> None:
    answer = "😀 Call Ann: 030-1 ❤️"
    start = answer.index("030")
    log = [talk("a", "Who?", "Ann.", "Phone?", answer, "Thanks", "Bye", expected=["I cannot say."])]
    verdicts = [
        verdict("a", 0.1),
        verdict("a", 0.6, 3, span=[start, start + 5], reason="phone near a name"),
        verdict("a", 0.0, 5),
    ]
    client = client_of(write_run(tmp_path, log, verdicts))
    item = get(client, "queue")["items"][0]
    assert (item["id"], item["turn"], item["score"], item["category"]) == ("a", 3, 0.6, "privacy")
    assert item["judged"] == {
        "decision": "review", "category": "privacy", "score": 0.6, "judge": "privacy", "reason": "phone near a name"
    }  # fmt: skip
    assert [message["role"] for message in item["messages"]] == ["user", "assistant"] * 3
    # JavaScript counts UTF-16 units.
    units = answer.encode("utf-16-le")
    assert units[2 * item["span"][0] : 2 * item["span"][1]].decode("utf-16-le") == "030-1"
    # The acceptable answers are to the last turn.
    assert item["expected"] == []
    assert get(client, "turn/2")["item"]["expected"] == ["I cannot say."]
    assert utf16("a😀b", 2) == 3


def test_decide_skip_undo(screened: Screened, tmp_path: Path) -> None:
    client = client_of(screened())
    decisions = tmp_path / "run/decisions.jsonl"
    assert [item["number"] for item in get(client, "queue")["items"]] == [1, 3, 4]
    answer = post(client, "decide", number=1, decision="forget", category="harmful")
    assert [item["number"] for item in answer["items"]] == [3, 4, 2]
    assert answer["state"]["counts"]["forget"] == 1
    (line,) = lines(decisions)
    assert {"id": "d1", "turn": 1, "decision": "forget", "category": "harmful"}.items() <= line.items()
    assert "Call" not in decisions.read_text()
    assert post(client, "skip", number=3)["items"][0]["number"] == 4
    assert post(client, "undo")["item"]["number"] == 3
    assert post(client, "undo")["item"]["number"] == 1
    assert lines(decisions)[-1]["decision"] == "undone"
    assert post(client, "undo")["item"] is None
    assert not get(client, "queue")["state"]["can_undo"]


def test_already_decided(screened: Screened) -> None:
    client = client_of(screened([0.5] * 120))
    for number in range(60):
        post(client, "decide", number=number, decision="forget" if number % 2 else "normal", category="privacy")
    first = get(client, "decided")
    second = get(client, "decided", offset=50, tab="decided")
    assert ([row["number"] for row in first["rows"]], len(second["rows"])) == (list(range(59, 9, -1)), 10)
    assert second["state"]["fitting"] == 60
    assert second["state"]["facets"]["decision"] == {"forget": 30, "normal": 30}
    assert len(get(client, "decided", tab="decided", decision="forget")["rows"]) == 30
    post(client, "decide", number=3, decision="normal")
    row = get(client, "decided")["rows"][0]
    assert (row["number"], row["decided"]["decision"], row["decided"]["category"]) == (3, "normal", "normal")


def test_filters(screened: Screened) -> None:
    client = client_of(screened())
    answer = get(client, "queue", decision="normal")
    assert [item["number"] for item in answer["items"]] == [2, 5]
    assert (answer["state"]["fitting"], answer["state"]["counts"]["waiting"]) == (2, 6)
    assert answer["state"]["facets"]["decision"] == {"forget": 1, "normal": 2, "review": 3}
    assert get(client, "queue", judge="nobody")["items"] == []


def test_audit(screened: Screened, tmp_path: Path) -> None:
    recipe = screened([0.1] * 30 + [0.5])
    client = client_of(recipe, audit_size=4)
    answer = get(client, "queue", tab="audit")
    numbers = []
    for decision in ("normal", "forget", "normal", "normal"):
        numbers.append(answer["items"][0]["number"])
        post(client, "decide", number=numbers[-1], decision=decision)
        answer = get(client, "queue", tab="audit")
    assert answer["items"] == []
    assert answer["state"]["audit"]["labelled"] == 4
    assert "1 of 4 turns called normal should have been forgotten: 25.0%" in answer["state"]["audit"]["words"]
    audit = json.loads((tmp_path / "run/audit.json").read_text())
    assert (audit["schema"], audit["population"], audit["missed"]) == ("letheon/audit/1", 30, 1)
    assert "Rain" not in (tmp_path / "run/audit.json").read_text()
    # Opened again, it is the same sample; with another size, another one of what nobody has seen.
    again = open_session(Run.open(recipe), Console(quiet=True), 4).audit
    assert again is not None
    assert (again.labelled, again.missed) == (4, 1)
    more = open_session(Run.open(recipe), Console(quiet=True), 5).audit
    assert more is not None
    assert (more.population, more.labelled) == (26, 0)


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("decide", {"number": 99, "decision": "forget"}, "there is no such turn"),
        ("decide", {"number": -1, "decision": "forget"}, "number: Input should be greater than or equal to 0"),
        ("decide", {"number": "1", "decision": "forget"}, "number: Input should be a valid integer"),
        ("decide", {"number": True, "decision": "forget"}, "number: Input should be a valid integer"),
        ("decide", {"number": 1, "decision": "delete"}, "decision: Input should be 'forget', 'normal' or 'undone'"),
        ("decide", {"number": 1, "decision": "forget", "category": "a\nb"}, "1 to 60 characters"),
        ("decide", {"number": 1, "decision": "forget", "category": 7}, "category: Input should be a valid string"),
        ("skip", {}, "number: Field required"),
    ],
)
def test_wrong_requests(screened: Screened, tmp_path: Path, path: str, body: dict[str, Any], error: str) -> None:
    client = client_of(screened())
    assert error in post(client, path, status=400, **body)["error"]
    assert not (tmp_path / "run/decisions.jsonl").exists()


def test_more_wrong_requests(screened: Screened) -> None:
    client = client_of(screened())
    for content in (b"", b"{", b"[1]", b"null"):
        assert client.post(f"/{TOKEN}/api/decide", content=content).status_code == 400
    assert client.get(f"/{TOKEN}/api/queue", params={"tab": "all"}).status_code == 400
    assert client.get(f"/{TOKEN}/api/decided", params={"offset": "x"}).status_code == 400
    assert client.get(f"/{TOKEN}/api/decide").status_code == 405


def test_full_disk(screened: Screened, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of(screened())

    def full(path: Path, decisions: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("letheon.review.serve.append_decisions", full)
    assert post(client, "decide", 507, number=1, decision="normal") == {"error": "not saved: No space left on device"}
    assert get(client, "queue")["items"][0]["number"] == 1
