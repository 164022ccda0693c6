"""What a screened run has to work with: its log divided, answers to expect and to rehearse, judges of new answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from letheon.errors import InputError
from letheon.models import Model, Tokenizer, load_model, load_tokenizer
from letheon.recipe import Recipe
from letheon.records import Turn, Verdict
from letheon.run import Run
from letheon.split import Sample, Split, judged, split

if TYPE_CHECKING:
    from letheon.chat import Encoded
    from letheon.expected import Target


def split_of(run: Run) -> Split:
    """The division of the screened log that this recipe makes."""
    recipe = run.recipe
    return split(
        run.log(),
        run.stream_verdicts(),
        run.paraphrases(),
        most_normal=recipe.data.most_normal,
        held_out=recipe.data.held_out,
        # Whoever asks to be forgotten is forgotten whole: nothing is kept back from training.
        probe=recipe.data.probe if recipe.data.subject is None else 0.0,
        seed=recipe.seed,
    )


def expected_of(run: Run, data: Split, model: Model = None, tokenizer: Tokenizer = None) -> list[Target]:
    """What each turn to forget should say instead.

    Args:
        run: The run.
        data: Its division.
        model: The model before unlearning; loaded where the recipe samples from it and none is given.
        tokenizer: Its tokenizer.
    """
    from letheon.expected import expected_answers, read_safe_replies
    from letheon.sampling import sample_alternates, sample_passing
    from letheon.screen.kept import kept_open

    recipe = run.recipe
    positive = recipe.objective.positive.name

    def draw(how: Callable[..., list[list[str]]], *given: Any) -> list[list[str]]:
        return how(
            model if model is not None else load_model(recipe.model),
            tokenizer if tokenizer is not None else load_tokenizer(recipe.model),
            *given,
            samples=recipe.expected.samples,
            max_new_tokens=recipe.evaluate.max_new_tokens,
            seed=recipe.seed,
        )

    def sample(turns: Sequence[Turn]) -> list[list[str]]:
        judge = answer_judge(recipe, run.scores_file)
        if judge is None:
            raise InputError(
                "expected.sources names 'model', but judge 'labels' cannot judge new answers; add another"
            )
        with kept_open():
            return draw(sample_passing, turns, judge)

    return expected_answers(
        data.forget,
        categories=data.categories,
        sources=recipe.expected.sources,
        safe_replies=read_safe_replies(recipe.expected.safe_replies),
        sample=sample,
        alternates=lambda turns: draw(sample_alternates, turns),
        corrected=_corrected(recipe),
        normal=[dialogue.last_turn.answer for dialogue in data.normal],
        weighting="cluster-mean" if positive == "none" else positive,
        temperature=recipe.expected.temperature,
    )


def _corrected(recipe: Recipe) -> Callable[[Turn], str | None] | None:
    """What corrects answers by the table of changed facts, where the expected answers are to come from it."""
    if "facts" not in recipe.expected.sources or recipe.screen.changed_facts is None:
        return None
    from letheon.screen.outdated import OutdatedJudge, read_changed_facts

    return OutdatedJudge(read_changed_facts(recipe.screen.changed_facts)).corrected


def answer_judge(recipe: Recipe, scores: Path | None = None) -> Callable[[list[Turn]], list[Verdict]] | None:
    """The recipe's judges as a judge of new answers; None where only labels are left, which know the log alone.

    Args:
        recipe: The recipe.
        scores: Where the api judge keeps what it has been answered.
    """
    from letheon.screen import build_screener

    names = [name for name in recipe.screen.judges if name != "labels"]
    if not names:
        return None
    settings = recipe.screen.model_copy(update={"judges": names})
    return build_screener(settings, seed=recipe.seed, model=recipe.model, scores=scores)


TAUGHT = 1000
"""Dialogues of either decision that a judge learns from; what it costs grows with the cube of their number."""


def judge_of_verdicts(run: Run) -> Callable[[list[Turn]], list[Verdict]] | None:
    """A judge of new answers that has learnt from the log and its verdicts, whoever gave them.

    None where they are too few to learn from; of many, it learns from a sample of `TAUGHT` of either decision.
    """
    from letheon.screen import judge_from

    sample = Sample(TAUGHT, run.recipe.seed)
    for dialogue, verdicts in judged(run.log(), run.stream_verdicts()):
        decision = verdicts[-1].decision
        if decision != "review":
            sample.offer(dialogue.model_copy(update={"label": decision, "category": None}), decision)
    return judge_from(sample.drawn(), seed=run.recipe.seed)


def rehearsed_of(run: Run, model: Model, tokenizer: Tokenizer) -> list[Encoded]:
    """What the model answers to everyday questions, as far as it is fit to be kept; see `letheon.rehearsal`."""
    from letheon.rehearsal import rehearse

    if not run.recipe.objective.normal.rehearsal:
        return []
    return rehearse(model, tokenizer, judge_of_verdicts(run), max_length=run.recipe.train.get("max_length"))
