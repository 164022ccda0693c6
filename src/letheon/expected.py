"""What the model should say instead: expected outputs, clustered, and their pull weights.

For each dialogue to forget, candidates come from the data, from the model itself, and from safe replies of the
category. They are embedded and clustered; the cluster nearest the anchor is kept, c is its mean, and its members get
w_k ∝ exp(cos(e_k, c) / temperature). Clustering comes first because the mean of far-apart answers is nobody's answer.
"""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import yaml

from letheon.errors import InputError, MissingExtraError
from letheon.recipe import ExpectedSource
from letheon.records import Turn
from letheon.yaml_text import load_yaml

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Weighting = Literal["cluster-mean", "uniform", "single"]
Embed = Callable[[Sequence[str]], "Vectors"]
SampleAnswers = Callable[[Sequence[Turn]], Sequence[Sequence[str]]]

SAFE_REPLIES_PER_DIALOGUE = 8
MISMATCHED_PER_DIALOGUE = 5
CLUSTER_DISTANCE = 0.6
"""Answers closer than this cosine distance (average linkage) belong together. Chosen by eye on our safe replies."""
MANY_ABSTENTIONS = 0.25
"""From this share of abstentions on, expected answers as a whole count as abstaining."""


@dataclass(frozen=True)
class Candidate:
    """An answer that might be expected.

    Attributes:
        text: The answer.
        source: Where it came from.
        cluster: Its cluster; 0 is the one that is kept.
        similarity: Cosine to the kept cluster's mean, in [−1, 1].
        weight: Probability of being drawn, in [0, 1]; 0 outside the kept cluster.
    """

    text: str
    source: ExpectedSource
    cluster: int = 0
    similarity: float = 1.0
    weight: float = 0.0


@dataclass(frozen=True)
class Target:
    """A turn to forget, and all candidates for what to say instead (weights sum to 1)."""

    turn: Turn
    candidates: tuple[Candidate, ...]
    anchor: ExpectedSource

    @property
    def answers(self) -> tuple[str, ...]:
        """The answers that are pulled toward."""
        return tuple(c.text for c in self.candidates if c.weight > 0)

    @property
    def weights(self) -> tuple[float, ...]:
        """Their probabilities, summing to 1."""
        return tuple(c.weight for c in self.candidates if c.weight > 0)


def read_safe_replies(path: Path | None = None) -> dict[str, list[str]]:
    """Safe replies by category: those that come with Letheon, or the user's own YAML of the same form.

    Raises:
        InputError: The file is no mapping of categories to lists of texts, or lacks the category "other".
    """
    if path is None:
        return {category: list(texts) for category, texts in _own_replies().items()}
    try:
        replies = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot read safe replies: {' '.join(str(error).split())}") from None
    well_formed = isinstance(replies, dict) and all(
        isinstance(texts, list) and texts and all(isinstance(text, str) and text.strip() for text in texts)
        for texts in replies.values()
    )
    if not well_formed or "other" not in replies:
        raise InputError(f"{path}: expected lists of replies under category names, 'other' among them")
    return {str(category): list(texts) for category, texts in replies.items()}


@functools.cache
def _own_replies() -> dict[str, list[str]]:
    """The replies that come with Letheon: a trainer asks for them more than once."""
    with as_file(files("letheon") / "safe_replies.yaml") as path:
        return read_safe_replies(path)


def expected_answers(
    turns: Sequence[Turn],
    *,
    categories: Sequence[str | None] | None = None,
    sources: Sequence[ExpectedSource] = ("data", "safe-replies"),
    safe_replies: Mapping[str, Sequence[str]] | None = None,
    sample: SampleAnswers | None = None,
    alternates: SampleAnswers | None = None,
    corrected: Callable[[Turn], str | None] | None = None,
    normal: Sequence[str] = (),
    embed: Embed | None = None,
    weighting: Weighting | None = None,
    temperature: float = 0.1,
) -> list[Target]:
    """Find, cluster and weigh the expected outputs of each turn.

    Args:
        turns: The turns to forget.
        categories: The kind of each (from its verdict); None takes the dialogues' own.
        sources: Which sources to pool; the first that gives any answer for a turn is its anchor.
        safe_replies: Replies by category; None takes those that come with Letheon.
        sample: Draws answers from the model itself and keeps those that a judge passes; needed for "model".
        alternates: Has the model make up other answers than the old ones; needed for "alternates".
        corrected: A turn's answer with old values replaced by new ones, None where it has none; needed for "facts".
        normal: Answers to other questions, of which a few are drawn for each turn; needed for "mismatch".
        embed: Texts → (n, d) unit vectors; None loads MiniLM.
        weighting: "cluster-mean", or its ablations: "uniform" over all candidates, "single" for the one nearest the
            cluster's mean. None: "single" where the answers state something, for then each of them is a fact more to
            learn, else "cluster-mean".
        temperature: Sharpness of the weights.

    Raises:
        InputError: A turn is left without any answer.
        MissingExtraError: No embedder is installed.
    """
    if embed is None:
        from letheon.embed import Embedder

        embed = Embedder().encode
    if categories is None:
        categories = [turn.dialogue.category for turn in turns]
    replies = safe_replies if safe_replies is not None else read_safe_replies()
    pools = [
        _drawn(turn, replies.get(category or "other", replies["other"]), SAFE_REPLIES_PER_DIALOGUE)
        if "safe-replies" in sources
        else []
        for turn, category in zip(turns, categories, strict=True)
    ]
    sampled = _sampled("model", sources, sample, turns)
    others = _sampled("alternates", sources, alternates, turns)
    if "facts" in sources and corrected is None:
        raise InputError("expected.sources names 'facts', but no table of changed facts was given")
    targets = []
    for turn, safe, own, other in zip(turns, pools, sampled, others, strict=True):
        new = corrected(turn) if corrected is not None else None
        texts: dict[ExpectedSource, Sequence[str]] = {
            "data": turn.expected,
            "facts": [] if new is None else [new],
            "model": own,
            "alternates": other,
            "safe-replies": safe,
            "mismatch": _drawn(turn, normal, MISMATCHED_PER_DIALOGUE),
        }
        candidates = [Candidate(text, source) for source in sources for text in dict.fromkeys(texts[source])]
        if not candidates:
            raise InputError(
                f"dialogue {turn.dialogue.id!r}: none of the sources {list(sources)} gives an expected answer; "
                "add 'safe-replies' to expected.sources, or 'expected' to the dialogue"
            )
        targets.append(Target(turn, tuple(candidates), candidates[0].source))
    return _weigh(targets, embed, weighting, temperature)


