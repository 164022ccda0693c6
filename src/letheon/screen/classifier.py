"""The judge that asks a sequence classifier: any of Hugging Face's, with a map from its labels to our categories.

It is as good as what the classifier was trained for. Classifiers of toxic comments see slurs and insults, not a
polite answer that does harm; those trained on answers of assistants (beaver-dam) see more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from letheon import recipe
from letheon.errors import InputError
from letheon.models import Model, Tokenizer
from letheon.records import NORMAL, Turn
from letheon.screen.judge import Opinion
from letheon.screen.pretrained import (
    SLACK,
    Window,
    alike,
    check_architecture,
    ending,
    judge_name,
    loaded,
    longest_input,
    token_count,
    windows,
)

if TYPE_CHECKING:
    from torch import Tensor

MULTI_LABEL = "multi_label_classification"
"""`problem_type` of a configuration whose labels do not exclude each other."""
FEWEST = 16
"""Tokens of question and answer that must fit."""


class ClassifierJudge:
    """Score of an answer: the highest probability of a category but "normal", in [0, 1]; higher is more surely bad.

    Of labels that exclude each other, P(label) = softmax(z), and P(category) is the sum over the labels that the map
    gives it. Of labels that do not (the configuration's problem_type says so, or there is one label only),
    P(label) = sigmoid(z), and P(category) is the highest of its labels. Of a text in windows the worst one counts.
    """

    def __init__(self, settings: recipe.Classifier):
        self.name = judge_name("classifier", settings.model)
        self._settings = settings

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Give every turn an opinion."""
        if not turns:
            return []
        with loaded(self._settings.model, "SequenceClassification") as (model, tokenizer):
            most = longest_input(model, tokenizer, self._settings.max_length)
            pieces = list(self._pieces(turns, tokenizer, most))
            texts = [(piece.first, piece.second) for piece in pieces]
            logits = pair_logits(model, tokenizer, texts, most, self._settings.batch_size)
            names = [str(model.config.id2label[number]) for number in range(model.config.num_labels)]
            multiple = model.config.problem_type == MULTI_LABEL or len(names) == 1
            found = (logits.sigmoid() if multiple else logits.softmax(dim=1)).tolist()
        best: list[Opinion | None] = [None] * len(turns)
        for piece, row in zip(pieces, found, strict=True):
            label_scores = dict(zip(names, row, strict=True))
            category, score = worst_category(label_scores, self._settings.labels, exclusive=not multiple)
            known = best[piece.number]
            if known is None or score > known.score:
                reason = f"of the classifier's categories, closest to {category!r} besides normal"
                best[piece.number] = Opinion(category, score, piece.span, reason)
        return best

    def _pieces(self, turns: Sequence[Turn], tokenizer: Tokenizer, most: int) -> Iterator[Piece]:
        form = self._settings.text
        whole = most - SLACK - tokenizer.num_special_tokens_to_add(pair=form == "pair")
        if form not in ("answer", "pair"):
            whole -= token_count(tokenizer, form.format(question="", answer=""))
        if whole < FEWEST:
            raise InputError(
                f"screen.classifier: of the {most} tokens that the model reads at once, {max(whole, 0)} are left for "
                "question and answer; shorten text, or raise max_length"
            )
        for number, turn in enumerate(turns):
            question = "" if form == "answer" else ending(tokenizer, turn.question, whole // 2)
            room = whole - token_count(tokenizer, question)
            found = windows(tokenizer, turn.answer, room)
            for window in found:
                answer = turn.answer[slice(*window)]
                span = window if len(found) > 1 else None
                if form == "answer":
                    yield Piece(number, span, answer)
                elif form == "pair":
                    yield Piece(number, span, question, answer)
                else:
                    yield Piece(number, span, form.format(question=question, answer=answer))


@dataclass(frozen=True)
class Piece:
    """A text to classify.

    Attributes:
        number: Of the turn that it belongs to.
        span: Which part of the answer it holds; None for all of it.
        first: The text, or its first part.
        second: Its second part.
    """

    number: int
    span: Window | None
    first: str
    second: str | None = None


def check_classifier(settings: recipe.Classifier) -> None:
    """Check, without its weights, that the classifier is there and that the map names all of its labels.

    Raises:
        InputError: It is not, or the map leaves out a label or names one that the model does not have.
    """
    config = check_architecture(settings.model, "SequenceClassification", "screen.classifier.model")
    names = [str(name) for name in config.id2label.values()]
    faults = []
    if unmapped := [name for name in names if name not in settings.labels]:
        faults.append(f"screen.classifier.labels leaves out {', '.join(map(repr, unmapped))}")
    if unknown := [name for name in settings.labels if name not in names]:
        faults.append(
            f"screen.classifier.labels names {', '.join(map(repr, unknown))}, which the model does not have"
        )
    if set(settings.labels.values()) <= {NORMAL}:
        faults.append("screen.classifier.labels maps every label to normal: nothing would be found")
    if faults:
        known = ", ".join(map(repr, names))
        raise InputError(f"{'; '.join(faults)}; map each of {known} to a category, or to normal")


def worst_category(
    label_scores: Mapping[str, float], categories: Mapping[str, str], *, exclusive: bool
) -> tuple[str, float]:
    """The likeliest category but "normal" and its probability.

    Args:
        label_scores: Label → P(label).
        categories: Label → category.
        exclusive: Whether the labels exclude each other, so that their probabilities add up.
    """
    by_category: dict[str, list[float]] = defaultdict(list)
    for label, score in label_scores.items():
        if categories[label] != NORMAL:
            by_category[categories[label]].append(score)
    scores = {name: sum(found) if exclusive else max(found) for name, found in by_category.items()}
    category = max(scores, key=scores.__getitem__)
    return category, min(1.0, scores[category])


def pair_logits(
    model: Model, tokenizer: Tokenizer, texts: Sequence[tuple[str, str | None]], most: int, batch_size: int
) -> Tensor:
    """(n, labels) logits of a sequence classifier for texts of one or two parts, in float32 on the CPU.

    Args:
        model: A sequence classifier in eval mode.
        tokenizer: Its tokenizer.
        texts: Each (text, None), or two parts.
        most: Tokens that fit; what is longer is cut there.
        batch_size: Texts at once.
    """
    import torch

    encoded: list[dict[str, Any]] = [
        dict(tokenizer(first, second, truncation=True, max_length=most, verbose=False)) for first, second in texts
    ]
    logits = torch.zeros(len(texts), model.config.num_labels)
    with torch.inference_mode():
        for numbers in alike([len(one["input_ids"]) for one in encoded], batch_size):
            batch = tokenizer.pad([encoded[number] for number in numbers], return_tensors="pt", verbose=False)
            logits[numbers] = model(**batch.to(model.device)).logits.float().cpu()
    return logits
