"""The evaluative model: which answers need unlearning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from letheon import recipe
from letheon.chat import check_tokenizer
from letheon.console import OnProgress
from letheon.dialogues import read_dialogues
from letheon.embed import Embedder
from letheon.errors import InputError
from letheon.models import load_tokenizer, same_weights
from letheon.records import Dialogue, Turn, Verdict
from letheon.screen.api import ApiJudge, check_api
from letheon.screen.classifier import ClassifierJudge, check_classifier
from letheon.screen.consistency import ConsistencyJudge
from letheon.screen.contradiction import ContradictionJudge
from letheon.screen.embedding import FEWEST, EmbeddingJudge, everyday
from letheon.screen.guard import GuardJudge, check_guard
from letheon.screen.judge import Judge, Opinion
from letheon.screen.labels import LabelsJudge
from letheon.screen.outdated import OutdatedJudge, read_changed_facts
from letheon.screen.pair import PairJudge, check_pair
from letheon.screen.privacy import PrivacyJudge, find_names
from letheon.screen.rules import RulesJudge, read_rules
from letheon.screen.screen import score_screening, screen, screen_turns
from letheon.screen.screener import Screener
from letheon.text_file import read_text

__all__ = [
    "Judge",
    "Opinion",
    "Screener",
    "build_judges",
    "build_screener",
    "check_judges",
    "judge_from",
    "score_screening",
    "screen",
]


def build_judges(
    settings: recipe.Screen,
    embedder: Embedder | None = None,
    seed: int = 0,
    *,
    model: str | None = None,
    scores: Path | None = None,
    progress: OnProgress | None = None,
) -> list[Judge]:
    """Make the judges that a recipe names, in its order; the embedding judge is fitted here.

    Args:
        settings: The recipe's `screen` section.
        embedder: Shared by the judges; a new one where there is none.
        seed: Of the embedding judge's folds, and of the consistency judge's draws.
        model: The model under treatment, which the consistency judge asks by default and no other may.
        scores: Where the api judge keeps what it has been answered, until the stage has finished.
        progress: Told how far `screen.fine_tune` is.

    Raises:
        InputError: The examples, the knowledge text or a judge's model cannot be used.
        MissingExtraError: A judge needs a part that is not installed.
    """
    check_judges(settings, model)
    shared = embedder or Embedder()
    # A judge that is named has its section: the recipe has seen to it.
    part: Any = settings
    make: dict[recipe.JudgeName, Callable[[], Judge]] = {
        "labels": LabelsJudge,
        "embedding": lambda: _embedding_judge(settings, shared, seed, progress),
        "privacy": lambda: PrivacyJudge(find_names(settings.ner)),
        "contradiction": lambda: ContradictionJudge(shared, _knowledge(settings.knowledge)),
        "rules": lambda: RulesJudge(read_rules(_needed(settings.rules, "rules"))),
        "outdated": lambda: OutdatedJudge(read_changed_facts(_needed(settings.changed_facts, "changed_facts"))),
        "classifier": lambda: ClassifierJudge(part.classifier),
        "guard": lambda: GuardJudge(part.guard),
        "pair": lambda: PairJudge(part.pair, shared, _knowledge(settings.knowledge)),
        "api": lambda: ApiJudge(part.api, scores),
        "consistency": lambda: ConsistencyJudge(settings.consistency, shared, asked_again(settings, model), seed),
    }
    if not settings.judges:
        raise InputError(f"screen.judges is empty; name at least one of {', '.join(make)}")
    return [make[name]() for name in settings.judges]


def build_screener(
    settings: recipe.Screen,
    embedder: Embedder | None = None,
    seed: int = 0,
    *,
    model: str | None = None,
    scores: Path | None = None,
    progress: OnProgress | None = None,
) -> Screener:
    """Make the judges that a recipe names, and all that is fitted on its examples: how they combine, thresholds.

    Args:
        settings: The recipe's `screen` section.
        embedder: As for `build_judges`.
        seed: Of folds, draws and bootstrap.
        model: As for `build_judges`.
        scores: As for `build_judges`.
        progress: As for `build_judges`.

    Raises:
        InputError: As `build_judges`, or the examples cannot give what is asked of them.
        MissingExtraError: A part is not installed.
    """
    judges = build_judges(settings, embedder, seed, model=model, scores=scores, progress=progress)
    examples = [] if settings.examples is None else read_dialogues(settings.examples)
    return Screener.fit(judges, settings, examples, seed)


def check_judges(settings: recipe.Screen, treated: str | None = None) -> None:
    """Check all that can be known of the named judges' models without their weights.

    Args:
        settings: The recipe's `screen` section.
        treated: The model under treatment. It never judges itself: it thinks well of what it says.

    Raises:
        InputError: Every fault at once: a model that is not there, not of the kind that is needed, or the one under
            treatment; labels that are not mapped; a category without a rubric.
        MissingExtraError: A judge needs a part that is not installed.
    """
    checks: dict[str, Callable[[Any], object]] = {
        "classifier": check_classifier,
        "guard": check_guard,
        "pair": check_pair,
        "api": check_api,
    }
    faults = []
    for name in settings.judges:
        section: Any = getattr(settings, name, None)
        try:
            if name == "consistency":
                check_tokenizer(load_tokenizer(asked_again(settings, treated)))
            elif name in checks:
                if name != "api" and treated is not None and same_weights(section.model, treated):
                    raise InputError(
                        f"screen.{name}.model: {section.model} is the model under treatment, which cannot judge "
                        "itself; name another"
                    )
                checks[name](section)
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)


def asked_again(settings: recipe.Screen, treated: str | None) -> str:
    """The model that the consistency judge asks.

    Raises:
        InputError: There is none.
    """
    model = settings.consistency.model or treated
    if model is None:
        raise InputError("judge 'consistency' needs a model that answers again: set screen.consistency.model")
    return model


def judge_from(labelled: Sequence[Dialogue], seed: int = 0) -> Callable[[list[Turn]], list[Verdict]] | None:
    """A judge of turns by what dialogues with labels teach; None where either label is on fewer than two.

    Args:
        labelled: Dialogues with labels.
        seed: Of the folds.
    """
    count = Counter(dialogue.label for dialogue in labelled)
    if min(count["forget"], count["normal"]) < FEWEST:
        return None
    judge = EmbeddingJudge.fit(labelled, Embedder(), everyday(), seed)
    return lambda turns: screen_turns(turns, [judge])


def _embedding_judge(
    settings: recipe.Screen, embedder: Embedder, seed: int, progress: OnProgress | None
) -> EmbeddingJudge:
    if settings.examples is None:
        return EmbeddingJudge.prior(embedder, seed)
    examples = read_dialogues(settings.examples)
    return EmbeddingJudge.fit(examples, embedder, everyday(), seed, fine_tune=settings.fine_tune, progress=progress)


def _needed(path: Path | None, field: str) -> Path:
    if path is None:
        raise InputError(f"a judge of screen.judges needs its file: set screen.{field}")
    return path


def _knowledge(path: Path | None) -> str:
    if path is None:
        return ""
    text = read_text(path, "screen.knowledge")
    if not text.strip():
        raise InputError(f"{path}: empty (screen.knowledge); put the facts in it, or leave the setting out")
    return text