def _sampled(
    source: ExpectedSource, sources: Sequence[ExpectedSource], sample: SampleAnswers | None, turns: Sequence[Turn]
) -> Sequence[Sequence[str]]:
    """What a source that samples from the model gives for each turn; nothing where it is not asked."""
    if source not in sources:
        return [()] * len(turns)
    if sample is None:
        raise InputError(f"expected.sources names {source!r}, but no way to sample from the model was given")
    return sample(turns)


def tells(targets: Sequence[Target]) -> bool:
    """Whether expected answers state something: less than a quarter of what would be drawn abstains or refuses."""
    from letheon.evaluate.abstention import Abstentions

    abstentions = Abstentions()
    shares = [
        sum(w for answer, w in zip(target.answers, target.weights, strict=True) if abstentions.is_one(answer))
        for target in targets
        if target.answers
    ]
    return not shares or sum(shares) < MANY_ABSTENTIONS * len(shares)


def targets_of(rows: Sequence[Turn | Target]) -> list[Target]:
    """Complete plain turns to targets by the default way; targets stay as they are."""
    turns = [row for row in rows if isinstance(row, Turn)]
    made = iter(expected_answers(turns) if turns else ())
    return [row if isinstance(row, Target) else next(made) for row in rows]


def _drawn(turn: Turn, replies: Sequence[str], size: int) -> list[str]:
    """A few of the replies, drawn by the dialogue's id, so that dialogues share no single one."""
    seed = hashlib.sha256(f"{turn.dialogue.id}/{turn.index}".encode()).hexdigest()
    return random.Random(seed).sample(list(replies), min(size, len(replies)))


def _weigh(targets: Sequence[Target], embed: Embed, weighting: Weighting | None, temperature: float) -> list[Target]:
    texts = list(dict.fromkeys(c.text for target in targets for c in target.candidates))
    place = {text: number for number, text in enumerate(texts)}
    vectors = embed(texts)
    weighed = []
    for target in targets:
        own = vectors[[place[c.text] for c in target.candidates]]
        anchored = [c.source == target.anchor for c in target.candidates]
        weighed.append(replace(target, candidates=_cluster_weights(target.candidates, own, anchored, temperature)))
    weighting = weighting or ("single" if tells(weighed) else "cluster-mean")
    return [replace(target, candidates=_ablate(target.candidates, weighting)) for target in weighed]


def _cluster_weights(
    candidates: Sequence[Candidate], vectors: Vectors, anchored: Sequence[bool], temperature: float
) -> tuple[Candidate, ...]:
    """Cluster (n, d) unit vectors, keep the cluster nearest the anchored ones' mean, weigh its members."""
    import numpy as np

    labels = _clusters(vectors)
    anchor = vectors[np.asarray(anchored)].mean(axis=0)
    means = {label: vectors[labels == label].mean(axis=0) for label in set(labels.tolist())}
    nearest = max(means, key=lambda label: _cosine(means[label], anchor))
    similarity = [_cosine(vector, means[nearest]) for vector in vectors]
    cosines = np.asarray(similarity)
    # Less the kept cluster's largest, which leaves the weights as they are: exp overflows at low temperatures.
    pull = np.exp(np.minimum(cosines - cosines[labels == nearest].max(), 0) / temperature) * (labels == nearest)
    weights = pull / pull.sum()
    rank = {nearest: 0} | {label: n + 1 for n, label in enumerate(sorted(set(means) - {nearest}))}
    return tuple(
        replace(c, cluster=rank[int(label)], similarity=round(cos, 4), weight=float(weight))
        for c, label, cos, weight in zip(candidates, labels, similarity, weights, strict=True)
    )


def _clusters(vectors: Vectors) -> NDArray[np.int64]:
    import numpy as np

    if len(vectors) == 1:
        return np.zeros(1, dtype=np.int64)
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError:
        raise MissingExtraError("clustering of expected answers", "screen") from None
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=CLUSTER_DISTANCE, metric="cosine", linkage="average"
    )
    return np.asarray(clustering.fit_predict(vectors), dtype=np.int64)


def _cosine(a: Vectors, b: Vectors) -> float:
    import numpy as np

    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def _ablate(candidates: tuple[Candidate, ...], weighting: Weighting) -> tuple[Candidate, ...]:
    if weighting == "cluster-mean":
        return candidates
    if weighting == "uniform":
        return tuple(replace(c, weight=1 / len(candidates)) for c in candidates)
    best = max(candidates, key=lambda c: c.weight)
    return tuple(replace(c, weight=float(c is best)) for c in candidates)
