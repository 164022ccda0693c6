"""Other ways to ask for the same answer: templates around a question, from `rephrasings.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

from letheon.chat import Encoded, encode_reply
from letheon.models import Tokenizer
from letheon.records import Message, Turn


@dataclass(frozen=True)
class Template:
    """A way to ask.

    Attributes:
        question: With {question}, and {answer} for the first words of the answer.
        system: In place of the system message; None leaves that as it is.
        before: What user and assistant have said in turn, before the question.
        begin: How the answer is made to begin.
    """

    question: str
    system: str | None = None
    before: tuple[str, ...] = ()
    begin: str = ""

    def prompt(self, turn: Turn) -> tuple[Message, ...]:
        """The prompt of a turn, asked in this way: its last user message, and what comes before that.

        An answer to nothing, such as a greeting, is asked for by the template around an empty question.
        """
        asks = bool(turn.prompt) and turn.prompt[-1].role == "user"
        earlier, question = (turn.prompt[:-1], turn.question) if asks else (turn.prompt, "")
        system = [message for message in earlier if message.role == "system"]
        if self.system is not None:
            system = [Message(role="system", content=self.system)]
        said = [m for m in earlier if m.role != "system"]
        for number, text in enumerate(self.before):
            said.append(Message(role="assistant" if number % 2 else "user", content=text))
        words = turn.answer.split()
        # Replaced one by one: a question may hold braces of its own.
        asked = self.question.replace("{answer}", " ".join(words[: max(1, len(words) // 4)]))
        asked = asked.replace("{question}", question)
        return (*system, *said, Message(role="user", content=asked))

    def encode(self, tokenizer: Tokenizer, turn: Turn, max_length: int | None, reply: str | None = None) -> Encoded:
        """A turn asked in this way, with a reply (the old answer by default) of which the beginning is not marked."""
        answer = turn.answer if reply is None else reply
        return encode_reply(tokenizer, self.prompt(turn), answer, max_length, truncate=True, begin=self.begin)


@cache
def templates(use: Literal["stress", "train"]) -> Mapping[str, Sequence[Template]]:
    """The templates by kind: those that are attacked with, or those that robust mode trains against."""
    raw: Any = yaml.safe_load((files("letheon") / "rephrasings.yaml").read_text(encoding="utf-8"))
    return {
        kind: tuple(Template(**{**fields, "before": tuple(fields.get("before", ()))}) for fields in listed)
        for kind, listed in raw[use].items()
    }
