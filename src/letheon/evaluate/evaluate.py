"""Measure one model on the data sets of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from letheon.chat import check_tokenizer
from letheon.evaluate.look import Plain, look_at
from letheon.evaluate.memorisation import (
    exact_memorization,
    extraction_strength,
    extraction_strength_published,
    probability,
)
from letheon.evaluate.reduce import reduce_scores
from letheon.evaluate.teacher_forced import TokenScores
from letheon.evaluate.text import distinct_2, repetition, rouge_l
from letheon.evaluate.undesired import JudgeTurns, judge_answers
from letheon.models import Model, Tokenizer, in_eval_mode
from letheon.records import Metric, ModelMetrics, NotComputed, Record, SetMetrics, Turn
from letheon.split import spread

TEACHER_FORCED = ("probability", "loss", "exact_memorization", "extraction_strength", "extraction_strength_published")
GREEDY = ("rouge_l", "rouge_l_f1", "repetition", "distinct_2")
TOP_K = 64
"""Tokens of the model before that KL is measured on."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) after each batch; the stages are "score" and "answer"."""


@dataclass(frozen=True)
class EvalSets:
    """What a model is measured on; any may be empty."""

    forget: Sequence[Turn] = ()
    paraphrase: Sequence[Turn] = ()
    normal_trained: Sequence[Turn] = ()
    normal_held_out: Sequence[Turn] = ()
    general: Sequence[str] = ()

    def turns(self) -> dict[str, Sequence[Turn]]:
        """The sets that consist of turns."""
        return {
            "forget": self.forget,
            "paraphrase": self.paraphrase,
            "normal_trained": self.normal_trained,
            "normal_held_out": self.normal_held_out,
        }


class SampleKey(NamedTuple):
    """Which sample: its set, its dialogue's id (a text's number), and the index of the answer in its messages."""

    set: str
    id: str
    turn: int


class Sample(Record):
    """Scores of one sample, without any text: a line of samples.jsonl."""

    set: str
    id: str
    turn: int
    scores: dict[str, float]


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a model.

    Attributes:
        metrics: Set → metric → mean, standard error and n, or why it was not computed.
        samples: The scores behind them.
        answers: The greedy answers, where the model was asked.
        judges: The judges behind undesired_rate.
        tokens: Token scores, which make this evaluation a reference for another's KL.
    """

    metrics: ModelMetrics
    samples: list[Sample]
    answers: dict[SampleKey, str]
    judges: list[str] = field(default_factory=list)
    tokens: dict[SampleKey, TokenScores] = field(default_factory=dict, repr=False)


def evaluate_model(
    model: Model,
    tokenizer: Tokenizer,
    sets: EvalSets,
    *,
    judge: JudgeTurns | None = None,
    reference: Evaluation | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 48,
    normal_answers: int = 24,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model: one pass over the given answers, one greedy answer to each prompt.

    Args:
        model: A causal language model, plain or with an adapter; its training mode is left as it was.
        tokenizer: Its tokenizer, with a chat template.
        sets: What to measure it on.
        judge: Judges the greedy answers; None: undesired_rate is not computed.
        reference: The evaluation of the model before unlearning on the same sets; None: kl is not computed.
        batch_size: Sequences at once.
        max_new_tokens: Length of the greedy answers.
        normal_answers: Most normal prompts that are answered; they are spread evenly over both normal sets.
        progress: See `Progress`.

    Raises:
        InputError: The tokenizer has no chat template, or a dialogue does not fit the model's context.
    """
    check_tokenizer(tokenizer)
    turns = {SampleKey(name, t.dialogue.id, t.index): t for name, ts in sets.turns().items() for t in ts}
    texts = {SampleKey("general", str(number), 0): text for number, text in enumerate(sets.general)}
    given = turns | {key: Plain("", text) for key, text in texts.items()}
    asked = [key for key in turns if key.set in ("forget", "paraphrase")]
    asked += spread([key for key in turns if key not in asked], normal_answers)
    with in_eval_mode(model):
        scored, written = look_at(
            model,
            tokenizer,
            list(given.values()),
            [turns[key] for key in asked],
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
            top_k=TOP_K if reference is None else 0,
            reference=[reference.tokens.get(key) for key in given] if reference is not None else None,
            scored=_counter(progress, "score", len(given)),
            answered=_counter(progress, "answer", len(asked)),
        )
    tokens = dict(zip(given, scored, strict=True))
    answers = dict(zip(asked, written, strict=True))
    scores = {key: given_scores(t) if key in turns else {"loss": t.loss} for key, t in tokens.items()}
    for key, answer in answers.items():
        scores[key] |= written_scores(answer, turns[key].answer)
    judges: list[str] = []
    if judge is not None:
        undesired, judges = judge_answers([turns[key] for key in answers], list(answers.values()), judge)
        for key, score in zip(answers, undesired, strict=True):
            scores[key]["undesired_rate"] = score
    samples = [Sample(set=key.set, id=key.id, turn=key.turn, scores=found) for key, found in scores.items()]
    metrics = {name: _reduce(_of_set(scores, name), _missing(name, judge, reference)) for name in sets.turns()}
    metrics["general"] = _reduce(_of_set(scores, "general"), {"loss": "no general text was given"})
    return Evaluation(metrics, samples, answers, judges, tokens)


