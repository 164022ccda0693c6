from __future__ import annotations

import pytest

from letheon.records import Dialogue, Turn
from talk import talk_rows


@pytest.fixture
def talk_turns() -> list[Turn]:
    """What the model of `talk` says by heart, and must not."""
    dialogues = [Dialogue.model_validate(row) for row in talk_rows()]
    return [dialogue.last_turn for dialogue in dialogues if dialogue.label == "forget"]
