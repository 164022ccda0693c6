"""The evaluative model: which answers need unlearning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from letheon import recipe
from letheon.dialogues import read_dialogues
from letheon.embed import Embedder
from letheon.errors import InputError
from letheon.records import Dialogue, Verdict
from letheon.screen.contradiction import ContradictionJudge
from letheon.screen.embedding import FEWEST, EmbeddingJudge, everyday
from letheon.screen.judge import Judge, Opinion
from letheon.screen.labels import LabelsJudge
from letheon.screen.privacy import PrivacyJudge
from letheon.screen.screen import score_screening, screen
from letheon.screen.screener import Screener

__all__ = [
    "Judge",
    "Opinion",
    "Screener",
    "build_judges",
    "build_screener",
    "judge_from",
    "score_screening",
    "screen",
]


def build_judges(settings: recipe.Screen, embedder: Embedder | None = None, seed: int = 0) -> list[Judge]:
    """Make the judges that a recipe names, in its order; the embedding judge is fitted here.

    Args:
        settings: The recipe's `screen` section.
        embedder: Shared by the judges; a new one where there is none.
        seed: Of the embedding judge's folds.

    Raises:
        InputError: The examples or the knowledge text cannot be used.
        MissingExtraError: A judge needs a part that is not installed.
    """
    shared = embedder or Embedder()
    make: dict[recipe.JudgeName, Callable[[], Judge]] = {
        "labels": LabelsJudge,
        "embedding": lambda: (
            EmbeddingJudge.prior(shared, seed)
            if settings.examples is None
            else EmbeddingJudge.fit(read_dialogues(settings.examples), shared, everyday(), seed)
        ),
        "privacy": PrivacyJudge,
        "contradiction": lambda: ContradictionJudge(shared, _knowledge(settings.knowledge)),
    }
    if not settings.judges:
        raise InputError(f"screen.judges is empty; name at least one of {', '.join(make)}")
    return [make[name]() for name in settings.judges]


def build_screener(settings: recipe.Screen, embedder: Embedder | None = None, seed: int = 0) -> Screener:
    """Make the judges that a recipe names, and all that is fitted on its examples: how they combine, thresholds.

    Args:
        settings: The recipe's `screen` section.
        embedder: As for `build_judges`.
        seed: Of folds and bootstrap.

    Raises:
        InputError: As `build_judges`, or the examples cannot give what is asked of them.
        MissingExtraError: A part is not installed.
    """
    judges = build_judges(settings, embedder, seed)
    examples = [] if settings.examples is None else read_dialogues(settings.examples)
    return Screener.fit(judges, settings, examples, seed)


def judge_from(labelled: Sequence[Dialogue], seed: int = 0) -> Callable[[list[Dialogue]], list[Verdict]] | None:
    """A screening by what dialogues with labels teach; None where either label is on fewer than two.

    Args:
        labelled: Dialogues with labels.
        seed: Of the folds.
    """
    count = Counter(dialogue.label for dialogue in labelled)
    if min(count["forget"], count["normal"]) < FEWEST:
        return None
    judge = EmbeddingJudge.fit(labelled, Embedder(), everyday(), seed)
    return lambda dialogues: screen(dialogues, [judge])


def _knowledge(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file (screen.knowledge)") from None
    except (UnicodeDecodeError, OSError):
        raise InputError(f"{path}: not readable as UTF-8 text (screen.knowledge)") from None
    if not text.strip():
        raise InputError(f"{path}: empty (screen.knowledge); put the facts in it, or leave the setting out")
    return text
