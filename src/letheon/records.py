"""The records that the stages hand each other. Everything here is a file format: change it with its version."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from letheon.errors import InputError

RESULTS_SCHEMA = "letheon/results/1"
AUDIT_SCHEMA = "letheon/audit/1"

Decision = Literal["forget", "normal", "review"]
Choice = Literal["forget", "normal", "undone"]
NORMAL = "normal"
"""The category of a turn in which no judge found anything to forget."""
PERSON = "person"
"""The judge of a turn that a person has decided."""


class Record(BaseModel):
    """An immutable record that refuses fields it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _whole(text: str) -> str:
    """A text that can be written as UTF-8, and tokenized."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            "holds half a character (a lone surrogate such as \\ud800); mend it, or take it out"
        ) from None
    return text


Text = Annotated[str, AfterValidator(_whole)]


class Message(Record):
    """One message of a dialogue."""

    role: Literal["system", "user", "assistant"]
    content: Text


class Dialogue(Record):
    """A dialogue, and what is known about it.

    Attributes:
        id: Unique within its file.
        messages: The turns in order; at least one is the assistant's, with a non-empty answer.
        expected: Acceptable answers to the last assistant turn, where they are known; none is empty.
        category: What kind of content it is ("harmful", "privacy", "hallucination", "outdated", …).
        subject: The person or thing it is about, for requests of the kind "forget this person".
        label: The truth, where it is known: whether the last assistant turn has to be forgotten.
    """

    id: Text
    messages: tuple[Message, ...]
    expected: tuple[Text, ...] = ()
    category: Text | None = None
    subject: Text | None = None
    label: Literal["forget", "normal"] | None = None

    @model_validator(mode="after")
    def _has_answers(self) -> Dialogue:
        if not any(message.role == "assistant" for message in self.messages):
            raise ValueError("no assistant turn: there is no answer to judge or to forget")
        for number, message in enumerate(self.messages):
            if message.role == "assistant" and not message.content.strip():
                raise ValueError(f"messages[{number}].content: the assistant's answer is empty")
        for number, answer in enumerate(self.expected):
            if not answer.strip():
                raise ValueError(f"expected[{number}]: the expected answer is empty; fill it in, or take it out")
        return self

    def turns(self) -> Iterator[Turn]:
        """Yield every assistant turn with the messages before it."""
        for number, message in enumerate(self.messages):
            if message.role == "assistant":
                yield Turn(self, number)

    @property
    def last_turn(self) -> Turn:
        """The last assistant turn: the one that `expected` and `label` speak of."""
        return list(self.turns())[-1]


@dataclass(frozen=True)
class Turn:
    """An assistant turn of a dialogue: `dialogue.messages[index]` and all that came before it."""

    dialogue: Dialogue
    index: int

    @property
    def prompt(self) -> tuple[Message, ...]:
        """The messages that the answer replies to."""
        return self.dialogue.messages[: self.index]

    @property
    def question(self) -> str:
        """The last user message before the answer ("" where there is none)."""
        return next((m.content for m in reversed(self.prompt) if m.role == "user"), "")

    @property
    def answer(self) -> str:
        """The assistant's words."""
        return self.dialogue.messages[self.index].content

    @property
    def expected(self) -> tuple[str, ...]:
        """Acceptable answers to this turn; the data gives them for the last assistant turn only."""
        return self.dialogue.expected if self.index == self.dialogue.last_turn.index else ()


class Verdict(Record):
    """What the screening decided about one assistant turn.

    Attributes:
        id: The dialogue's id.
        turn: Index of the judged message in `Dialogue.messages`.
        decision: "forget", "normal", or "review": a person should look.
        category: Kind of undesired content, or "normal".
        score: Probability-like score in [0, 1]; higher is more surely undesired.
        judge: Name of the judge whose score decided.
        span: Character range [start, end) of the offending part of the answer, where a judge knows it.
        reason: One short sentence that quotes nothing of the dialogue.
        judged: Where a person decided: what the judges had said.
    """

    id: str
    turn: Annotated[int, Field(ge=0)]
    decision: Decision
    category: str
    score: Annotated[float, Field(ge=0, le=1)]
    judge: str
    span: tuple[int, int] | None = None
    reason: str | None = None
    judged: Verdict | None = None


class PersonDecision(Record):
    """What a person decided about one assistant turn. Of several on a turn the last one counts.

    Attributes:
        id: The dialogue's id.
        turn: Index of the judged message in `Dialogue.messages`.
        decision: "forget", "normal", or "undone": the turn is left to the judges again.
        category: Kind of undesired content, where the person named it.
        when: When it was decided, in UTC.
        characters: Length of the dialogue up to the end of the turn: a decision does not hold for another text that
            has come to have the same id.
    """

    id: str
    turn: Annotated[int, Field(ge=0)]
    decision: Choice
    category: str | None = None
    when: datetime
    characters: int | None = None


class TurnName(Record):
    """Which assistant turn of the log: the dialogue's id and the index of the message."""

    id: str
    turn: Annotated[int, Field(ge=0)]


