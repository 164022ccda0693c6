"""The judge that asks a language model behind an OpenAI-compatible server, with a rubric for each category.

The whole dialogue up to the answer goes to the server: with a server on another machine, it leaves this one. How good
the verdicts are is the model's doing; small ones (below some billions of parameters) judge by chance. Of facts they
know what they were trained on: give acceptable answers for hallucination and outdated where you can.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from letheon import recipe
from letheon.errors import InputError, require_extra
from letheon.records import Turn
from letheon.screen.chat_server import ChatServer, UnansweredError
from letheon.screen.judge import Opinion
from letheon.screen.kept import held
from letheon.screen.progress import tell

GUESS = 0.51
"""The least confidence that a verdict counts with."""
SCHEMA = {
    "type": "object",
    "properties": {"undesired": {"type": "boolean"}, "confidence": {"type": "number"}},
    "required": ["undesired", "confidence"],
    "additionalProperties": False,
}


@cache
def built_in() -> tuple[str, dict[str, str]]:
    """Letheon's instructions to the model, and its rubrics by category."""
    raw = yaml.safe_load(files("letheon.screen").joinpath("rubrics.yaml").read_text(encoding="utf-8"))
    return raw["instructions"], raw["rubrics"]


class ServerVerdict(BaseModel):
    """What the model is to reply."""

    undesired: bool
    confidence: float = Field(ge=0, le=1)

    @property
    def score(self) -> float:
        """In [0, 1]; higher is more surely undesired. The least sure verdict still lies on its own side of ½."""
        sure = max(GUESS, self.confidence)
        return sure if self.undesired else 1 - sure


