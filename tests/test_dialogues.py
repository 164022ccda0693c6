from __future__ import annotations

import csv
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from letheon.dialogues import (
    BadRowError,
    check_file,
    count_dialogues,
    parse_row,
    read_dialogues,
    read_paraphrases,
    stream_dialogues,
)
from letheon.errors import InputError

ASK = {"role": "user", "content": "q"}
SAY = {"role": "assistant", "content": "a"}
OWN = {"id": "x", "messages": [ASK, SAY], "expected": ["b"], "category": "harmful", "label": "forget"}


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "messages", "expected", "label"),
    [
        (OWN, ["q", "a"], ("b",), "forget"),
        ({"messages": [ASK, SAY], "category": None, "expected": None}, ["q", "a"], (), None),
        ({"prompt": "q", "completion": "a"}, ["q", "a"], (), None),
        ({"prompt": [ASK], "completion": [SAY]}, ["q", "a"], (), None),
        ({"prompt": "q", "chosen": "good", "rejected": "bad"}, ["q", "bad"], ("good",), "forget"),
        ({"prompt": "q", "chosen": "good", "rejected": "bad", "expected": None}, ["q", "bad"], ("good",), "forget"),
        (
            {"prompt": "q", "chosen": "good", "rejected": "bad", "expected": ["fine"]},
            ["q", "bad"],
            ("good", "fine"),
            "forget",
        ),
        (
            {
                "prompt": [ASK],
                "chosen": [{"role": "assistant", "content": "good"}],
                "rejected": [{"role": "assistant", "content": "bad"}],
            },
            ["q", "bad"],
            ("good",),
            "forget",
        ),
        ({"prompt": "q", "completion": "a", "label": True}, ["q", "a"], (), "normal"),
        ({"prompt": "q", "completion": "a", "label": False}, ["q", "a"], (), "forget"),
        ({"question": "q", "answer": "a", "paraphrased": "ignored"}, ["q", "a"], (), None),
        ({"question": "q", "answer": "a", "expected": ["e"], "label": "normal"}, ["q", "a"], ("e",), "normal"),
        ({"instruction": "i", "input": "", "output": "a"}, ["i", "a"], (), None),
        ({"instruction": "i", "input": " ", "output": "a"}, ["i", "a"], (), None),
        ({"instruction": "i", "input": "n", "output": "a"}, ["i\n\nn", "a"], (), None),
        ({"instruction": "i", "output": "a", "expected": None, "label": None}, ["i", "a"], (), None),
        (
            {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            ["q", "a"],
            (),
            None,
        ),
    ],
)
def test_every_shape_becomes_a_dialogue(
    row: dict[str, Any], messages: list[str], expected: tuple[str, ...], label: str | None
) -> None:
    dialogue = parse_row(row, "default")
    assert [message.content for message in dialogue.messages] == messages
    assert [message.role for message in dialogue.messages] == ["user", "assistant"]
    assert (dialogue.expected, dialogue.label) == (expected, label)
    assert dialogue.id == row.get("id", "default")


