"""Measure one model on the data sets of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from letheon.chat import check_tokenizer, encode_turn
from letheon.errors import BrokenModelError, InputError
from letheon.evaluate.abstention import Abstentions
from letheon.evaluate.generation import sampled_answers
from letheon.evaluate.gradient_norm import gradient_norms
from letheon.evaluate.leak_at_k import drawn_metrics, drawn_scores
from letheon.evaluate.leaked_spans import leaked_spans, personal_spans
from letheon.evaluate.look import Plain, look_at
from letheon.evaluate.membership import MEMBERSHIP, PROBED, attack_scores, beside_control, membership
from letheon.evaluate.memorisation import extraction_strength_published, probability
from letheon.evaluate.non_members import pairs_of
from letheon.evaluate.reduce import ratio_of_means, reduce_scores
from letheon.evaluate.teacher_forced import TokenScores
from letheon.evaluate.text import distinct_2, repetition, rouge_l
from letheon.evaluate.undesired import JudgeTurns, judge_answers
from letheon.models import Model, Tokenizer, context_length, in_eval_mode
from letheon.records import Metric, ModelMetrics, NotComputed, Record, SetMetrics, Turn
from letheon.screen.privacy import FindNames, names_by_patterns
from letheon.split import spread

TEACHER_FORCED = ("probability", "loss", "exact_memorization", "extraction_strength", "extraction_strength_published")
GREEDY = ("rouge_l", "rouge_l_f1", "repetition", "distinct_2")
FORGOTTEN, NORMAL = ("forget", "paraphrase"), ("normal_trained", "normal_held_out")
RATIOS = dict.fromkeys(NORMAL, "probability") | {"general": "loss"}
"""What is set beside the model before, by the sets that are to be kept."""
NON_MEMBERS = "non_members"
NO_BEFORE = "no evaluation of the model before was given"
TOP_K = 64
"""Tokens of the model before that KL is measured on."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total) after each batch; the stages are "score", "answer", and where asked for "draw" and
"attack"."""


@dataclass(frozen=True)
class EvalSets:
    """What a model is measured on; any may be empty.

    Attributes:
        forget: Turns that are to be forgotten.
        paraphrase: Reworded questions of them.
        normal_trained: Turns to be kept that training has seen.
        normal_held_out: Others to be kept.
        general: Plain texts.
        non_members: What no model here was trained on; it is only told apart from `forget`.
        reworded: By the id of a dialogue in `paraphrase`, that of the one it rewords. Errors count all that is of one
            dialogue as one; where it is not said, each is taken for news of its own.
    """

    forget: Sequence[Turn] = ()
    paraphrase: Sequence[Turn] = ()
    normal_trained: Sequence[Turn] = ()
    normal_held_out: Sequence[Turn] = ()
    general: Sequence[str] = ()
    non_members: Sequence[Turn] = ()
    reworded: Mapping[str, str] = field(default_factory=dict)

    def turns(self) -> dict[str, Sequence[Turn]]:
        """The sets of turns whose answers are measured."""
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
        attacks: Of what was to be forgotten and of non-members, where such are, the scores of membership attacks.
    """

    metrics: ModelMetrics
    samples: list[Sample]
    answers: dict[SampleKey, str]
    judges: list[str] = field(default_factory=list)
    tokens: dict[SampleKey, TokenScores] = field(default_factory=dict, repr=False)
    attacks: dict[SampleKey, dict[str, float]] = field(default_factory=dict, repr=False)


