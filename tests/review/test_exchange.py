from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from screened_run import made, talk, verdict, write_run

from letheon.console import Console
from letheon.dialogues import read_dialogues
from letheon.records import read_verdicts
from letheon.review.decisions import append_decisions, read_decisions
from letheon.review.serve import open_session
from letheon.review.settle import settle
from letheon.run import Run

Letheon = Callable[..., tuple[int, str, str]]
Screened = Callable[..., Path]


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def fill(file: Path, **changes: Any) -> None:
    """Set fields of the rows by the dialogue's id: fill(file, d1={"decision": "forget"})."""
    found = rows(file)
    for row in found:
        row.update(changes.get(row["id"], {}))
    file.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")


# -- the queue without a browser -------------------------------------------------------------------------------------


def test_queue_file_and_back(screened: Screened, letheon: Letheon, tmp_path: Path) -> None:
    recipe, queue = screened(), tmp_path / "queue.jsonl"
    code, _, err = letheon("review", recipe, "--queue", queue)
    assert (code, "wrote 6 turns" in err, "with their texts" in err) == (0, True, True)
    found = rows(queue)
    assert [row["id"] for row in found] == ["d1", "d3", "d4", "d2", "d0", "d5"]
    assert list(found[0])[:3] == ["decision", "id", "turn"]
    assert (found[0]["decision"], found[0]["messages"][-1]["content"]) == (
        "",
        "The library opens at nine. Call 030-1.",
    )
    fill(queue, d1={"decision": "forget", "category": "doxing"}, d3={"decision": "normal"}, d5={"decision": "forget"})
    code, _, err = letheon("review", recipe, "--import", queue)
    assert (code, "3 decisions (2 forget, 1 normal), 3 of them new" in err) == (0, True)
    decided = {v.id: v for v in read_verdicts(tmp_path / "run/verdicts.jsonl") if v.judge == "person"}
    assert {name: (v.decision, v.category) for name, v in decided.items()} == {
        "d1": ("forget", "doxing"),
        "d3": ("normal", "normal"),
        "d5": ("forget", "undesired"),
    }
    assert "030-" not in (tmp_path / "run/decisions.jsonl").read_text()
    # Once more changes nothing, with a byte order mark neither; another queue holds what is left.
    queue.write_text(queue.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert "0 of them new" in letheon("review", recipe, "--import", queue)[2]
    assert len(rows(tmp_path / "run/decisions.jsonl")) == 3
    letheon("review", recipe, "--queue", tmp_path / "rest.jsonl")
    assert [row["id"] for row in rows(tmp_path / "rest.jsonl")] == ["d4", "d2", "d0"]


def test_every_fault_is_named_by_its_line(screened: Screened, letheon: Letheon, tmp_path: Path) -> None:
    recipe, queue = screened(), tmp_path / "queue.jsonl"
    letheon("review", recipe, "--queue", queue)
    lines = queue.read_text().splitlines()
    good = lines[0].replace('"decision":""', '"decision":"forget"')
    bad = [
        good,
        lines[1].replace('"decision":""', '"decision":"yes"'),
        '{"decision": "normal", "id": "none", "turn": 1}',
        '{"decision": "normal", "id": "d4", "turn": 0}',
        lines[3].replace('"decision":""', '"decision":"forget"').replace("030", "031"),
        good,
        '{"decison": "normal", "id": "d4", "turn": 1}',
        "no JSON, but a secret",
        '{"turn": ' + "1" * 5000 + "}",
        "[" * 100_000,
        "[1]",
        good.replace('"category":"privacy"', '"category":" "'),
        "",
        '{"id": "d5", "turn": 1, "decision": ""}',
    ]
    queue.write_text("\n".join(bad) + "\n")
    code, _, err = letheon("review", recipe, "--import", queue)
    assert code == 2
    told = [line.removeprefix(f"letheon: {queue}:") for line in err.splitlines()]
    assert [line.partition(": ")[0] for line in told[:-1]] == [str(number) for number in range(2, 13)]
    assert [line.partition(": ")[2].split(";")[0] for line in told[:-1]] == [
        "decision: Input should be '', 'forget' or 'normal'",
        "id: the log has no such dialogue",
        "turn: expected one of the assistant's: 1",
        "messages: not those of the log (one of the two was edited)",
        "this turn is decided on line 1 already",
        "decision: Field required",
        "bad JSON at column 1: Expecting value",
        "bad JSON: a number has too many digits",
        "bad JSON: nested too deep",
        "Input should be an object",
        "category: give one line of 1 to 60 characters, other than 'normal', or leave it out to keep the judges' own",
    ]
    assert "did you mean 'decision'?" in told[5]
    assert told[-1] == "letheon: nothing was imported"
    assert "secret" not in err
    assert not (tmp_path / "run/decisions.jsonl").exists()


def test_no_such_queue(screened: Screened, letheon: Letheon) -> None:
    assert letheon("review", screened(), "--import", "none.jsonl")[:1] == (2,)


# -- what was decided, as examples -----------------------------------------------------------------------------------


def test_export(tmp_path: Path, letheon: Letheon) -> None:
    log = [
        talk("a", "One?", "First.", "Two?", "Second.", expected=["I cannot say."], subject="ann", category="privacy"),
        talk("b", "Three?", "Third."),
    ]
    recipe = write_run(tmp_path, log, [verdict("a", 0.5), verdict("a", 0.9, 3), verdict("b", 0.1)])
    file = tmp_path / "labelled.jsonl"
    code, _, err = letheon("review", recipe, "--export", file)
    assert (code, "nothing is decided yet" in err) == (2, True)
    decisions = [made("a", "forget", "harmful"), made("b", "forget"), made("b", "normal")]
    decisions += [made("a", "forget").model_copy(update={"turn": 3})]
    append_decisions(tmp_path / "run/decisions.jsonl", decisions)
    code, _, err = letheon(
        "review", tmp_path / "recipe.yaml", "--set", f"output={tmp_path / 'run'}", "--export", file
    )
    assert (code, f"wrote 3 labelled dialogues to {file}, with their texts" in err) == (0, True)
    first, other, last = read_dialogues(file)
    assert (first.id, first.last_turn.answer, first.label, first.category) == ("a#1", "First.", "forget", "harmful")
    assert (other.id, other.label, other.category) == ("b", "normal", None)
    assert (last.id, last.label, last.category, last.expected) == ("a", "forget", "privacy", ("I cannot say.",))
    code, _, err = letheon("review", recipe, "--export", file)
    assert (code, "is there already" in err) == (2, True)


def test_a_forget_without_category_has_one_everywhere(tmp_path: Path, letheon: Letheon) -> None:
    log = [
        talk("judges", "One?", "First.", category="harmful"),
        talk("own", "Two?", "Second.", category="outdated"),
        talk("none", "Three?", "Third."),
    ]
    recipe = write_run(tmp_path, log, [verdict("judges", 0.5), verdict("own", 0.1), verdict("none", 0.1)])
    append_decisions(tmp_path / "run/decisions.jsonl", [made(one["id"], "forget") for one in log])
    session = open_session(Run.open(recipe), Console())
    expected = ["privacy", "outdated", "undesired"]
    assert [session.category_for(number) for number in range(3)] == expected
    letheon("review", recipe, "--export", tmp_path / "labelled.jsonl")
    assert [one.category for one in read_dialogues(tmp_path / "labelled.jsonl")] == expected
    settle(Run.open(recipe), lambda line: None)
    assert [one.category for one in read_verdicts(tmp_path / "run/verdicts.jsonl")] == expected
    # The exported one is still the judges' after the verdicts are settled.
    letheon("review", recipe, "--export", tmp_path / "again.jsonl")
    assert (tmp_path / "again.jsonl").read_text() == (tmp_path / "labelled.jsonl").read_text()


def test_one_at_a_time(screened: Screened, letheon: Letheon) -> None:
    code, _, err = letheon("review", screened(), "--export", "a", "--import", "b")
    assert (code, err) == (2, "letheon: --export and --import: give one of them at a time\n")


def test_help_says_that_texts_are_written(letheon: Letheon) -> None:
    _, out, _ = letheon("review", "--help")
    assert " ".join(out.split()).count("WITH texts") == 2


def test_undone_decisions_are_not_exported(screened: Screened, letheon: Letheon, tmp_path: Path) -> None:
    recipe = screened()
    append_decisions(tmp_path / "run/decisions.jsonl", [made("d0", "forget"), made("d0", "undone")])
    assert letheon("review", recipe, "--export", tmp_path / "x.jsonl")[0] == 2
    assert len(read_decisions(tmp_path / "run/decisions.jsonl")) == 2
