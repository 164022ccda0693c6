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
from letheon.screen.outdated import OutdatedJudge, read_changed_facts
from letheon.screen.privacy import PrivacyJudge, find_names
from letheon.screen.rules import RulesJudge, read_rules
from letheon.screen.screen import score_screening, screen

__all__ = ["Judge", "Opinion", "build_judges", "judge_from", "score_screening", "screen"]


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
        "embedding": lambda: EmbeddingJudge.fit(_examples(settings.examples), shared, everyday(), seed),
        "privacy": lambda: PrivacyJudge(find_names(settings.ner)),
        "contradiction": lambda: ContradictionJudge(shared, _knowledge(settings.knowledge)),
        "rules": lambda: RulesJudge(read_rules(_needed(settings.rules, "rules"))),
        "outdated": lambda: OutdatedJudge(read_changed_facts(_needed(settings.changed_facts, "changed_facts"))),
    }
    if not settings.judges:
        raise InputError(f"screen.judges is empty; name at least one of {', '.join(make)}")
    return [make[name]() for name in settings.judges]


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


def _examples(path: Path | None) -> list[Dialogue]:
    if path is None:
        raise InputError("judge 'embedding' needs labelled dialogues: set screen.examples to their file")
    return read_dialogues(path)


def _needed(path: Path | None, field: str) -> Path:
    if path is None:
        raise InputError(f"a judge of screen.judges needs its file: set screen.{field}")
    return path


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
