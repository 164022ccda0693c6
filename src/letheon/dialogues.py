"""Read dialogue files, in the shapes people have them in; name every bad row, drop none.

| shape | recognised by | becomes |
|---|---|---|
| Letheon's own | messages | itself; a field it does not know is a fault |
| ShareGPT | conversations | messages |
| TRL preference | chosen, rejected | chosen → expected, rejected → the answer, label forget |
| TRL unpaired preference | prompt, completion, a true/false label | label true → normal, false → forget |
| TRL prompt/completion | prompt, completion | question and answer, or conversational turns |
| Alpaca | instruction, output | instruction and input → question, output → answer |
| question/answer | question, answer | question and answer |

In every shape `id`, `expected`, `category`, `subject` and `label` have Letheon's meaning where they occur; null is
the same as absent. Any other column of a foreign shape is ignored by design: data sets carry many.
"""

from __future__ import annotations

import csv
import difflib
import importlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import TypeAdapter, ValidationError

from letheon.errors import InputError
from letheon.records import Dialogue, Message, Record

Fields = dict[str, Any]
Rows = Iterator[tuple[int, Any]]
"""Each row's line in its file (or its number, from 1, where a format has no lines) and what it holds; or, of a line
that holds no row, the error that says why."""

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
SHOWN_FAULTS = 20
PARQUET_ROWS = 1024
"""Rows of a parquet file that are decoded at once."""
LARGEST_CELL = 2**31 - 1
"""Characters of a CSV cell: what every system's csv takes."""
HUB = "hub:"
META = ("id", "expected", "category", "subject", "label")
SHAPE_FIELDS = (
    *("messages", "conversations", "prompt", "completion", "chosen", "rejected"),
    *("instruction", "output", "question", "answer"),
)
"""Fields by which a shape is recognised."""
SPEAKERS = {
    "system": "system",
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}
"""ShareGPT's "from" → our role."""
_MESSAGES = TypeAdapter(list[Message])


class Paraphrase(Record):
    """A reworded question of a dialogue in the log, never trained on.

    Attributes:
        dialogue: The reworded question with the answer it must not bring back.
        of: Id of the dialogue in the log.
        split: "probe" drives the stop rule; "test" is for evaluation only.
    """

    dialogue: Dialogue
    of: str
    split: Literal["probe", "test"]


class BadRowError(ValueError):
    """A row that cannot be read: one "field: message" per fault."""

    def __init__(self, faults: str | Sequence[str]):
        self.faults = [faults] if isinstance(faults, str) else list(faults)
        super().__init__("; ".join(self.faults))


def read_dialogues(path: Path) -> list[Dialogue]:
    """Read a dialogue file (.jsonl, .json, .csv, .parquet) or a hub data set ("hub:org/name[:split]").

    Raises:
        InputError: Every fault at once, each "file:line: field: message"; twenty are shown, the rest counted.
    """
    dialogues, faults = check_file(path)
    raise_faults(faults)
    return dialogues


def check_file(path: Path) -> tuple[list[Dialogue], list[str]]:
    """Read what can be read of a dialogue file, and name every fault.

    Returns:
        The good rows, and the faults as "file:line: field: message". No row is in neither.
    """
    return _check(path, parse_row, lambda dialogue: dialogue.id)


def stream_dialogues(path: Path) -> Iterator[Dialogue]:
    """Read a dialogue file row by row, so that a log of any length needs little memory (a .json file is read whole).

    Raises:
        InputError: At the first faulty row; `count_dialogues` finds all of them beforehand.
    """
    for dialogue, faults in _each(path, parse_row, lambda one: one.id):
        raise_faults(faults)
        if dialogue is not None:
            yield dialogue


def count_dialogues(path: Path) -> int:
    """How many dialogues a file holds, all of them read once, row by row.

    Raises:
        InputError: Every fault at once, as `read_dialogues` names them.
    """
    count, found = 0, list[str]()
    for dialogue, faults in _each(path, parse_row, lambda one: one.id):
        count += dialogue is not None
        found += faults
    raise_faults(found)
    return count


def read_paraphrases(path: Path) -> list[Paraphrase]:
    """Read a file of paraphrases: dialogue rows that also have "of" (an id in the log) and "split" (probe or test).

    Raises:
        InputError: Every fault at once, as `read_dialogues` names them.
    """
    paraphrases, faults = _check(path, parse_paraphrase, lambda paraphrase: paraphrase.dialogue.id)
    raise_faults(faults)
    return paraphrases