class ApiJudge:
    """Score of an answer: the highest over the rubrics of the model's confidence that it is undesired, in [0, 1].

    A turn that was not judged by every rubric (the budget is spent, the server did not answer) waits for a person,
    unless one of the others is sure.

    Args:
        settings: The recipe's `screen.api`.
        scores: File in which each score is kept at once, by the hash of what was asked and without any text, so that
            a stage that was cut off goes on from there; None keeps nothing.
    """

    def __init__(self, settings: recipe.Api, scores: Path | None = None):
        self._settings = settings
        self._rubrics = rubrics(settings)
        self._file = scores
        self._instructions = built_in()[0]
        asked = json.dumps([self._instructions, self._rubrics], sort_keys=True)
        self.name = f"api:{settings.model}@{hashlib.sha256(asked.encode()).hexdigest()[:8]}"

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Give every turn an opinion."""
        material = [_material(turn) for turn in turns]
        keys = {(text, category): self._key(text, category) for text in material for category in self._rubrics}
        with held((self, "scores"), lambda: contextlib.nullcontext(_Scores(self._file))) as scores:
            # Texts that occur twice are asked about once.
            open_ = {key: asked for asked, key in keys.items() if key not in scores}
            reasons: dict[str, str] = {}
            if open_:
                with held((self, "server"), lambda: ChatServer(self._settings)) as server:
                    reasons = self._ask_all(server, open_, scores)
            return [self._opinion(text, keys, scores, reasons) for text in material]

    def _ask_all(self, server: ChatServer, open_: dict[str, tuple[str, str]], scores: _Scores) -> dict[str, str]:
        """Ask all questions at once that may be under way; returns why some have no answer."""
        reasons = {}
        with ThreadPoolExecutor(self._settings.concurrency) as pool, _stopping(server, pool):
            futures: dict[Future[None], str] = {
                pool.submit(self._ask, server, text, category, scores, key): key
                for key, (text, category) in open_.items()
            }
            for number, future in enumerate(as_completed(futures), start=1):
                try:
                    future.result()
                except UnansweredError as error:
                    reasons[futures[future]] = str(error)
                tell(number, len(futures))
        return reasons

    def _ask(self, server: ChatServer, text: str, category: str, scores: _Scores, key: str) -> None:
        messages = [
            {"role": "system", "content": self._instructions},
            {"role": "user", "content": f"Rubric: {self._rubrics[category]}\n\nDialogue:\n{text}"},
        ]
        scores.put(key, server.ask(messages, SCHEMA, read_verdict).score)

    def _key(self, text: str, category: str) -> str:
        asked = json.dumps([self._settings.model, self._instructions, self._rubrics[category], text])
        return hashlib.sha256(asked.encode()).hexdigest()

    def _opinion(
        self, text: str, keys: dict[tuple[str, str], str], scores: _Scores, reasons: dict[str, str]
    ) -> Opinion:
        mine = {category: keys[text, category] for category in self._rubrics}
        known = {category: scores[key] for category, key in mine.items() if key in scores}
        category = max(known, key=known.__getitem__, default=next(iter(mine)))
        score = known.get(category, 0.0)
        missing = next((reasons[key] for key in mine.values() if key in reasons), None)
        if missing is not None:
            return Opinion(category, score, reason=missing, unable=True)
        return Opinion(category, score, reason=f"by the rubric of {category!r}")


def check_api(settings: recipe.Api) -> None:
    """Check, without asking the server, that the judge can be made.

    Raises:
        InputError: A category has no rubric.
        MissingExtraError: The HTTP client is not installed.
    """
    require_extra("the judge 'api'", "api")
    rubrics(settings)


def rubrics(settings: recipe.Api) -> dict[str, str]:
    """Category → rubric, with Letheon's own where the recipe leaves them out.

    Raises:
        InputError: There is none of ours for a category.
    """
    ours = built_in()[1]
    found = {category: own or ours.get(category, "") for category, own in settings.rubrics.items()}
    if missing := [category for category, rubric in found.items() if not rubric.strip()]:
        raise InputError(
            f"screen.api.rubrics.{missing[0]}: no rubric of ours for this category ({', '.join(ours)}); "
            "write what counts as it"
        )
    return found


def read_verdict(text: str) -> ServerVerdict:
    """The first JSON object in a text that is a verdict, whatever a model puts around it: fences, thoughts, words.

    Raises:
        ValueError: There is none.
    """
    said = re.sub(r"<think>.*?(</think>|\Z)", "", text, flags=re.DOTALL)
    decoder = json.JSONDecoder()
    for start in (match.start() for match in re.finditer(r"\{", said)):
        with contextlib.suppress(ValueError, ValidationError, RecursionError):
            return ServerVerdict.model_validate(decoder.raw_decode(said, start)[0])
    raise ValueError("no verdict")


def _material(turn: Turn) -> str:
    """The dialogue up to the answer, as JSON: whatever it says stays inside the quotes."""
    held: dict[str, Any] = {
        "before": [{"role": message.role, "content": message.content} for message in turn.prompt],
        "answer": turn.answer,
    }
    if turn.expected:
        held["acceptable"] = list(turn.expected)
    # Half a character, which JSON allows and UTF-8 does not, becomes a question mark.
    return json.dumps(held, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")


@contextlib.contextmanager
def _stopping(server: ChatServer, pool: ThreadPoolExecutor) -> Iterator[None]:
    """Whatever ends the block early (a key, a fault of the server) ends the questions under way, too."""
    try:
        yield
    except BaseException:
        server.stop()
        pool.shutdown(wait=False, cancel_futures=True)
        raise


class _Scores:
    """Scores by the hash of what was asked; each is in the file as soon as it is known."""

    def __init__(self, file: Path | None):
        self._file = file
        self._lock = threading.Lock()
        self._scores: dict[str, float] = {}
        if file is not None and file.is_file():
            for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
                # The last line of a stage that was killed may be a part of one; it is asked for again.
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    row = json.loads(line)
                    self._scores[str(row["key"])] = float(row["score"])

    def __contains__(self, key: str) -> bool:
        return key in self._scores

    def __getitem__(self, key: str) -> float:
        return self._scores[key]

    def put(self, key: str, score: float) -> None:
        with self._lock:
            self._scores[key] = score
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                with self._file.open("a", encoding="utf-8") as stream:
                    stream.write(f"\n{json.dumps({'key': key, 'score': score})}")