def given_scores(tokens: TokenScores) -> dict[str, float]:
    """Scores of a given answer, by `TEACHER_FORCED`; and KL where there is a reference."""
    scores = {
        "probability": probability(tokens.log_probs),
        "loss": tokens.loss,
        "exact_memorization": exact_memorization(tokens.content),
        "extraction_strength": extraction_strength(tokens.content),
        "extraction_strength_published": extraction_strength_published(tokens.content),
    }
    return scores if tokens.kl is None else scores | {"kl": float(tokens.kl.double().mean())}


def written_scores(answer: str, reference: str) -> dict[str, float]:
    """Scores of an answer that a model has written, by `GREEDY`."""
    recall, f1 = rouge_l(answer, reference)
    return {
        "rouge_l": recall,
        "rouge_l_f1": f1,
        "repetition": repetition(answer),
        "distinct_2": distinct_2(answer),
    }


def _missing(name: str, judge: JudgeTurns | None, reference: Evaluation | None) -> dict[str, str]:
    """Every metric of a set of turns, with the reason it has where no sample has a score."""
    empty = f"there are no {name.replace('_', ' ')} dialogues"
    reasons = dict.fromkeys(TEACHER_FORCED, empty)
    reasons |= dict.fromkeys(GREEDY, f"{empty}, or none was answered")
    reasons["undesired_rate"] = "no judge was given" if judge is None else f"{empty}, or none was answered"
    reasons["kl"] = (
        "no evaluation of the model before was given" if reference is None else f"{empty} that it measured as well"
    )
    return reasons


def _of_set(scores: Mapping[SampleKey, dict[str, float]], name: str) -> list[dict[str, float]]:
    return [found for key, found in scores.items() if key.set == name]


def _reduce(scores: Iterable[Mapping[str, float]], missing: Mapping[str, str]) -> SetMetrics:
    """Reduce each metric over the samples that have it; those that no sample has say why."""
    found: dict[str, list[float]] = {name: [] for name in missing}
    for sample in scores:
        for name, score in sample.items():
            found[name].append(score)
    metrics: dict[str, Metric] = {}
    for name, values in found.items():
        metrics[name] = reduce_scores(values) if values else NotComputed(not_computed=missing[name])
    return metrics


def _counter(progress: Progress | None, stage: str, total: int) -> Callable[[int], None] | None:
    """Turn counts of a batch into counts so far."""
    if progress is None:
        return None
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    return count