def evaluate_model(
    model: Model,
    tokenizer: Tokenizer,
    sets: EvalSets,
    *,
    judge: JudgeTurns | None = None,
    find_names: FindNames = names_by_patterns,
    reference: Evaluation | None = None,
    batch_size: int = 16,
    max_new_tokens: int = 48,
    normal_answers: int = 24,
    samples: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model: one pass over the given answers, one greedy answer to each prompt, or several that are drawn.

    Membership is told from forget and non-members; `with_control` sets it beside that of a control.

    Args:
        model: A causal language model, plain or with an adapter; its training mode is left as it was.
        tokenizer: Its tokenizer, with a chat template.
        sets: What to measure it on.
        judge: Judges the greedy answers; None: undesired_rate is not computed.
        find_names: How names are found in what had to be forgotten, for leaked_spans.
        reference: The evaluation of the model before unlearning on the same sets; None: kl and ratios to before are
            not computed.
        batch_size: Sequences at once.
        max_new_tokens: Length of the greedy answers.
        normal_answers: Most normal prompts that are answered; they are spread evenly over both normal sets.
        samples: Answers drawn to each forget prompt at temperature 1, for leak@k; 0: none.
        seed: Of the draws.
        progress: See `Progress`.

    Raises:
        InputError: The tokenizer has no chat template, or a dialogue does not fit the model's context.
    """
    check_tokenizer(tokenizer)
    turns = {SampleKey(name, t.dialogue.id, t.index): t for name, ts in sets.turns().items() for t in ts}
    texts = {SampleKey("general", str(number), 0): text for number, text in enumerate(sets.general)}
    forget = {key: turn for key, turn in turns.items() if key.set == "forget"}
    others = {SampleKey(NON_MEMBERS, t.dialogue.id, t.index): t for t in sets.non_members}
    given = turns | {key: Plain("", text) for key, text in texts.items()} | others
    asked = [key for key in turns if key.set in FORGOTTEN]
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
            standardise=bool(others),
            reference=[reference.tokens.get(key) for key in given] if reference is not None else None,
            scored=_counter(progress, "score", len(given)),
            answered=_counter(progress, "answer", len(asked)),
        )
        drawn: list[list[str]] = [[] for _ in forget]
        not_drawn = "" if samples else "no answers were drawn (samples: 0)"
        try:
            drawn = sampled_answers(
                model,
                tokenizer,
                [turn.prompt for turn in forget.values()],
                samples=samples,
                seed=seed,
                batch_size=batch_size,
                max_new_tokens=max_new_tokens,
                progress=_counter(progress, "draw", samples * len(forget)),
            )
        except BrokenModelError as error:
            not_drawn = str(error)
        probed = forget | others if others else {}
        norms = gradient_norms(
            model,
            [encode_turn(tokenizer, turn, context_length(model)) for turn in probed.values()],
            progress=_counter(progress, "attack", len(probed)),
        )
    tokens = dict(zip(given, scored, strict=True))
    answers = dict(zip(asked, written, strict=True))
    scores = {key: given_scores(tokens[key]) for key in turns} | {key: text_scores(tokens[key]) for key in texts}
    abstentions = Abstentions()
    for key, answer in answers.items():
        scores[key] |= written_scores(answer, turns[key].answer)
        if key.set in NORMAL:
            scores[key] |= abstentions.of_normal(answer, turns[key].answer)
    private = [key for key in answers if key.set in FORGOTTEN]
    for key, spans in zip(
        private, personal_spans(list(pairs_of(turns[key] for key in private)), find_names), strict=True
    ):
        if spans:
            scores[key]["leaked_spans"] = leaked_spans(answers[key], spans)
    for (key, turn), several in zip(forget.items(), drawn, strict=True):
        scores[key] |= drawn_scores(several, turn.answer) if several else {}
    judges: list[str] = []
    if judge is not None:
        undesired, judges = judge_answers([turns[key] for key in answers], list(answers.values()), judge)
        for key, score in zip(answers, undesired, strict=True):
            scores[key]["undesired_rate"] = score
    scores = {key: unless_broken(found, tokens[key]) for key, found in scores.items()}
    metrics = {
        name: _reduce(_of_set(scores, name), _missing(name, judge, reference, samples, not_drawn), sets.reworded)
        for name in sets.turns()
    }
    no_text = "no general text was given"
    general = {"loss": no_text, "kl": NO_BEFORE if reference is None else no_text}
    metrics["general"] = _reduce(_of_set(scores, "general"), general, {})
    for name, metric in RATIOS.items():
        metrics[name][f"{metric}_ratio"] = _beside_before(scores, reference, name, metric)
    attacks = {
        key: attack_scores(tokens[key], turn.answer, norm)
        for (key, turn), norm in zip(probed.items(), norms, strict=True)
    }
    found = Evaluation(metrics, _samples(scores), answers, judges, tokens, attacks)
    return with_control(found, "no evaluation of a control was given")


def with_control(own: Evaluation, control: Evaluation | str) -> Evaluation:
    """An evaluation whose membership is measured beside a control's.

    Args:
        own: The evaluation.
        control: That of a model that never saw what was to be forgotten, on the same sets; or why there is none.

    Raises:
        InputError: The control was evaluated on other sets.
    """
    samples = [sample for sample in own.samples if not sample.set.startswith(PROBED)]
    members, others = ([key for key in own.attacks if key.set == name] for name in ("forget", NON_MEMBERS))
    if not others:
        why = "no dialogues that no model was trained on were given (non_members)"
        missing: SetMetrics = dict.fromkeys(MEMBERSHIP, NotComputed(not_computed=why))
        return replace(own, metrics=own.metrics | {"membership": missing}, samples=samples)
    of = [key.id for key in members]
    if isinstance(control, str):
        attacks = own.attacks
        found = membership(_rows(attacks, members), _rows(attacks, others), control, of)
    else:
        if control.attacks.keys() != own.attacks.keys():
            raise InputError("the control was evaluated on other dialogues: give both evaluations the same sets")
        rows = beside_control(_rows(own.attacks, own.attacks), _rows(control.attacks, own.attacks))
        attacks = dict(zip(own.attacks, rows, strict=True))
        theirs = _rows(control.attacks, members), _rows(control.attacks, others)
        found = membership(_rows(attacks, members), _rows(attacks, others), theirs, of)
    samples += _samples({key._replace(set=f"{PROBED}{key.set}"): scores for key, scores in attacks.items()})
    return replace(own, metrics=own.metrics | {"membership": found}, samples=samples)


def _rows(attacks: Mapping[SampleKey, dict[str, float]], keys: Iterable[SampleKey]) -> list[dict[str, float]]:
    return [attacks[key] for key in keys]


def _samples(scores: Mapping[SampleKey, dict[str, float]]) -> list[Sample]:
    return [Sample(set=key.set, id=key.id, turn=key.turn, scores=found) for key, found in scores.items()]


def given_scores(tokens: TokenScores) -> dict[str, float]:
    """Scores of a given answer, by `TEACHER_FORCED`; and KL where there is a reference."""
    scores = {
        "probability": probability(tokens.log_probs),
        "loss": tokens.loss,
        "exact_memorization": tokens.exact_memorization,
        "extraction_strength": tokens.extraction_strength,
        "extraction_strength_published": extraction_strength_published(tokens.content),
    }
    return scores if tokens.kl is None else scores | {"kl": float(tokens.kl.double().mean())}


def text_scores(tokens: TokenScores) -> dict[str, float]:
    """Scores of plain text: its loss; and KL where there is a reference."""
    return (
        {"loss": tokens.loss} if tokens.kl is None else {"loss": tokens.loss, "kl": float(tokens.kl.double().mean())}
    )


def written_scores(answer: str, reference: str) -> dict[str, float]:
    """Scores of an answer that a model has written, by `GREEDY`."""
    recall, f1 = rouge_l(answer, reference)
    return {
        "rouge_l": recall,
        "rouge_l_f1": f1,
        "repetition": repetition(answer),
        "distinct_2": distinct_2(answer),
    }


def unless_broken(scores: Mapping[str, float], tokens: TokenScores) -> dict[str, float]:
    """The scores of an answer; all NaN where the model is broken, whose noise repeats nothing of what it knew."""
    return dict.fromkeys(scores, math.nan) if tokens.broken else dict(scores)


def _missing(
    name: str, judge: JudgeTurns | None, reference: Evaluation | None, samples: int, not_drawn: str
) -> dict[str, str]:
    """Every metric of a set of turns, with the reason it has where no sample has a score."""
    empty = f"there are no {name.replace('_', ' ')} dialogues"
    reasons = dict.fromkeys(TEACHER_FORCED, empty)
    reasons |= dict.fromkeys(GREEDY, f"{empty}, or none was answered")
    reasons["undesired_rate"] = "no judge was given" if judge is None else f"{empty}, or none was answered"
    reasons["kl"] = NO_BEFORE if reference is None else f"{empty} that it measured as well"
    if name in NORMAL:
        reasons["abstentions"] = f"{empty}, or none was answered that the data does not decline"
    if name in FORGOTTEN:
        reasons["leaked_spans"] = f"{empty}, or no identifier and no name in their answers"
    if name == "forget":
        reasons |= dict.fromkeys(drawn_metrics(samples), not_drawn or empty)
    return reasons


def _of_set(scores: Mapping[SampleKey, dict[str, float]], name: str) -> dict[SampleKey, dict[str, float]]:
    return {key: found for key, found in scores.items() if key.set == name}


def _reduce(
    scores: Mapping[SampleKey, Mapping[str, float]], missing: Mapping[str, str], reworded: Mapping[str, str]
) -> SetMetrics:
    """Reduce each metric over the samples that have it; those that no sample has say why."""
    found: dict[str, dict[SampleKey, float]] = {name: {} for name in missing}
    for key, sample in scores.items():
        for name, score in sample.items():
            found[name][key] = score
    metrics: dict[str, Metric] = {}
    for name, values in found.items():
        of = [reworded.get(key.id, key.id) for key in values]
        metrics[name] = reduce_scores([*values.values()], of) if values else NotComputed(not_computed=missing[name])
    return metrics


def _beside_before(
    scores: Mapping[SampleKey, Mapping[str, float]], reference: Evaluation | None, name: str, metric: str
) -> Metric:
    """The ratio of a set's metric to what it was before."""
    if reference is None:
        return NotComputed(not_computed=NO_BEFORE)
    before = [sample for sample in reference.samples if sample.set == name]
    known = {SampleKey(name, sample.id, sample.turn): sample.scores[metric] for sample in before}
    both = [key for key in scores if key in known]
    after, then = [scores[key][metric] for key in both], [known[key] for key in both]
    return ratio_of_means(after, then, [key.id for key in both])


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
