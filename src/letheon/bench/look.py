"""One look at a model: a pass over given answers and one over prompts, and what every task reads off them."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from letheon.evaluate.abstention import Abstentions
from letheon.evaluate.look import Plain, look_at
from letheon.evaluate.memorisation import probability
from letheon.evaluate.teacher_forced import TokenScores
from letheon.evaluate.text import repetition
from letheon.models import Model, Tokenizer
from letheon.records import Turn

TOGETHER = 64
"""Sequences at once; `letheon.forward.batches` takes fewer where they are long."""


@dataclass(frozen=True)
class Part:
    """What is measured, by name of the set.

    Attributes:
        given: Turns whose answers are scored. Every task has "old", the answers to forget, and "kept", normal ones
            that no loss of unlearning sees.
        asked: Prompts that are answered. Those of "kept" and of "asked" should not be met with an abstention.
        texts: Plain text.
    """

    given: Mapping[str, Sequence[Turn]]
    asked: Mapping[str, Sequence[Turn]]
    texts: Sequence[str] = ()

    def of_old(self, ids: Collection[str]) -> Part:
        """The same, with these of the old answers alone."""
        given, asked = ({**sets} for sets in (self.given, self.asked))
        for sets in (given, asked):
            if "old" in sets:
                sets["old"] = [turn for turn in sets["old"] if turn.dialogue.id in ids]
        return Part(given, asked, self.texts)


@dataclass(frozen=True)
class Seen:
    """What a model did on a part, set by set in the order of its turns."""

    scores: dict[str, list[TokenScores]]
    answers: dict[str, list[str]]
    texts: list[TokenScores] = field(default_factory=list)


def look(model: Model, tokenizer: Tokenizer, parts: Mapping[str, Part], *, answer_tokens: int) -> dict[str, Seen]:
    """Score and ask a model on all parts at once.

    Args:
        model: A causal language model in eval mode.
        tokenizer: Its tokenizer.
        parts: The parts, by name.
        answer_tokens: Length of the greedy answers.
    """
    given = [(name, group, turn) for name, p in parts.items() for group, turns in p.given.items() for turn in turns]
    texts = [(name, text) for name, part in parts.items() for text in part.texts]
    asked = [(name, group, turn) for name, p in parts.items() for group, turns in p.asked.items() for turn in turns]
    scored, answers = look_at(
        model,
        tokenizer,
        [*(turn for _, _, turn in given), *(Plain("", text) for _, text in texts)],
        [turn for _, _, turn in asked],
        batch_size=TOGETHER,
        max_new_tokens=answer_tokens,
    )
    seen = {
        name: Seen({group: [] for group in p.given}, {group: [] for group in p.asked}) for name, p in parts.items()
    }
    for (name, group, _), scores in zip(given, scored, strict=False):
        seen[name].scores[group].append(scores)
    for (name, _), scores in zip(texts, scored[len(given) :], strict=True):
        seen[name].texts.append(scores)
    for (name, group, _), answer in zip(asked, answers, strict=True):
        seen[name].answers[group].append(answer)
    return seen


def memorised(scores: Sequence[TokenScores]) -> dict[str, float]:
    """Mean probability, extraction strength and exact memorisation of answers; see `letheon.evaluate`."""
    return {
        "probability": mean([probability(one.log_probs) for one in scores]),
        "extraction_strength": mean([one.extraction_strength for one in scores]),
        "exact_memorization": mean([one.exact_memorization for one in scores]),
    }


def usual(seen: Seen, abstentions: Abstentions) -> dict[str, float]:
    """The metrics of every task.

    How well the old answers are known, and those to reworded questions where there are any; `kept`, the mean
    probability of the kept answers; `general_loss` in nats a token; `abstentions`, the share of questions to be
    answered that are met with an abstention; `repetition` of 3-grams in those answers.
    """
    found = memorised(seen.scores["old"])
    if "reworded" in seen.scores:
        found |= {f"reworded_{name}": value for name, value in memorised(seen.scores["reworded"]).items()}
    answers = [answer for group in ("kept", "asked") for answer in seen.answers.get(group, [])]
    return found | {
        "kept": memorised(seen.scores["kept"])["probability"],
        "general_loss": mean([one.loss for one in seen.texts]),
        "abstentions": abstentions.share(answers),
        "repetition": mean([repetition(answer) for answer in answers]),
    }


def mean(values: Sequence[float]) -> float:
    """Their mean; NaN of none."""
    return math.fsum(values) / len(values) if values else math.nan
