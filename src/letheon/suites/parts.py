"""What several suites read off a model: memorisation, answers in words, repeated draws, membership."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from letheon.evaluate.auc import auc_interval, priv_leak_interval
from letheon.evaluate.evaluate import given_scores, written_scores
from letheon.evaluate.leak_at_k import expected_best, leak_at_k
from letheon.evaluate.look import Item
from letheon.evaluate.membership import SHARE, loss_score, min_k, min_k_plus_plus, reference_score, zlib_score
from letheon.evaluate.teacher_forced import TokenScores
from letheon.evaluate.text import rouge_l
from letheon.split import spread
from letheon.suites.suite import Findings, Seen

T = TypeVar("T")

ATTACKS = ("loss", "zlib", "reference", "grad_norm", "min_k", "min_k_plus_plus")
PROBED = "membership: "
"""Before the name of a set whose rows are its membership scores."""
MEMBERSHIP = (*(f"{name}_auc" for name in ATTACKS), "privleak")


def thinned(rows: Sequence[T], limit: int | None) -> list[T]:
    """At most so many rows, evenly spaced."""
    return list(rows) if limit is None else spread(rows, limit)


def grouped(flat: Sequence[T], sizes: Iterable[int]) -> list[list[T]]:
    """Cut what stands in one line into groups of these sizes."""
    rest = iter(flat)
    return [[next(rest) for _ in range(size)] for size in sizes]


def answered(scores: Sequence[TokenScores], answers: Sequence[str], items: Sequence[Item]) -> list[dict[str, float]]:
    """How well the given answers are known, and how near the model's own come to them."""
    return [
        given_scores(tokens) | written_scores(answer, item.answer)
        for tokens, answer, item in zip(scores, answers, items, strict=True)
    ]


def add_draws(findings: Findings, name: str, seen: Seen, items: Sequence[Item], samples: int) -> None:
    """leak@1, leak@k and the best ROUGE-L recall of k answers, from as many drawn to each item."""
    if not samples:
        findings.lacks(name, ["leak_at_k", "rouge_l_best_of_k"], "no answers were drawn (--samples 0)")
        return
    rows = []
    for item, answers in zip(items, seen.drawn[name], strict=True):
        recalls = [rouge_l(answer, item.answer)[0] for answer in answers]
        leaks = {f"leak_at_{k}": leak_at_k(recalls, k) for k in dict.fromkeys((1, samples))}
        rows.append(leaks | {f"rouge_l_best_of_{samples}": expected_best(recalls, samples)})
    findings.add(name, rows)


def add_membership(
    findings: Findings, seen: Seen, control: Seen | str, members: tuple[str, str], items: Sequence[Sequence[Item]]
) -> None:
    """AUCs of six attacks on two sets, and PrivLeak by Min-K% against the control's.

    Args:
        findings: Where to; under the set "membership".
        seen: What the model did.
        control: What the control did, or why there is none.
        members: Names of what was to be forgotten, and of what was never seen.
        items: Their items.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in ATTACKS}
    floor: list[list[float]] = []
    for name, own in zip(members, items, strict=True):
        rows = [_attacks(item, tokens) for item, tokens in zip(own, seen.scores[name], strict=True)]
        for row, norm in zip(rows, seen.norms[name], strict=True):
            row["grad_norm"] = norm
        if isinstance(control, Seen):
            theirs = control.scores[name]
            floor.append([min_k(tokens.log_probs) for tokens in theirs])
            for row, tokens, reference in zip(rows, seen.scores[name], theirs, strict=True):
                row["reference"] = reference_score(tokens.log_probs, reference.log_probs)
        findings.rows[f"{PROBED}{name}"] = rows
        for attack in found:
            found[attack].append([row[attack] for row in rows if attack in row])
    for attack, groups in found.items():
        findings.set("membership", f"{attack}_auc", auc_interval(groups[0], groups[1]))
    if isinstance(control, str):
        findings.lacks("membership", ["reference_auc", "privleak"], control)
    else:
        own_scores, their_scores = ((pair[0], pair[1]) for pair in (found["min_k"], floor))
        findings.set("membership", "privleak", priv_leak_interval(own_scores, their_scores))


def _attacks(item: Item, tokens: TokenScores) -> dict[str, float]:
    assert tokens.standardised is not None
    return {
        "loss": loss_score(tokens.log_probs),
        "zlib": zlib_score(tokens.log_probs, item.answer),
        "min_k": min_k(tokens.log_probs, SHARE),
        "min_k_plus_plus": min_k_plus_plus(tokens.standardised, SHARE),
    }
