"""The judge that asks a model of premise and hypothesis whether what is known bears an answer out.

It reads what the contradiction judge only counts words of: "after the war" against "before the war". NLI models are
trained on short sentences: an answer that says three things at once is seldom entailed by one acceptable answer, and
an acceptable answer in a word or two ("in 1911") says little without its question, which is why the template puts the
question before both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from letheon import recipe
from letheon.embed import Embedder
from letheon.errors import InputError
from letheon.models import Tokenizer
from letheon.records import Turn
from letheon.screen.classifier import FEWEST, pair_logits
from letheon.screen.judge import Opinion
from letheon.screen.knowledge import Knowledge
from letheon.screen.pretrained import (
    SLACK,
    Window,
    check_architecture,
    ending,
    judge_name,
    loaded,
    longest_input,
    token_count,
    windows,
)


class PairJudge:
    """Score of an answer as hypothesis against known texts as premises, in [0, 1]; higher is more surely made up.

    Against acceptable answers k: 1 − max_k P(entailment | k). They say what is acceptable, so an answer that none of
    them bears out is not: contradiction alone would pass every invention that they do not happen to deny.

    Against the knowledge text: P(contradiction | its three nearest sentences, as one premise). A text says less than
    there is to say, so an answer that goes beyond it need not be wrong, and 1 − P(entailment) would suspect nearly
    all of them. A model that knows no contradiction (one score, such as HHEM's, or entailment and its lack) gives
    1 − P(entailment) here too.

    P = softmax over the model's labels; of a single score z, P(entailment) = sigmoid(z). Of an answer in windows the
    worst counts. No known text: no opinion.
    """

    def __init__(self, settings: recipe.Pair, embedder: Embedder, knowledge: str = ""):
        self.name = judge_name("pair", settings.model)
        self._settings = settings
        self._knowledge = Knowledge(embedder, knowledge)

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Judge the turns that there is something to compare with."""
        known = self._known(turns)
        opinions: list[Opinion | None] = [None] * len(turns)
        if not any(known):
            return opinions
        with loaded(self._settings.model, "SequenceClassification") as (model, tokenizer):
            most = longest_input(model, tokenizer, self._settings.max_length)
            readings = [
                reading
                for number, (turn, texts) in enumerate(zip(turns, known, strict=True))
                for reading in self._readings(number, turn, texts, tokenizer, most)
            ]
            texts = [(premise, reading.hypothesis) for reading in readings for premise in reading.premises]
            logits = pair_logits(model, tokenizer, texts, most, self._settings.batch_size)
            entailment, contradiction = label_numbers(model.config, self._settings.labels)
        found = (logits.sigmoid() if logits.size(1) == 1 else logits.softmax(dim=1)).tolist()
        rows = iter(found)
        for reading in readings:
            mine = [next(rows) for _ in reading.premises]
            borne_out = max(row[entailment] for row in mine)
            if turns[reading.number].expected or contradiction is None:
                score, reason = 1 - borne_out, f"known texts bear it out at {borne_out:.2f}"
            else:
                score = max(row[contradiction] for row in mine)
                reason = f"the knowledge text contradicts it at {score:.2f}"
            best = opinions[reading.number]
            if best is None or score > best.score:
                opinions[reading.number] = Opinion(self._settings.category, score, reading.span, reason)
        return opinions

    def _known(self, turns: Sequence[Turn]) -> list[list[str]]:
        """The texts that each turn is held against: acceptable answers as they are, or one piece of knowledge."""
        known = [list(turn.expected) for turn in turns]
        others = [number for number, turn in enumerate(turns) if not turn.expected]
        for number, near in zip(others, self._knowledge.near([turns[n] for n in others]), strict=True):
            if near is not None:
                known[number] = [" ".join(near.sentences)]
        return known

    def _readings(
        self, number: int, turn: Turn, known: Sequence[str], tokenizer: Tokenizer, most: int
    ) -> Iterator[Reading]:
        """An answer as one hypothesis, or as several if it is long."""
        if not known:
            return
        template = self._settings.template
        whole = most - SLACK - tokenizer.num_special_tokens_to_add(pair=True)
        question = ending(tokenizer, turn.question, whole // 4) if "{question}" in template else ""
        framed = token_count(tokenizer, template.format(question=question, text=""))
        room = whole // 2 - framed
        if room < FEWEST:
            raise InputError(
                f"screen.pair: of the {most} tokens that the model reads at once, {max(room, 0)} are left for the "
                "answer; shorten template, or raise max_length"
            )
        parts = [text[slice(*window)] for text in known for window in windows(tokenizer, text, room)]
        if turn.expected:
            parts = [template.format(question=question, text=part) for part in parts]
        found = windows(tokenizer, turn.answer, room)
        for window in found:
            hypothesis = template.format(question=question, text=turn.answer[slice(*window)])
            yield Reading(number, window if len(found) > 1 else None, hypothesis, tuple(parts))


@dataclass(frozen=True)
class Reading:
    """A hypothesis and its premises.

    Attributes:
        number: Of the turn that it belongs to.
        span: Which part of the answer it holds; None for all of it.
        hypothesis: The answer, in the template.
        premises: What it is held against.
    """

    number: int
    span: Window | None
    hypothesis: str
    premises: tuple[str, ...]


def check_pair(settings: recipe.Pair) -> None:
    """Check, without its weights, that the model is there and says which label is entailment.

    Raises:
        InputError: It is not, or does not.
    """
    label_numbers(check_architecture(settings.model, "SequenceClassification", "screen.pair.model"), settings.labels)


def label_numbers(
    config: Any, labels: Mapping[Literal["entailment", "contradiction"], str]
) -> tuple[int, int | None]:
    """Columns of entailment and contradiction among a model's scores; None where it does not know contradiction.

    Names are compared as a whole, but for capitals: "not_entailment" has "entailment" in it.

    Raises:
        InputError: There is no entailment among several labels, or a label named in the recipe.
    """
    names = [str(config.id2label[number]).lower() for number in range(config.num_labels)]
    if len(names) == 1:
        return 0, None
    wanted = {"entailment": "entailment", "contradiction": "contradiction", **labels}
    place = {role: names.index(name.lower()) if name.lower() in names else None for role, name in wanted.items()}
    missing = [wanted[role] for role in wanted if place[role] is None and (role == "entailment" or role in labels)]
    entailment = place["entailment"]
    if missing or entailment is None:
        raise InputError(
            f"screen.pair: the model has no label {missing[0]!r}, but {', '.join(map(repr, names))}; "
            "say in screen.pair.labels which of them is entailment (and which contradiction)"
        )
    return entailment, place["contradiction"]
