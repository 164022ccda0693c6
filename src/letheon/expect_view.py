"""`letheon expect`: which answers each dialogue is pulled toward, and why."""

from __future__ import annotations

from collections import Counter

from letheon.console import Console
from letheon.errors import InputError
from letheon.expected import Target
from letheon.material import expected_of, split_of
from letheon.review.settle import settle_unless_busy
from letheon.run import Run

ANCHORS = {
    "data": "the acceptable answers that the data gives",
    "model": "the model's own answers that the judge passes",
    "alternates": "other answers that the model makes up when asked to",
    "facts": "its own text with the changed facts put right",
    "safe-replies": "the safe replies of its category",
    "mismatch": "answers to other questions",
}


def show_expected(run: Run, console: Console, dialogue: str | None) -> None:
    """Print an overview of all dialogues to forget (no texts), or all candidates of one, with texts.

    Raises:
        InputError: No dialogue to forget has this id.
    """
    run.check()
    settle_unless_busy(run, console)
    data = split_of(run)
    targets: list[Target] = expected_of(run, data)
    if dialogue is None:
        rows = [
            (
                target.turn.dialogue.id,
                category,
                len(target.answers),
                len(target.candidates),
                ", ".join(f"{n} {source}" for source, n in Counter(c.source for c in target.candidates).items()),
            )
            for target, category in zip(targets, data.categories, strict=True)
        ]
        console.table("Expected answers", ["dialogue", "category", "pulled toward", "of", "from"], rows)
        console.say(f"'letheon expect {run.folder} --id {rows[0][0]}' shows the answers of one dialogue")
        return
    found = [target for target in targets if target.turn.dialogue.id == dialogue]
    if not found:
        raise InputError(
            f"--id {dialogue!r}: not among the {len(targets)} dialogues to forget; leave --id out to list them"
        )
    for target in found:
        answers = [
            (
                c.text,
                c.source,
                "kept" if c.cluster == 0 else f"other ({c.cluster})",
                f"{c.similarity:.2f}",
                f"{c.weight:.3f}",
            )
            for c in sorted(target.candidates, key=lambda c: -c.weight)
        ]
        columns = ["answer", "source", "cluster", "cos to mean", "weight"]
        console.table(f"Expected answers of {dialogue}", columns, answers)
        console.say(
            f"kept: the cluster nearest {ANCHORS[target.anchor]}; c is its mean, and an answer's weight (how often "
            f"it is trained on) is ∝ exp(cos(e, c) / {run.recipe.expected.temperature:g}). Clusters of other answers "
            "are left out: the mean of far-apart answers is nobody's answer."
        )