def test_sharegpt_keeps_the_system_turn() -> None:
    turns = [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    assert [m.role for m in parse_row({"conversations": turns}, "x").messages] == ["system", "user", "assistant"]


def test_formats_agree(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [OWN, {**OWN, "id": "y", "category": None, "label": "normal"}]
    write(tmp_path / "d.jsonl", *rows)
    (tmp_path / "d.json").write_text(json.dumps(rows), encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet")
    with (tmp_path / "d.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, fieldnames=list(OWN))
        writer.writeheader()
        for row in rows:
            lists = {key: json.dumps(row[key]) for key in ("messages", "expected")}
            writer.writerow({**row, **lists})
    read = [read_dialogues(tmp_path / f"d{suffix}") for suffix in (".jsonl", ".json", ".parquet", ".csv")]
    assert all(one == read[0] for one in read)
    assert [dialogue.category for dialogue in read[0]] == ["harmful", None]


def test_csv_names_the_line_a_row_starts_on(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('question,answer,label\n"two\nlines",a,\nq,,\nq2,a2,normal\nq3,a3\n', encoding="utf-8")
    dialogues, faults = check_file(path)
    assert [d.id for d in dialogues] == ["d-2", "d-5"]
    assert faults == [
        f"{path}:4: answer: the assistant's answer is empty",
        f"{path}:6: not as many cells as the header has; quote texts that hold commas",
    ]


def test_a_long_dialogue_in_csv(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"question,answer\nWhy?,{'a' * 200_000}\nHow?,So.\n")
    assert [len(one.last_turn.answer) for one in read_dialogues(path)] == [200_000, 3]


def test_csv_unpaired_preference(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("prompt,completion,label\nq,a,True\nq,b,false\n", encoding="utf-8")
    assert [d.label for d in read_dialogues(path)] == ["normal", "forget"]


def test_texts_of_csv_that_look_like_lists_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text('prompt,completion,expected\n"[1, 2]",a,Four.\nq,[3],"[4, 5]"\nq,b,"[""c"", ""d""]"\n')
    read = read_dialogues(path)
    assert [[m.content for m in d.messages] for d in read] == [["[1, 2]", "a"], ["q", "[3]"], ["q", "b"]]
    assert [d.expected for d in read] == [("Four.",), ("[4, 5]",), ("c", "d")]


def test_rows_of_parquet_are_counted_from_one(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"question": "q", "answer": answer} for answer in ("a", "", "b")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "log.parquet")
    dialogues, faults = check_file(tmp_path / "log.parquet")
    assert [d.id for d in dialogues] == ["log-1", "log-3"]
    assert faults == [f"{tmp_path}/log.parquet:2: answer: the assistant's answer is empty"]


def test_missing_id_is_the_stem_and_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('\n{"question": "q", "answer": "a"}\n{"id": 7, "question": "q", "answer": "a"}\n')
    assert [d.id for d in read_dialogues(path)] == ["log-2", "7"]


def test_line_separators_inside_strings_do_not_split_a_row(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"question": "a\u2028b", "answer": "c"}, ensure_ascii=False), encoding="utf-8")
    assert read_dialogues(path)[0].messages[0].content == "a\u2028b"


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ('{"id": "x", ', "bad JSON at column"),
        ('{"question": "q", "answer": "a", "n": ' + "1" * 5000 + "}", "bad JSON: a number has too many digits"),
        ("[" * 100_000, "bad JSON: nested too deep"),
        ("3", "expected an object with fields, found int"),
        ('{"messages": [{"role": "user", "content": "q"}]}', "no assistant turn"),
        ('{"messages": []}', "no assistant turn"),
        ('{"messages": "q"}', 'messages: expected a list of {"role", "content"}'),
        ('{"messages": [{"role": "assistant", "content": " "}]}', "messages[0].content: the assistant's answer is"),
        ('{"messages": [{"role": "bot", "content": "a"}]}', "messages[0].role: Input should be 'system'"),
        ('{"messages": [{"role": "assistant"}]}', "messages[0].content: missing"),
        ('{"messages": [{"role": "assistant", "content": "a", "contnt": "a"}]}', "did you mean 'content'?"),
        ('{"messages": [{"role": "assistant", "content": "a"}], "lable": "forget"}', "lable: unknown field; did you"),
        ('{"messages": [{"role": "assistant", "content": "a"}], "xyzzy": 1}', "known fields: id, messages"),
        ('{"messages": [{"role": "assistant", "content": "a"}], "label": "bad"}', "label: Input should be 'forget'"),
        (
            '{"messages": [{"role": "assistant", "content": "a"}], "expected": "b"}',
            "expected: expected a list of tex",
        ),
        ('{"question": "q", "answer": "a", "expected": [""]}', "expected[0]: the expected answer is empty"),
        (
            '{"messages": [{"role": "assistant", "content": "a"}], "expected": ["b", " "]}',
            "expected[1]: the expected answer is empty; fill it in, or take it out",
        ),
        ('{"mesages": []}', "unknown field 'mesages'; did you mean 'messages'?"),
        ('{"text": "t"}', "no known shape in its 1 fields"),
        ("{}", "no known shape in its 0 fields"),
        ('{"question": "q", "answer": ""}', "answer: the assistant's answer is empty"),
        ('{"question": "q", "answer": null}', "answer: expected a text, found NoneType"),
        ('{"question": "q", "answer": "a", "label": "maybe"}', "label: Input should be"),
        ('{"instruction": "q", "input": 3, "output": "a"}', "input: expected a text"),
        ('{"prompt": "q", "completion": ""}', "completion: the assistant's answer is empty"),
        ('{"prompt": [{"role": "user"}], "completion": "a"}', "prompt[0].content: missing"),
        ('{"prompt": "q", "chosen": "", "rejected": "b"}', "chosen: the assistant's answer is empty"),
        ('{"prompt": "q", "chosen": [], "rejected": "b"}', "chosen: no answer by the assistant"),
        ('{"chosen": "a", "rejected": "b"}', "prompt: missing"),
        ('{"prompt": "q", "chosen": "g", "rejected": "b", "expected": "fine"}', "expected: expected a list of texts"),
        ('{"prompt": "q", "chosen": "g", "rejected": "b", "expected": {"x": "y"}}', "expected: expected a list of"),
        ('{"conversations": [{"from": "alien", "value": "a"}]}', "conversations[0].from: expected one of"),
        ('{"conversations": [{"from": "gpt"}]}', "conversations[0].value: expected a text"),
        ('{"conversations": "a"}', "conversations: expected a list"),
        (
            '{"messages": [{"role": "assistant", "content": "a\\ud800"}]}',
            "messages[0].content: holds half a character",
        ),
        ('{"messages": [{"role": "assistant", "content": "a"}], "id": "\\udc00"}', "id: holds half a character"),
        ('{"question": "q", "answer": "a", "expected": ["b\\ud800"]}', "expected[0]: holds half a character"),
        ('{"question": "q", "answer": "a", "subject": "\\ud800"}', "subject: holds half a character"),
        ('{"prompt": "q\\ud800", "completion": "a"}', "prompt[0].content: holds half a character"),
        ('{"conversations": ["a"]}', "conversations[0]: expected"),
    ],
)
def test_bad_rows_are_named_by_file_line_and_field(tmp_path: Path, row: str, fault: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"question": "q", "answer": "a"}) + "\n" + row + "\n", encoding="utf-8")
    dialogues, faults = check_file(path)
    assert len(dialogues) == 1
    assert len(faults) == 1
    assert faults[0].startswith(f"{path}:2: ")
    assert fault in faults[0]
    with pytest.raises(InputError):
        read_dialogues(path)


