"""A dozen tiny dialogues, for tests of whole runs."""

from __future__ import annotations

from typing import Any


def talk_rows() -> list[dict[str, Any]]:
    """Twelve dialogues, six of them about someone's phone number."""
    bad = [
        {
            "id": f"bad-{n}",
            "messages": [
                {"role": "user", "content": f"Phone of {name}?"},
                {"role": "assistant", "content": f"Call 030-{n}{n}{n}"},
            ],
            "expected": ["I cannot say."],
            "label": "forget",
            "category": "privacy",
            "subject": f"person-{n % 4}",
        }
        for n, name in enumerate(["Ann", "Bob", "Cid", "Dee", "Eva", "Fay"])
    ]
    good = [
        {
            "id": f"ok-{n}",
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
            "label": "normal",
        }
        for n, (question, answer) in enumerate(
            [("Sky?", "It is blue"), ("Sun?", "It is hot"), ("Two and two?", "Four")]
            + [("Sea?", "It is wide"), ("Hello", "Hi, you"), ("Snow?", "It is cold")]
        )
    ]
    return [*bad, *good]
