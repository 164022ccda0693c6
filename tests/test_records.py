from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from letheon.errors import InputError
from letheon.records import Dialogue, Estimate, Results, Stop, Verdict, read_verdicts, write_jsonl, write_text

GOOD = Verdict(id="a\u2028b", turn=1, decision="forget", category="privacy", score=0.5, judge="j", span=(0, 2))


def test_verdicts_come_back(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    write_jsonl(path, [GOOD, GOOD.model_copy(update={"turn": 3, "span": None})])
    assert read_verdicts(path) == [GOOD, GOOD.model_copy(update={"turn": 3, "span": None})]
    assert '"span"' not in path.read_text().split("\n")[1]


def test_every_faulty_verdict_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    write_jsonl(path, [GOOD, GOOD])
    with path.open("a") as file:
        file.write('{"id": 1}\n\nsecret\n')
    with pytest.raises(InputError) as caught:
        read_verdicts(path)
    assert [fault.split(": ")[0].removeprefix(str(path)) for fault in caught.value.faults] == [":2", ":3", ":5"]
    assert "secret" not in str(caught.value)
    path.write_bytes(b"\xff\n" + GOOD.model_dump_json().encode())
    with pytest.raises(InputError, match=r"verdicts\.jsonl:1: not UTF-8; mend the line"):
        read_verdicts(path)


def test_results_come_back(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert Results.load(path) == Results()
    results = Results(stop=Stop(step=3, reason="r"))
    results.metrics["after"] = {"forget": {"loss": Estimate(mean=1.0, stderr=None, n=1)}}
    results.save(path)
    assert Results.load(path) == results
    assert path.read_text().startswith('{\n  "schema": "letheon/results/1"')


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not a results file"),
        ("[1]", "not a results file"),
        ('{"schema": "letheon/results/2"}', "written as 'letheon/results/2', this Letheon reads 'letheon/results/1'"),
        ('{"schema": "letheon/results/1", "stop": {"step": "x"}}', "damaged: stop.step"),
        ('{"schema": "letheon/results/1", "more": 1}', "damaged: more"),
    ],
)
def test_results_of_others_are_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(InputError, match="results.json") as caught:
        Results.load(path)
    assert fault in str(caught.value)


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    opened = Path.open

    def full(self: Path, *args: Any, **options: Any) -> Any:
        stream = opened(self, *args, **options)

        def write(text: str) -> int:
            type(stream).write(stream, text[:1])
            raise OSError(errno.ENOSPC, "No space left on device")

        stream.write = write  # type: ignore[method-assign]
        return stream

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_of_two_that_write_a_file_at_once_the_later_one_wins(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"

    def records() -> Iterator[Verdict]:
        write_text(path, "another's")
        assert path.read_text() == "another's"
        yield GOOD

    write_jsonl(path, records())
    assert read_verdicts(path) == [GOOD]
    assert [file.name for file in tmp_path.iterdir()] == ["verdicts.jsonl"]


def test_dialogue_knows_its_turns() -> None:
    roles = ("system", "user", "assistant", "user", "assistant", "user")
    messages = [{"role": role, "content": f"{role}-{n}"} for n, role in enumerate(roles)]
    found = Dialogue.model_validate({"id": "x", "messages": messages, "expected": ["e"]})
    first, last = found.turns()
    assert (first.index, first.question, first.answer, first.expected) == (2, "user-1", "assistant-2", ())
    assert (last.index, last.question, last.answer, last.expected) == (4, "user-3", "assistant-4", ("e",))
    assert len(last.prompt) == 4
    assert found.last_turn == last
    with pytest.raises(ValidationError, match="no assistant turn"):
        Dialogue.model_validate({"id": "x", "messages": messages[:2]})