class Interval(Record):
    """An estimate with its 95% interval."""

    estimate: float
    low: float
    high: float


class Audit(Record):
    """`audit.json`: how much of what the screening called normal should have been forgotten, by a random sample.

    Attributes:
        seed: Of the draw.
        screening: Hash of the judges' decisions that it was drawn from.
        population: The turns that the judges called normal and no person had looked at, when it was drawn.
        sample: The turns drawn, in the order in which they are shown.
        labelled: How many of them a person has decided.
        missed: How many of those should have been forgotten.
        share: missed / labelled, with its interval; None before the first is labelled.
        in_all: The same, times the population.
    """

    model_config = ConfigDict(populate_by_name=True)

    schema_: Literal["letheon/audit/1"] = Field(default="letheon/audit/1", alias="schema")
    seed: int
    screening: str
    population: int
    sample: tuple[TurnName, ...]
    labelled: int = 0
    missed: int = 0
    share: Interval | None = None
    in_all: Interval | None = None


class Estimate(Record):
    """Mean of n per-sample scores with its standard error (None where all are of one dialogue)."""

    mean: float
    stderr: float | None
    n: int


class NotComputed(Record):
    """A metric that lacks its input, and why."""

    not_computed: str


Metric = Estimate | Interval | NotComputed
"""A mean with its standard error, an estimate with its 95% interval, or why there is none."""
SetMetrics = dict[str, Metric]
"""Metric name → value, for one data set."""
ModelMetrics = dict[str, SetMetrics]
"""Set name ("forget", "paraphrase", "normal_trained", "normal_held_out", "general", "membership") → its metrics."""


class Headline(Record):
    """The one-line answer: was it forgotten, and why do we say so."""

    forgotten: Literal["yes", "partly", "no"]
    why: str


class StressVerdict(Record):
    """Whether the attacks of `letheon stress` kept to the recipe's gates, and by which numbers."""

    passed: bool
    why: str


class Stop(Record):
    """When and why training stopped, and whether the model it left passed the stop rule's guards.

    Attributes:
        step: Of the state that was kept.
        reason: In words.
        within_guards: Whether that state is.
        limits: What the stop rule held against the probes, by their fields; empty where there was none.
    """

    step: int
    reason: str
    within_guards: bool = True
    limits: dict[str, float] = {}


class TriedLayers(Record):
    """What a few steps did with an adapter on some of the layers, or with those layers' own weights.

    Attributes:
        layers: Which, as of the recipe's `tuning.layers`.
        steps: How many were taken.
        forgetting: log(left to forget before / now) at each probe, the last after the last step; none where it has
            diverged. Higher is more forgotten.
        kl: KL to the model before on normal answers, at the same probes; nats a token, lower is better.
        harm: KL as a multiple of what it was with all layers when they had forgotten as much; None where too little
            is forgotten to tell. Lower is better.
        seconds: Of a step, the median.
        prepare: Seconds before the first step.
    """

    layers: str
    steps: int
    forgetting: tuple[float, ...]
    kl: tuple[float, ...]
    harm: float | None = None
    seconds: float
    prepare: float


class LayerTrial(Record):
    """Which layers were chosen (as of `tuning.layers`), why, and what was tried, the most layers first."""

    chosen: str
    why: str
    tried: tuple[TriedLayers, ...] = ()


class Outlook(Record):
    """What to expect of a screening: how it does on its examples, each judged without having been learnt from.

    Attributes:
        form: What the embedding judge goes by: "MiniLM" or "TF-IDF".
        examples: Labelled examples by category.
        auroc: Probability that an example to forget scores above a normal one.
        precision: Of "forget" at `forget_above`.
        recall: Of "forget" at `forget_above`. (None where it is not defined.)
        forget_above: Score from which a turn is forgotten, with where it might as well lie where it was chosen.
        normal_below: Score under which it is normal.
    """

    form: str
    examples: dict[str, int]
    auroc: Interval | None
    precision: Interval | None
    recall: Interval | None
    forget_above: Interval
    normal_below: float


class Screening(Record):
    """What the screening decided, and how well: by true labels where the data has some, and by the scores themselves.

    Attributes:
        precision: Of turns with a label, the share of what was forgotten that is labelled so; None without labels.
        recall: Of them, the share of what is labelled so that was forgotten.
        n: Judged turns, with a label or without.
        forget: Of them to be forgotten.
        review: Waiting for a person.
        normal: To be kept.
        wrongly_forgotten: How many of `forget` the scores themselves expect to be normal.
        missed: How many of `normal` they expect to be undesired.
    """

    precision: float | None
    recall: float | None
    n: int
    forget: int
    review: int
    normal: int
    wrongly_forgotten: float | None = None
    missed: float | None = None
    expected: Outlook | None = None


class Example(Record):
    """Greedy answers to one prompt. Texts are present only where the user asked to show them."""

    id: str
    set: str
    prompt: str | None = None
    before: str | None = None
    after: str | None = None
    control: str | None = None


