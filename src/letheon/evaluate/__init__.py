"""Evaluation: what a model still knows of the dialogues to forget, and what it kept."""

from letheon.evaluate.evaluate import EvalSets, Evaluation, Sample, SampleKey, evaluate_model, with_control
from letheon.evaluate.generation import greedy_answers
from letheon.evaluate.teacher_forced import TokenScores, score_sequences
from letheon.evaluate.verdict import headline

__all__ = [
    "EvalSets",
    "Evaluation",
    "Sample",
    "SampleKey",
    "TokenScores",
    "evaluate_model",
    "greedy_answers",
    "headline",
    "score_sequences",
    "with_control",
]