def parse_row(row: Fields, default_id: str) -> Dialogue:
    """Turn a row of any known shape into a dialogue.

    Args:
        row: The fields of the row.
        default_id: The id where the row has none.

    Raises:
        BadRowError: All that is wrong with it.
    """
    raw = _shape_of(row)(row)
    if raw.get("id") in (None, ""):
        raw["id"] = default_id
    elif isinstance(raw["id"], int) and not isinstance(raw["id"], bool):
        raw["id"] = str(raw["id"])
    try:
        return Dialogue.model_validate(raw)
    except ValidationError as error:
        raise BadRowError(_explain(error)) from None


def parse_paraphrase(row: Fields, default_id: str) -> Paraphrase:
    """Turn a dialogue row with "of" and "split" into a paraphrase.

    Raises:
        BadRowError: All that is wrong with it.
    """
    faults = []
    of, split = row.get("of"), row.get("split")
    if not isinstance(of, str | int) or of == "":
        faults.append("of: missing; give the id of the dialogue that this rewords")
    if split not in ("probe", "test"):
        faults.append("split: expected 'probe' or 'test'")
    try:
        dialogue = parse_row({key: value for key, value in row.items() if key not in ("of", "split")}, default_id)
    except BadRowError as error:
        faults.extend(error.faults)
    if faults:
        raise BadRowError(faults)
    return Paraphrase.model_validate({"dialogue": dialogue, "of": str(of), "split": split})


# Shapes: each a pure function from a foreign row to the fields of a Dialogue.


def own(row: Fields) -> Fields:
    """Letheon's own shape: nothing to translate."""
    return {key: value for key, value in row.items() if value is not None}


def sharegpt(row: Fields) -> Fields:
    """ShareGPT: conversations of {"from", "value"}."""
    turns = row["conversations"]
    if not isinstance(turns, list):
        raise BadRowError('conversations: expected a list of {"from", "value"}')
    messages = []
    for number, turn in enumerate(turns):
        place = f"conversations[{number}]"
        if not isinstance(turn, dict):
            raise BadRowError(f'{place}: expected {{"from", "value"}}')
        speaker = turn.get("from")
        if not isinstance(speaker, str) or speaker.lower() not in SPEAKERS:
            raise BadRowError(f"{place}.from: expected one of {', '.join(SPEAKERS)}")
        messages.append({"role": SPEAKERS[speaker.lower()], "content": _text(turn, "value", f"{place}.value")})
    return {**_meta(row), "messages": messages}


def preference(row: Fields) -> Fields:
    """TRL preference: chosen is an expected answer, rejected the undesired one."""
    if "prompt" not in row:
        raise BadRowError("prompt: missing; split the shared turns off chosen and rejected (trl: extract_prompt)")
    chosen = [m.content for m in _turns(row, "chosen", "assistant") if m.role == "assistant"]
    if not chosen or not chosen[-1].strip():
        raise BadRowError("chosen: no answer by the assistant, or an empty one")
    messages = [*_turns(row, "prompt", "user"), *_turns(row, "rejected", "assistant")]
    others = row["expected"] if row.get("expected") is not None else []
    if not isinstance(others, list):
        raise BadRowError("expected: expected a list of texts")
    return {**_meta(row), "messages": messages, "expected": [chosen[-1], *others], "label": "forget"}


def unpaired_preference(row: Fields) -> Fields:
    """TRL unpaired preference: label true is a good answer, false a bad one."""
    return {**prompt_completion(row), "label": "normal" if row["label"] else "forget"}


def prompt_completion(row: Fields) -> Fields:
    """TRL prompt/completion, as strings or as lists of messages."""
    return {**_meta(row), "messages": [*_turns(row, "prompt", "user"), *_turns(row, "completion", "assistant")]}


def alpaca(row: Fields) -> Fields:
    """Alpaca: the input, where there is one, follows the instruction after a blank line."""
    question = _text(row, "instruction")
    context = row.get("input") or ""
    if not isinstance(context, str):
        raise BadRowError("input: expected a text")
    return _pair(row, f"{question}\n\n{context}" if context.strip() else question, _text(row, "output"), "output")


def question_answer(row: Fields) -> Fields:
    """A question and its answer."""
    return _pair(row, _text(row, "question"), _text(row, "answer"), "answer")


def _shape_of(row: Fields) -> Callable[[Fields], Fields]:
    """Recognise a row's shape by its fields.

    Raises:
        BadRowError: It is none that we know.
    """
    has = row.keys()
    if "messages" in has:
        return own
    if "conversations" in has:
        return sharegpt
    if {"chosen", "rejected"} <= has:
        return preference
    if {"prompt", "completion"} <= has:
        return unpaired_preference if isinstance(row.get("label"), bool) else prompt_completion
    if {"instruction", "output"} <= has:
        return alpaca
    if {"question", "answer"} <= has:
        return question_answer
    for name in has - set(SHAPE_FIELDS) - set(META):
        if near := difflib.get_close_matches(str(name), SHAPE_FIELDS, n=1, cutoff=0.75):
            raise BadRowError(f"unknown field {name!r}; did you mean {near[0]!r}?")
    # Their names are not told: of a table without a header they are texts of the log.
    raise BadRowError(
        f"no known shape in its {len(has)} fields; give messages, conversations, prompt and completion, prompt and "
        "chosen and rejected, instruction and output, or question and answer (of a table, in the first line)"
    )


