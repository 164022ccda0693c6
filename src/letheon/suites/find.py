"""What a suite finds of a model: by its own measure, then by those that suites share."""

from __future__ import annotations

import math
from itertools import chain

from letheon.errors import BrokenModelError
from letheon.evaluate.leak_at_k import drawn_metrics, drawn_scores
from letheon.evaluate.look import Item
from letheon.evaluate.membership import MEMBERSHIP, PROBED, attack_scores, beside_control, membership
from letheon.records import NotComputed, Turn
from letheon.suites.suite import Findings, Seen, Suite


def find(suite: Suite, seen: Seen, control: Seen | str) -> Findings:
    """Read everything off what a model did.

    Args:
        suite: The suite.
        seen: What the model did.
        control: What the control did, or why there is none.
    """
    findings = suite.measure(seen, control)
    for name in suite.drawn:
        _add_draws(findings, suite, seen, name)
    if isinstance(suite.members, str):
        findings.lacks("membership", MEMBERSHIP, suite.members)
    elif suite.members is not None:
        _add_membership(findings, suite, suite.members, seen, control)
    for name in suite.kept:
        if isinstance(seen.kl, str):
            findings.lacks(name, ["kl"], seen.kl)
        else:
            findings.add(name, [{"kl": value} for value in seen.kl[name]])
    if seen.broken:
        for name, found in findings.values.items():
            computed = [metric for metric, value in found.items() if not isinstance(value, NotComputed)]
            findings.lacks(name, computed, str(BrokenModelError()))
        for row in chain.from_iterable(findings.rows.values()):
            row |= dict.fromkeys(row, math.nan)
    return findings


def _add_draws(findings: Findings, suite: Suite, seen: Seen, name: str) -> None:
    """leak@k, from the answers drawn to each item of a set."""
    if name not in seen.drawn:
        findings.lacks(name, drawn_metrics(0), "no answers were drawn (--samples 0)")
        return
    if not all(seen.drawn[name]):
        findings.lacks(name, drawn_metrics(0), str(BrokenModelError()))
        return
    pairs = zip(seen.drawn[name], suite.asked[name], strict=True)
    findings.add(name, [drawn_scores(answers, item.answer) for answers, item in pairs])


def _add_membership(
    findings: Findings, suite: Suite, members: tuple[str, str], seen: Seen, control: Seen | str
) -> None:
    """AUCs of six attacks on two sets, and PrivLeak; and each text's scores."""
    rows = [_attacked(suite, seen, name) for name in members]
    if isinstance(control, str):
        findings.values["membership"] = membership(rows[0], rows[1], control)
    else:
        theirs = [_attacked(suite, control, name) for name in members]
        rows = [beside_control(own, its) for own, its in zip(rows, theirs, strict=True)]
        findings.values["membership"] = membership(rows[0], rows[1], (theirs[0], theirs[1]))
    findings.rows |= {f"{PROBED}{name}": own for name, own in zip(members, rows, strict=True)}


def _attacked(suite: Suite, seen: Seen, name: str) -> list[dict[str, float]]:
    """Of each item of a set its scores by attack."""
    known = zip(seen.scores[name], suite.given[name], seen.norms[name], strict=True)
    return [
        attack_scores(tokens, _scored_text(seen, item, len(tokens.log_probs)), norm) for tokens, item, norm in known
    ]


def _scored_text(seen: Seen, item: Item, scored: int) -> str:
    """The text whose tokens have scores: of a plain one as much as the context had room for."""
    if isinstance(item, Turn) or item.prompt:
        return item.answer
    ids = seen.tokenizer(item.answer, verbose=False).input_ids
    # The first token has none: there is nothing before it.
    kept = ids[: scored + 1]
    return item.answer if len(kept) == len(ids) else str(seen.tokenizer.decode(kept, skip_special_tokens=True))
