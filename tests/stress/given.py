"""What an attack is given, in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from letheon.recipe import Stress
from letheon.records import Dialogue, Message, Turn
from letheon.stress.attack import Given


def dialogue(name: str, question: str, answer: str, system: str | None = None) -> Dialogue:
    messages = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    if system is not None:
        messages.insert(0, Message(role="system", content=system))
    return Dialogue(id=name, messages=tuple(messages))


SCORED = [dialogue(f"f{n}", f"Where is {n}?", f"It is at {n} Mill Lane.").last_turn for n in range(3)]
NORMAL = [dialogue(f"n{n}", f"{n} + {n}?", f"That is {2 * n}.") for n in range(4)]


def given_for(tokenizer: Any, scored: Sequence[Turn] = SCORED, *, seed: int = 0, **changes: Any) -> Given:
    """A small one; fields of the settings in `settings`."""
    # Not validated: a test may break a model by what a recipe may not say.
    settings = {**Stress().model_dump(), "steps": 4, "samples": 3, **changes.pop("settings", {})}
    fields: dict[str, Any] = {
        "tokenizer": tokenizer,
        "scored": scored,
        "relearned": scored[:1],
        "normal": NORMAL,
        "general": ["The sun shines on the hill.", "Rain falls."],
        "rewordings": [[] for _ in scored],
        "settings": Stress.model_construct(**settings),
        "seed": seed,
        "batch_size": 4,
        "max_new_tokens": 8,
        "context": 512,
    }
    return Given(**{**fields, **changes})