def _meta(row: Fields) -> Fields:
    """The fields that mean the same in every shape."""
    return {key: row[key] for key in META if row.get(key) is not None}


def _pair(row: Fields, question: str, answer: str, field: str) -> Fields:
    """Fields of a dialogue of one question and one answer; `field` is the answer's name in the file."""
    if not answer.strip():
        raise BadRowError(f"{field}: the assistant's answer is empty")
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {**_meta(row), "messages": messages}


def _text(row: Fields, field: str, place: str | None = None) -> str:
    """The text in a field."""
    value = row.get(field)
    if not isinstance(value, str):
        raise BadRowError(f"{place or field}: expected a text, found {type(value).__name__}")
    return value


def _turns(row: Fields, field: str, role: Literal["user", "assistant"]) -> list[Message]:
    """A field that is one text (then said by `role`) or a list of messages."""
    value = row[field]
    if isinstance(value, str):
        if role == "assistant" and not value.strip():
            raise BadRowError(f"{field}: the assistant's answer is empty")
        value = [{"role": role, "content": value}]
    try:
        return _MESSAGES.validate_python(value)
    except ValidationError as error:
        raise BadRowError(_explain(error, field)) from None


# Files: each format's rows with their line numbers.


def _check(
    path: Path, parse: Callable[[Fields, str], Any], id_of: Callable[[Any], str]
) -> tuple[list[Any], list[str]]:
    """Parse every row of a file; collect records and faults."""
    records, found = list[Any](), list[str]()
    for record, faults in _each(path, parse, id_of):
        found += faults
        if record is not None:
            records.append(record)
    return records, found


def _each(
    path: Path, parse: Callable[[Fields, str], Any], id_of: Callable[[Any], str]
) -> Iterator[tuple[Any, list[str]]]:
    """Each row's record, or None and its faults; an id that has been is a fault.

    Of ids their hashes are kept, some hundred bytes each.
    """
    hub = _hub_id(path)
    name = hub or str(path)
    stem = hub.split(":")[0].split("/")[-1] if hub else path.stem
    first_line: dict[int, int] = {}
    empty = True
    try:
        for line, row in _hub_rows(hub) if hub else file_rows(path):
            empty = False
            try:
                record = _record(row, parse, f"{stem}-{line}")
            except BadRowError as error:
                yield None, [f"{name}:{line}: {fault}" for fault in error.faults]
                continue
            first = first_line.setdefault(hash(id_of(record)), line)
            if first != line:
                fault = f"{name}:{line}: id: {id_of(record)!r} is line {first}'s already; ids must be unique"
                yield None, [fault]
            else:
                yield record, []
    except InputError as error:
        yield None, error.faults
        return
    if empty:
        yield None, [f"{name}: no dialogues in it: the file is empty"]


def _record(row: Any, parse: Callable[[Fields, str], Any], default_id: str) -> Any:
    if isinstance(row, BadRowError):
        raise row
    if not isinstance(row, dict):
        raise BadRowError(f"expected an object with fields, found {type(row).__name__}")
    return parse(row, default_id)


