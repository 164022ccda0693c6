"""Verbatim and knowledge memorisation as MUSE measures them (Shi et al., arXiv 2407.06460, §3.1), on plain text.

MUSE's models are base models: the prompts are texts to go on with, not messages of a chat.
"""

from __future__ import annotations

from collections.abc import Sequence

from letheon.evaluate.text import rouge_l

VERBATIM_TOKENS, KNOWLEDGE_TOKENS = 128, 32
"""How much is written of a passage, and of an answer."""
ENDS = ("\n\n", "\nQuestion", "Question:")
"""Where an answer ends, though the model may go on with a question of its own."""


def verbatim_memorisation(written: str, passage: str) -> float:
    """ROUGE-L F1 of the model's continuation and the true one, in [0, 1]; on the forget set lower is better.

    Args:
        written: What the model writes after the passage's beginning, greedily, in at most 128 tokens.
        passage: How the passage goes on, cut to as many tokens.
    """
    return rouge_l(written, passage)[1]


def knowledge_memorisation(written: str, answer: str) -> float:
    """ROUGE-L F1 of the model's answer and the given one, in [0, 1]; on forget lower, on retain higher is better.

    Args:
        written: What the model writes after `question_after`, greedily, in at most 32 tokens; counted up to its end.
        answer: The given answer.
    """
    for end in ENDS:
        written = written.split(end)[0]
    return rouge_l(written, answer)[1]


def question_after(examples: Sequence[tuple[str, str]], question: str) -> str:
    """The prompt of knowledge memorisation: questions with their answers, then the question to be answered."""
    shown = "".join(f"Question: {asked}\nAnswer: {answer}\n\n" for asked, answer in examples)
    return f"{shown}Question: {question}\nAnswer: "
