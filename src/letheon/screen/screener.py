"""A screening ready for use: judges, how they combine, thresholds, and what to expect of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from letheon import recipe
from letheon.errors import InputError
from letheon.records import NORMAL, Dialogue, Interval, Outlook, Turn, Verdict
from letheon.screen.calibrate import Calibrated
from letheon.screen.combine import Combine, Given, Stacked, highest, mean
from letheon.screen.embedding import EmbeddingJudge
from letheon.screen.judge import Judge, Opinion
from letheon.screen.labels import LabelsJudge, kind_of
from letheon.screen.screen import opinions_of, screen_turns
from letheon.screen.thresholds import (
    Bools,
    Floats,
    Thresholds,
    auroc,
    choose_thresholds,
    precision,
    recall,
    with_interval,
)

WEAK = (
    "the embedding judge has no examples of yours, only a few hundred that come with Letheon: a weak prior, no "
    "better than chance on public logs of other kinds; label some dialogues and give them with --fit"
)


@dataclass(frozen=True)
class Screener:
    """Call it with assistant turns for their verdicts.

    Attributes:
        judges: Who looks at every turn.
        combine: Makes one score of their opinions.
        forget_above: Score from which a turn is forgotten.
        normal_below: Score under which it is normal.
        outlook: What to expect, where the embedding judge has learnt from labelled examples.
    """

    judges: Sequence[Judge]
    combine: Combine
    forget_above: float
    normal_below: float
    outlook: Outlook | None = None

    @classmethod
    def fit(
        cls, judges: Sequence[Judge], settings: recipe.Screen, examples: Sequence[Dialogue], seed: int = 0
    ) -> Screener:
        """Fit what is fitted after the judges, on opinions about the examples that were given without their labels.

        Args:
            judges: The embedding judge's opinions are those of its folds; the judge "labels" is left out.
            settings: The recipe's `screen` section.
            examples: Its examples; those with a label count.
            seed: Of the folds and the bootstrap.

        Raises:
            InputError: The examples are too few, or of one label.
        """
        combine: Combine = mean if settings.combine == "mean" else highest
        forget_above, normal_below = settings.forget_above, settings.normal_below
        labelled = [dialogue for dialogue in examples if dialogue.label is not None]
        asking = [judge for judge in judges if not isinstance(judge, LabelsJudge)]
        targets = settings.target_recall, settings.target_precision
        needed = targets != (None, None) or settings.combine == "stacked"
        if needed and not (labelled and asking):
            lacking = "labelled examples, and there are none: name them with screen.examples or --fit"
            if not asking:
                lacking = "a judge that gives scores, and 'labels' gives none: name another in screen.judges"
            raise InputError(f"screen.target_recall, target_precision and combine 'stacked' need {lacking}")
        # A server's answers about examples cost money: only where something is fitted on them.
        if not labelled or not asking or not (needed or "api" not in settings.judges):
            return cls(judges, combine, forget_above, normal_below)
        truth = np.array([dialogue.label == "forget" for dialogue in labelled])
        if truth.all() or not truth.any():
            raise InputError("screen.examples: both labels are needed, forget and normal; add some of the other")
        given = opinions_of((judge.name, _unseen(judge, labelled)) for judge in asking)
        if settings.combine == "stacked":
            names = [judge.name for judge in asking]
            scores = _stacked_scores(names, given, truth, seed)
            combine = Stacked.fit(names, given, truth.tolist())
        else:
            # The embedding judge's is calibrated already.
            raw = [judge.name for judge in asking if not isinstance(judge, EmbeddingJudge)]
            kinds = [kind_of(one) if one.label == "forget" else None for one in labelled]
            combine = Calibrated.fit(combine, raw, given, kinds)
            scores = np.array([combine(own)[1].score if own else 0.5 for own in given])
        chosen = Thresholds(forget_above, normal_below, (forget_above, forget_above))
        if targets != (None, None):
            chosen = choose_thresholds(
                scores.tolist(),
                truth.tolist(),
                target_recall=settings.target_recall,
                target_precision=settings.target_precision,
                seed=seed,
            )
        limit = chosen.forget_above
        outlook = Outlook(
            form=next((judge.form for judge in asking if isinstance(judge, EmbeddingJudge)), "none"),
            examples=dict(Counter(kind_of(d) if d.label == "forget" else NORMAL for d in labelled)),
            auroc=with_interval(auroc, scores, truth, seed),
            precision=with_interval(lambda s, y: precision(s, y, limit), scores, truth, seed),
            recall=with_interval(lambda s, y: recall(s, y, limit), scores, truth, seed),
            forget_above=Interval(estimate=limit, low=chosen.interval[0], high=chosen.interval[1]),
            normal_below=chosen.normal_below,
        )
        return cls(judges, combine, limit, chosen.normal_below, outlook)

    def __call__(self, turns: Sequence[Turn]) -> list[Verdict]:
        """Judge turns."""
        return screen_turns(
            turns,
            self.judges,
            forget_above=self.forget_above,
            normal_below=self.normal_below,
            combine=self.combine,
        )

    def cut(self, turns: Sequence[Turn]) -> int:
        """Of how many turns the embedding judge reads a part alone."""
        return sum(judge.cut(turns) for judge in self.judges if isinstance(judge, EmbeddingJudge))

    def says(self) -> Iterator[str]:
        """What a user should know before relying on it."""
        learnt = [judge for judge in self.judges if isinstance(judge, EmbeddingJudge)]
        if any(not judge.labelled for judge in learnt):
            yield WEAK
        if any(judge.form == "TF-IDF" for judge in learnt):
            yield "no embedder is installed, so words count, not meanings; pip install 'letheon[screen]' is better"
        if any(not judge.apart for judge in learnt):
            yield (
                "the examples of a label ask too few questions to judge each answer without another to its question: "
                "expect less than is said; label answers to more questions"
            )
        if isinstance(self.combine, Calibrated) and self.combine.scales:
            yield f"calibrated on your examples: the scores of {', '.join(sorted(self.combine.scales))}"
            if self.combine.flat:
                flat = ", ".join(sorted(self.combine.flat))
                yield f"no better than chance on your examples, and heard only where no other judge is: {flat}"
        if self.outlook is None:
            return
        examples = ", ".join(f"{n} {category}" for category, n in sorted(self.outlook.examples.items()))
        yield f"fitted on {examples}; to expect on more of their kind, with 95% intervals:"
        yield (
            ", ".join(
                f"{name} {_shown(getattr(self.outlook, field))}"
                for name, field in (("AUROC", "auroc"), ("precision", "precision"), ("recall", "recall"))
            )
            + f" at forget_above {self.forget_above:.3f}, normal_below {self.normal_below:.3f}"
        )


def _unseen(judge: Judge, labelled: Sequence[Dialogue]) -> Sequence[Opinion | None]:
    """Opinions on the labelled answers by a judge that did not learn from them."""
    if isinstance(judge, EmbeddingJudge) and judge.held_out:
        return judge.held_out
    return judge.judge([dialogue.last_turn for dialogue in labelled])


def _stacked_scores(names: Sequence[str], given: Sequence[Sequence[Given]], truth: Bools, seed: int) -> Floats:
    """Scores by regressions that saw other examples."""
    half = np.random.default_rng(seed).permutation(len(truth)) % 2 == 0
    for own in (half, ~half):
        if truth[own].all() or not truth[own].any():
            raise InputError("screen.combine: stacked needs more examples of either label; add some, or use max")
    scores = np.zeros(len(truth))
    for train in (half, ~half):
        seen = [own for own, kept in zip(given, train, strict=True) if kept]
        combine = Stacked.fit(names, seen, truth[train].tolist())
        others = [own for own, kept in zip(given, train, strict=True) if not kept]
        scores[~train] = [combine(own)[1].score if own else 0.5 for own in others]
    return scores


def _shown(interval: Interval | None) -> str:
    return "unknown" if interval is None else f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"
