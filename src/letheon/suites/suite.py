"""What a suite is: what a model is given and asked, and what is read off its answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from letheon.evaluate.look import Item
from letheon.evaluate.reduce import reduce_scores
from letheon.evaluate.teacher_forced import TokenScores
from letheon.models import Tokenizer
from letheon.records import Metric, ModelMetrics, NotComputed

ANSWER_TOKENS = 48
NO_BEFORE = "no model before was given: name it with --before"


@dataclass(frozen=True)
class Seen:
    """What a model did, set by set in the order of the items.

    Attributes:
        tokenizer: Its tokenizer.
        scores: Of given answers.
        answers: Greedy answers.
        drawn: Answers at temperature 1, several to an item; none where the model is broken.
        norms: `gradient_norms` of the suite's members and others.
        kl: `divergences` from the model before, of what is to be kept; or why there are none.
        broken: Whether its logits are not finite: then its answers say nothing.
    """

    tokenizer: Tokenizer
    scores: Mapping[str, Sequence[TokenScores]]
    answers: Mapping[str, Sequence[str]] = field(default_factory=dict)
    drawn: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    norms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    kl: Mapping[str, Sequence[float]] | str = NO_BEFORE
    broken: bool = False


@dataclass
class Findings:
    """What was found of a model.

    Attributes:
        values: The metrics.
        rows: Set → for each item its scores, which the means are of.
        of: Set → what each item is of, where several are of the same and so no news of each other.
    """

    values: ModelMetrics = field(default_factory=dict)
    rows: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    of: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def add(self, name: str, rows: Sequence[Mapping[str, float]], missing: Mapping[str, str] | None = None) -> None:
        """Add scores of a set's items, and their means.

        Args:
            name: The set.
            rows: For each item the scores that it has, beside those it has got already.
            missing: Why a metric that no item has was not computed.
        """
        own = self.rows.setdefault(name, [{} for _ in rows])
        for known, row in zip(own, rows, strict=True):
            known |= row
        of = self.of.get(name, [str(number) for number in range(len(rows))])
        for metric in dict.fromkeys(metric for row in rows for metric in row):
            having = [(row[metric], group) for row, group in zip(rows, of, strict=True) if metric in row]
            self.set(name, metric, reduce_scores([score for score, _ in having], [group for _, group in having]))
        for metric, why in (missing or {}).items():
            if not any(metric in row for row in rows):
                self.set(name, metric, NotComputed(not_computed=why))

    def set(self, name: str, metric: str, value: Metric) -> None:
        """Set a metric that is no mean over a set's items, or why there is none."""
        self.values.setdefault(name, {})[metric] = value

    def lacks(self, name: str, metrics: Iterable[str], why: str) -> None:
        """Say why metrics were not computed."""
        for metric in metrics:
            self.set(name, metric, NotComputed(not_computed=why))

    def column(self, name: str, metric: str) -> list[float]:
        """A metric's scores, of the items that have one."""
        return [row[metric] for row in self.rows.get(name, []) if metric in row]


@dataclass(frozen=True)
class Suite:
    """A suite, read from its files.

    Attributes:
        files: The files.
        measure: From what a model did, and what the control did (or why there is none), to the findings.
        given: By set, items whose answers are scored.
        asked: By set, items that are answered greedily.
        drawn: Names of sets in `asked` to whose items several answers are drawn, if any are.
        members: Names of two sets in `given`, what was trained on and what never was, whose membership is measured;
            or why it is not; None where the suite has nothing to do with it.
        kept: By set, items whose given answers the model is to keep: how far has it moved from the one before?
        tokens: Most tokens of an answer, by set, where they are not `ANSWER_TOKENS`.
        notes: What one should know of the results.
    """

    files: Sequence[Path]
    measure: Callable[[Seen, Seen | str], Findings]
    given: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    asked: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    drawn: Sequence[str] = ()
    members: tuple[str, str] | str | None = None
    kept: Mapping[str, Sequence[Item]] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def probed(self) -> tuple[str, ...]:
        """The sets whose membership is measured."""
        return self.members if isinstance(self.members, tuple) else ()
