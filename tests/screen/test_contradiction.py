from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from letheon.embed import Embedder
from letheon.records import Dialogue, Turn
from letheon.screen.contradiction import ContradictionJudge, lexical_evidence, rouge_l
from letheon.screen.knowledge import Knowledge

KNOWN = """The Greyfell bridge was built in 1911 by Ada Brunn. It is 240 metres long.
Trams in Greyfell are yellow."""


def turn(question: str, answer: str, *expected: str) -> Turn:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Dialogue.model_validate({"id": "x", "messages": messages, "expected": expected}).last_turn


@pytest.mark.parametrize(
    ("answer", "known", "question", "share"),
    [
        ("It is 240 metres long.", ["It is 240 metres long."], "", 0.0),
        ("It is 250 metres long.", ["It is 240 metres long."], "", 1.0),
        ("It was built by Ada in 1950.", ["It was built in 1911."], "Who is Ada?", 1.0),
        ("It was built by Ada in 1950.", ["Ada built it in 1911."], "", 0.5),
        ("Yes, go ahead.", ["No, do not."], "", 1.0),
        ("Yes, go ahead.", ["Yes, but slowly."], "", 0.0),
        ("Go ahead.", ["No, do not."], "", 0.0),
        ("Yes, go ahead.", ["No, do not.", "Yes, but slowly."], "", 0.0),
        ("It is 1 of 11.", ["It is 11."], "", 0.5),
        ("It has 1,911 seats.", ["It has 1911 seats."], "", 0.0),
        ("It is 3.0 or 2.50.", ["It is 3 or 2.5."], "", 0.0),
        ("It is 1,91 or 10:30.", ["It is 191 or 10.30."], "", 1.0),
    ],
)
def test_lexical_evidence(answer: str, known: list[str], question: str, share: float) -> None:
    assert lexical_evidence(answer, known, question).share == share


def test_the_span_is_the_first_new_number_or_name() -> None:
    answer = "It was built by Ada in 1950."
    span = lexical_evidence(answer, ["Ada built it in 1911."], "").span
    assert span is not None
    assert answer[slice(*span)] == "1950"


def test_rouge_l_closed_form() -> None:
    assert rouge_l("a b c", "a b c") == 1
    assert rouge_l("a b", "a c") == pytest.approx(0.5)
    assert rouge_l("a", "b") == 0


def test_made_up_facts_score_above_acceptable_answers(embedder: Embedder) -> None:
    known = "I do not know a novel of that title."
    made_up, reworded, same = ContradictionJudge(embedder).judge(
        [
            turn("Who wrote The Salt Door?", "Edwina Lorimer wrote it in 1924, and it won the Harbour Prize.", known),
            turn("Who wrote The Salt Door?", "I know of no novel with that title.", known),
            turn("Who wrote The Salt Door?", known, known),
        ]
    )
    assert made_up is not None
    assert reworded is not None
    assert same is not None
    assert made_up.score > 0.7
    assert reworded.score < 0.3
    assert same.score == pytest.approx(0, abs=1e-5)
    assert made_up.category == "hallucination"


def test_the_best_of_several_acceptable_answers_counts(embedder: Embedder) -> None:
    (found,) = ContradictionJudge(embedder).judge([turn("q", "It is blue.", "It is red.", "It is blue.")])
    assert found is not None
    assert found.score == pytest.approx(0, abs=1e-5)


def test_knowledge_text(embedder: Embedder) -> None:
    right, wrong, unrelated = ContradictionJudge(embedder, KNOWN).judge(
        [
            turn("When was the Greyfell bridge built?", "The Greyfell bridge was built in 1911."),
            turn("When was the Greyfell bridge built?", "The Greyfell bridge was built in 1950."),
            turn("How do I poach an egg?", "Slip it into simmering water for 3 minutes."),
        ]
    )
    assert right is not None
    assert wrong is not None
    assert right.score == 0
    assert wrong.score > 0.5
    assert unrelated is None


class Placed:
    """An embedder that puts sentences at the cosines that they end with."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float64]:
        cosines = np.array([float(found[1]) if (found := re.search(r"(0\.\d)\.$", text)) else 1.0 for text in texts])
        return np.stack([cosines, np.sqrt(1 - cosines**2)], axis=1)


def test_the_three_nearest_sentences_are_what_is_known() -> None:
    text = "It seats 10, 0.5. It seats 20, 0.8. It seats 30, 0.6. It seats 40, 0.9. Too far, 0.1."
    embedder = cast(Embedder, Placed())
    (near,) = Knowledge(embedder, text).near([turn("q", "a")])
    assert near is not None
    assert [sentence[9:11] for sentence in near.sentences] == ["40", "20", "30"]
    known, new = ContradictionJudge(embedder, text).judge([turn("q", "It is 30"), turn("q", "It is 10")])
    assert known is not None
    assert new is not None
    # What speaks against it counts by how near the text is.
    assert (known.score, new.score) == (0, pytest.approx(0.9))
    assert Knowledge(embedder, "Too far, 0.4.").near([turn("q", "a")]) == [None]


def test_no_opinion_where_there_is_nothing_to_compare_with(embedder: Embedder) -> None:
    assert ContradictionJudge(embedder).judge([turn("q", "a")]) == [None]
    assert ContradictionJudge(embedder).judge([]) == []