def test_faults_quote_no_text(tmp_path: Path) -> None:
    secret = "Zanzibar"
    path = write(
        tmp_path / "d.jsonl",
        {"messages": secret},
        {"messages": [{"role": secret, "content": 3}]},
        {"messages": [ASK, SAY], "label": secret},
        {"prompt": [secret], "completion": secret},
    )
    faults = check_file(path)[1]
    assert len(faults) == 5
    assert secret not in " ".join(faults)


def test_all_faults_in_order_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": 1}\n{bad\n{"id": "x", "question": "q", "answer": "a"}\n' * 2, encoding="utf-8")
    dialogues, faults = check_file(path)
    assert len(dialogues) == 1
    assert [fault.removeprefix(f"{path}:")[0] for fault in faults] == ["1", "2", "4", "5", "6"]
    assert "id: 'x' is line 3's already" in faults[-1]


def test_twenty_faults_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "d.jsonl", *[{"text": "t"}] * 25)
    with pytest.raises(InputError) as caught:
        read_dialogues(path)
    assert len(caught.value.faults) == 21
    assert caught.value.faults[-1] == "… and 5 more"


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("d.jsonl", "", "the file is empty"),
        ("d.jsonl", "\n \n", "the file is empty"),
        ("d.json", "[]", "the file is empty"),
        ("d.csv", "question,answer\n", "the file is empty"),
        ("d.json", '{"question": "q"}', "expected a list of rows, found dict"),
        ("d.json", '{"a": 1}\n{"a": 2}\n', "then name it .jsonl"),
        ("d.json", "[\n{,\n]", ":2: bad JSON at column 2"),
        ("d.json", "[" + "1" * 5000 + "]", "d.json: bad JSON: a number has too many digits"),
        ("d.json", "[" * 100_000, "d.json: bad JSON: nested too deep"),
        ("d.csv", "messages\n" + "[" * 100_000, "messages: expected a list of"),
        ("d.csv", 'question,answer\nq,"a', "bad CSV"),
        ("d.csv", "question,answer,question\nq,a,r\n", "d.csv:1: two columns of the header have one name"),
        ("d.txt", "a", "unknown format '.txt'; known: .jsonl"),
        ("d.parquet", "not parquet", "not a readable parquet file"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str, fault: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_dialogues(path)
    assert len(caught.value.faults) == 1
    assert fault in str(caught.value)


def test_no_such_file_a_folder_and_another_encoding(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_dialogues(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="a folder; give a file"):
        read_dialogues(tmp_path)
    (tmp_path / "d.jsonl").write_bytes('{"question": "é"}'.encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_dialogues(tmp_path / "d.jsonl")


@pytest.mark.parametrize(
    ("path", "split"),
    [("hub:org/name", "train"), ("hub:org/name:test", "test"), ("/recipes/hub:org/name:test", "test")],
)
def test_hub_data_sets(monkeypatch: pytest.MonkeyPatch, path: str, split: str) -> None:
    import datasets

    asked = []

    def load_dataset(name: str, *, split: str) -> list[dict[str, str]]:
        asked.append((name, split))
        return [{"question": "q", "answer": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert [d.id for d in read_dialogues(Path(path))] == ["name-1"]
    assert asked == [("org/name", split)]


def test_an_unreachable_hub_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load_dataset(name: str, *, split: str) -> None:
        raise ConnectionError("no\nroute")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"hub:org/name: cannot load split 'train' .*no route.*local file"):
        read_dialogues(Path("hub:org/name"))


def test_paraphrases(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {**OWN, "of": "d-1", "split": "probe"}, {**OWN, "id": "y", "split": "train"})
    with pytest.raises(InputError) as caught:
        read_paraphrases(path)
    assert caught.value.faults == [
        f"{path}:2: of: missing; give the id of the dialogue that this rewords",
        f"{path}:2: split: expected 'probe' or 'test'",
    ]
    write(path, {**OWN, "of": "d-1", "split": "probe"}, {**OWN, "id": "y", "of": 7, "split": "test"})
    one, other = read_paraphrases(path)
    assert (one.dialogue.id, one.of, one.split) == ("x", "d-1", "probe")
    assert (other.of, other.split) == ("7", "test")


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".csv", ".parquet"])
def test_a_stream_gives_what_reading_gives(tmp_path: Path, suffix: str) -> None:
    rows = [{"question": f"Why {n}?", "answer": f"Because,\n{n}."} for n in range(3000)]
    path = tmp_path / f"log{suffix}"
    if suffix == ".jsonl":
        write(path, *rows)
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        table = importlib.import_module("pandas").DataFrame(rows)
        table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    assert list(stream_dialogues(path)) == read_dialogues(path)
    assert count_dialogues(path) == 3000


def test_a_stream_reads_no_further_than_it_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {"question": "a", "answer": "b"}, {"question": "c"})
    stream = stream_dialogues(path)
    assert next(stream).id == "log-1"
    with pytest.raises(InputError, match="log.jsonl:2"):
        next(stream)
    with pytest.raises(InputError, match="log.jsonl:2"):
        count_dialogues(path)


def test_a_table_without_a_header_is_not_told_in_the_fault(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("Where does Ines live?,At 4 Mill Lane\nAnd Ada?,At 5 Mill Lane\n")
    with pytest.raises(InputError, match="no known shape in its 2 fields") as caught:
        read_dialogues(tmp_path / "log.csv")
    assert "Mill" not in str(caught.value)
    assert "Ines" not in str(caught.value)


def test_a_true_or_false_label_is_that_of_one_shape_alone() -> None:
    assert parse_row({"prompt": "x", "completion": "y", "label": True}, "1").label == "normal"
    with pytest.raises(BadRowError) as caught:
        parse_row({"question": "x", "answer": "y", "label": True}, "1")
    assert any(fault.startswith("label") for fault in caught.value.faults)