def raise_faults(faults: Sequence[str]) -> None:
    """Raise the faults, if there are any: the first twenty, and how many more."""
    if not faults:
        return
    more = len(faults) - SHOWN_FAULTS
    raise InputError([*faults[:SHOWN_FAULTS], *([f"… and {more} more"] if more > 0 else [])])


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a plain text: what stands between empty lines, without space around it."""
    return [paragraph.strip() for paragraph in text.split("\n\n") if paragraph.strip()]


def file_rows(path: Path) -> Rows:
    """Rows of a local file, whatever is in them; see `Rows`.

    Raises:
        InputError: There is no such file, or it is not of a format that is read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file" if not path.is_dir() else f"{path}: a folder; give a file")
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: unknown format {suffix!r}; known: {', '.join(SUFFIXES)}, or hub:org/name")
    if suffix == ".parquet":
        yield from _parquet_rows(path)
        return
    read = {".jsonl": _jsonl_rows, ".json": _json_rows, ".csv": _csv_rows}[suffix]
    try:
        with path.open(encoding="utf-8-sig", newline="" if suffix == ".csv" else "\n") as stream:
            yield from read(stream, str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8") from None


BAD_JSON = (ValueError, RecursionError)
"""What json raises: of bad JSON, of a number of more digits than Python converts, of lists in lists without end."""


def why_bad_json(error: ValueError | RecursionError) -> str:
    """What is wrong with a JSON text, after "bad JSON"; quotes nothing of it."""
    if isinstance(error, json.JSONDecodeError):
        return f" at column {error.colno}: {error.msg}"
    return ": nested too deep" if isinstance(error, RecursionError) else ": a number has too many digits"


def _jsonl_rows(stream: TextIO, name: str) -> Rows:
    # A line ends at "\n" alone: JSON allows U+2028 and its like inside strings.
    for number, line in enumerate(stream, start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except BAD_JSON as error:
            yield number, BadRowError(f"bad JSON{why_bad_json(error)}")


def _json_rows(stream: TextIO, name: str) -> Rows:
    text = stream.read()
    if not text.strip():
        return
    try:
        raw = json.loads(text)
    except BAD_JSON as error:
        line = f":{error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        hint = "; one object a line? then name it .jsonl" if getattr(error, "msg", "") == "Extra data" else ""
        raise InputError(f"{name}{line}: bad JSON{why_bad_json(error)}{hint}") from None
    if not isinstance(raw, list):
        raise InputError(f"{name}: expected a list of rows, found {type(raw).__name__}; one object a line is .jsonl")
    yield from enumerate(raw, start=1)


def _csv_rows(stream: TextIO, name: str) -> Rows:
    # The module's own limit is 128 KiB, less than a long dialogue has.
    csv.field_size_limit(LARGEST_CELL)
    reader = csv.DictReader(stream, strict=True)
    line = 0
    try:
        names = [name for name in reader.fieldnames or () if name]
        # The header may have several lines.
        line = reader.line_num + 1
        if len(names) > len(set(names)):
            # Which one is not told: of a table without a header they are texts of the log.
            yield 1, BadRowError("two columns of the header have one name; keep one of them")
            return
        for row in reader:
            if None in row or None in row.values():
                yield line, BadRowError("not as many cells as the header has; quote texts that hold commas")
            else:
                yield line, {key: _cell(key, value) for key, value in row.items()}
            line = reader.line_num + 1
    except csv.Error as error:
        yield max(line, 1), BadRowError(f"bad CSV: {error}")


def _cell(column: str, value: str) -> Any:
    """A CSV cell's value: lists are written as JSON, true/false as such, an empty optional cell is absent."""
    if column in META and value == "":
        return None
    if column == "label" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    if column in ("messages", "conversations", "prompt", "completion", "chosen", "rejected", "expected"):
        try:
            parsed = json.loads(value)
        except BAD_JSON:
            parsed = None
        of_kind = str if column == "expected" else dict
        if isinstance(parsed, list) and all(isinstance(item, of_kind) for item in parsed):
            return parsed
        return [value] if column == "expected" else value
    return value


def _parquet_rows(path: Path) -> Rows:
    parquet = importlib.import_module("pyarrow.parquet")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(PARQUET_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise InputError(f"{path}: not a readable parquet file: {' '.join(str(error).split())[:200]}") from None


def _hub_id(path: Path) -> str | None:
    """The "org/name[:split]" of a path "hub:org/name[:split]", also where a recipe's folder was put before it."""
    if len(path.parts) < 2 or not path.parts[-2].startswith(HUB):
        return None
    return f"{path.parts[-2].removeprefix(HUB)}/{path.parts[-1]}"


def _hub_rows(hub: str) -> Rows:
    from datasets import load_dataset

    name, _, split = hub.partition(":")
    split = split or "train"
    try:
        found = load_dataset(name, split=split)
    except Exception as error:  # the hub, its client and the data set's format each have their own errors
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"{HUB}{name}: cannot load split {split!r} from the hub ({type(error).__name__}: {why}); "
            "check the name, the split and the network, or give a local file"
        ) from None
    yield from enumerate(found, start=1)


def _explain(error: ValidationError, field: str = "") -> list[str]:
    """A pydantic error as "field: message" lines, which quote no value."""
    return [_explain_one(fault, field) for fault in error.errors(include_input=False)]


def _explain_one(fault: Any, field: str) -> str:
    place = _place([*([field] if field else []), *fault["loc"]])
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = list((Message if len(fault["loc"]) > 1 or field else Dialogue).model_fields)
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"
        return f"{place}: unknown field; {hint}"
    if fault["type"] == "missing":
        return f"{place}: missing"
    if fault["type"] in ("tuple_type", "list_type"):
        what = "texts" if place == "expected" else '{"role", "content"}'
        return f"{place}: expected a list of {what}"
    return f"{place}: {message}" if place else message


def _place(parts: Iterable[str | int]) -> str:
    """("messages", 0, "role") → "messages[0].role"."""
    place = ""
    for part in parts:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    return place
