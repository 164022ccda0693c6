"""Turns for tests of judges."""

from __future__ import annotations

from letheon.records import Dialogue, Turn


def make_turn(question: str, answer: str, *expected: str, name: str = "x") -> Turn:
    """The last turn of a dialogue with one question and one answer."""
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Dialogue.model_validate({"id": name, "messages": messages, "expected": expected}).last_turn