class Results(BaseModel):
    """`results.json`: all that a run found out. The report is a view of it.

    Every section but `schema` is filled by its stage, so that a run folder may hold a part of them.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    schema_: Literal["letheon/results/1"] = Field(default="letheon/results/1", alias="schema")
    verdict: Headline | None = None
    layers: LayerTrial | None = None
    stop: Stop | None = None
    seconds: dict[str, float] = Field(default_factory=dict)
    peak_memory_mb: dict[str, float] = Field(default_factory=dict)
    screening: Screening | None = None
    metrics: dict[Literal["before", "after", "control"], ModelMetrics] = Field(default_factory=dict)
    notes: list[str] = Field(default_factory=list)
    """What one should know of the metrics."""
    examples: list[Example] = Field(default_factory=list)
    stress: StressVerdict | None = None

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read `results.json`, or start an empty one where there is none.

        Raises:
            InputError: The file was written by another version, or is damaged.
        """
        if not path.exists():
            return cls()
        damaged = "not a results file (damaged?); delete the run folder's results.json"
        return read_record(cls, path, RESULTS_SCHEMA, damaged, "run 'letheon evaluate' again")

    def save(self, path: Path) -> None:
        """Write atomically: a reader sees the old file or the new one, never half of it."""
        write_text(path, self.model_dump_json(by_alias=True, indent=2) + "\n")


R = TypeVar("R", bound=BaseModel)


def read_record(kind: type[R], path: Path, schema: str, damaged: str, mend: str) -> R:
    """Read a record whose "schema" says in which format it was written.

    Args:
        kind: Its class.
        path: The file.
        schema: The format that this version reads.
        damaged: What to say of a file that is no such object.
        mend: What to do about one that lacks something.

    Raises:
        InputError: It was written by another version, or is damaged.
    """
    raw = read_versioned(path, schema, damaged)
    try:
        return kind.model_validate_json(json.dumps(raw))
    except ValidationError as error:
        raise InputError(f"{path}: damaged: {first_fault(error)}; {mend}") from None


def read_versioned(path: Path, schema: str, damaged: str) -> dict[str, Any]:
    """Read a JSON object whose "schema" says in which format it was written.

    Args:
        path: The file.
        schema: The format that this version reads.
        damaged: What to say of a file that is no such object.

    Raises:
        InputError: It was written by another version, or is damaged.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = raw.get("schema")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8: {damaged}") from None
    except (ValueError, RecursionError, AttributeError):
        raise InputError(f"{path}: {damaged}") from None
    if found != schema:
        raise InputError(
            f"{path}: written as {found!r}, this Letheon reads {schema!r}; "
            "use the version that wrote the run, or start a new run folder"
        )
    return dict(raw)


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` once the block has written it whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, for several processes may write the same file.
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically (temporary file, then rename)."""
    with _replacing(path) as stream:
        stream.write(text)


def write_jsonl(path: Path, records: Iterable[BaseModel]) -> None:
    """Write one JSON object a line, atomically; fields that are None are left out."""
    with _replacing(path) as stream:
        stream.writelines(record.model_dump_json(exclude_none=True) + "\n" for record in records)


def mend_end(path: Path) -> None:
    """Cut a torn last line off a JSON Lines file, lest the next one run on; to a whole one, add its end.

    There may be no file.
    """
    text = path.read_bytes() if path.is_file() else b""
    start = text.rfind(b"\n") + 1
    if start == len(text):
        return
    with path.open("r+b") as file:
        try:
            json.loads(text[start:])
        except ValueError:
            file.truncate(start)
        else:
            file.seek(0, os.SEEK_END)
            file.write(b"\n")


def stream_verdicts(path: Path) -> Iterator[Verdict]:
    """The verdicts of `verdicts.jsonl`, which a person may have edited, one at a time.

    Of the turns' names their hashes are kept, some hundred bytes each.

    Raises:
        InputError: At the end, every line that is no verdict, or the second one on its turn.
    """
    faults = []
    line_of: dict[int, int] = {}
    # A line ends at "\n" alone: JSON allows U+2028 and its like inside strings.
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                verdict = Verdict.model_validate_json(line.decode())
            except (ValidationError, UnicodeDecodeError) as error:
                fault = first_fault(error) if isinstance(error, ValidationError) else "not UTF-8"
                faults.append(f"{path}:{number}: {fault}; mend the line, or run 'letheon screen' again")
                continue
            first = line_of.setdefault(hash((verdict.id, verdict.turn)), number)
            if first == number:
                yield verdict
                continue
            faults.append(
                f"{path}:{number}: turn {verdict.turn} of {verdict.id!r} has a verdict on line {first} already; "
                "keep one of them"
            )
    if faults:
        raise InputError(faults)


def read_verdicts(path: Path) -> list[Verdict]:
    """Read `verdicts.jsonl` whole.

    Raises:
        InputError: As `stream_verdicts`.
    """
    return list(stream_verdicts(path))


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with a record, as "field: message"; quotes no value."""
    fault = error.errors(include_input=False)[0]
    place = ".".join(str(part) for part in fault["loc"])
    return f"{place}: {fault['msg']}" if place else str(fault["msg"])
