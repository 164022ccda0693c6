"""How much personal data the privacy judge finds: marked spans of presidio-research's sentences, normal answers.

The sentences come from templates; those of odd templates are reported, those of even ones were used to mend the
patterns (`half`). A marked span counts as found when at least half of its characters lie in found spans of its group,
and a found span as right when at least half of its characters lie in marked spans of its group; towns and countries
count with addresses, titles with names, since the marks put them now here, now there. Intervals are bootstraps over
sentences. Run in the repository, beside which the public data lie: python benchmarks/privacy.py [DATA].
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from table import write_rows

from letheon.records import Dialogue
from letheon.screen.privacy import FindNames, PrivacyJudge, find_names, find_personal
from letheon.screen.privacy.people import pipeline_of

DATA = Path(__file__).parents[2] / "shared/data"
RESULTS = Path(__file__).parent / "results/privacy.csv"
GROUPS = {
    "PERSON": "person",
    "TITLE": "person",
    "ADDRESS": "address",
    "LOCATION": "address",
    "PHONE_NUMBER": "phone",
    "CREDIT_CARD": "card",
    "US_SSN": "ssn",
    "IP_ADDRESS": "ip",
    "EMAIL_ADDRESS": "e-mail",
    "DOMAIN_NAME": "url",
    "DATE_TIME": "birth date",
    "US_DRIVER_LICENSE": "national id",
    "ORGANIZATION": "organisation",
    "place": "address",
    "handle": "url",
}
"""Marked type or found kind → group; a kind that is not here is its own."""
Span = tuple[str, int, int]
Sentence = tuple[str, list[Span], list[Span]]
"""Text, marked spans, found spans."""


def share_in(text: str, span: Span, others: Sequence[Span]) -> float:
    """Share of a span's characters (spaces left out) that lie in others of its group."""
    own = [n for n in range(span[1], span[2]) if not text[n].isspace()]
    inside = [n for n in own if any(o[0] == span[0] and o[1] <= n < o[2] for o in others)]
    return len(inside) / max(len(own), 1)


def counts(sentences: Sequence[Sentence], group: str | None) -> tuple[int, int, int, int]:
    """(marked, of them found, found, of them right), of one group or of all."""
    marked = hits = found = right = 0
    for text, gold, spans in sentences:
        for span in gold:
            if group in (None, span[0]):
                marked, hits = marked + 1, hits + (share_in(text, span, spans) >= 0.5)
        for span in spans:
            if group in (None, span[0]):
                found, right = found + 1, right + (share_in(text, span, gold) >= 0.5)
    return marked, hits, found, right


def sentence_counts(sentences: Sequence[Sentence], group: str | None) -> tuple[int, int, int, int]:
    """The same of sentences: with such a span marked, of them with one found; with one found, of them marked."""
    has = [
        tuple(any(group in (None, span[0]) for span in spans) for spans in (gold, found)) for _, gold, found in sentences
    ]
    both = sum(a and b for a, b in has)
    return sum(a for a, _ in has), both, sum(b for _, b in has), both


def ratios(found: tuple[int, int, int, int]) -> tuple[float | None, float | None]:
    marked, hits, spans, right = found
    return (hits / marked if marked else None), (right / spans if spans else None)


def interval(sentences: Sequence[Sentence], count: Callable[..., Any], group: str | None, which: int) -> str:
    """95% of 1000 bootstraps over sentences, of recall (0) or precision (1)."""
    draw = random.Random(0)
    values = [ratios(count(draw.choices(sentences, k=len(sentences)), group))[which] for _ in range(1000)]
    known = sorted(value for value in values if value is not None)
    return f"{known[int(0.025 * len(known))]:.2f}-{known[int(0.975 * len(known)) - 1]:.2f}" if known else ""


def rows_of(sentences: Sequence[Sentence], half: str, names: str) -> list[dict[str, Any]]:
    rows = []
    groups = sorted({span[0] for _, gold, found in sentences for span in (*gold, *found)})
    for level, count in (("span", counts), ("sentence", sentence_counts)):
        for group in (None, *groups):
            numbers = count(sentences, group)
            recall, precision = ratios(numbers)
            row = {"names": names, "half": half, "level": level, "type": group or "all"}
            row |= dict(zip(("marked", "marked_found", "found", "found_right"), numbers, strict=True))
            row |= {"recall": "" if recall is None else f"{recall:.3f}"}
            row |= {"precision": "" if precision is None else f"{precision:.3f}"}
            if group is None:
                row |= {"recall_95": interval(sentences, count, group, 0)}
                row |= {"precision_95": interval(sentences, count, group, 1)}
            rows.append(row)
    return rows


def normal_answers(data: Path) -> list[Dialogue]:
    """200 normal instructions and answers, evenly spaced."""
    rows = json.loads((data / "alpaca/alpaca_en_demo.json").read_text(encoding="utf-8"))
    rows = [row for row in rows if row["output"].strip()]
    return [
        Dialogue.model_validate(
            {
                "id": str(n),
                "messages": [
                    {"role": "user", "content": f"{row['instruction']}\n\n{row['input']}".strip()},
                    {"role": "assistant", "content": row["output"]},
                ],
            }
        )
        for n, row in enumerate(rows[:: len(rows) // 200][:200])
    ]


def as_answers(sentences: Sequence[dict[str, Any]]) -> list[Dialogue]:
    """Each sentence as the answer to a question that says nothing."""
    return [
        Dialogue.model_validate(
            {
                "id": str(n),
                "messages": [
                    {"role": "user", "content": "Go on."},
                    {"role": "assistant", "content": row["full_text"]},
                ],
            }
        )
        for n, row in enumerate(sentences)
    ]


def judged(dialogues: Sequence[Dialogue], find: FindNames, half: str, names: str, what: str) -> dict[str, Any]:
    """How many answers the judge would forget (score ≥ 0.5), and hold for review (≥ 0.3)."""
    started = time.perf_counter()
    opinions = PrivacyJudge(find).judge([dialogue.last_turn for dialogue in dialogues])
    seconds = time.perf_counter() - started
    scores = [opinion.score for opinion in opinions if opinion is not None]
    forget = sum(score >= 0.5 for score in scores)
    review = sum(0.3 <= score < 0.5 for score in scores)
    return {
        "names": names,
        "half": half,
        "level": "judge",
        "type": what,
        "marked": len(scores),
        "found": forget,
        "review": review,
        "share": f"{forget / len(scores):.3f}",
        "ms": f"{1000 * seconds / len(scores):.1f}",
    }


def main(data: Path) -> None:
    raw = json.loads((data / "pii/generated_small.json").read_text(encoding="utf-8"))
    rows = []
    for ner in ("patterns", "auto"):
        find = find_names(ner)
        names = pipeline_of(ner) or "patterns"
        for half, parity in (("tuned on", 0), ("reported", 1)):
            picked = [row for row in raw if row["template_id"] % 2 == parity]
            found = find_personal([row["full_text"] for row in picked], find)
            sentences = [
                (
                    row["full_text"],
                    [(GROUPS[s["entity_type"]], s["start_position"], s["end_position"]) for s in row["spans"]],
                    [(GROUPS.get(one.kind, one.kind), one.start, one.end) for one in spans],
                )
                for row, spans in zip(picked, found, strict=True)
            ]
            rows += rows_of(sentences, half, names)
            with_data = [row for row in picked if row["spans"]]
            rows.append(judged(as_answers(with_data), find, half, names, "sentences with marked spans"))
        rows.append(judged(normal_answers(data), find, "reported", names, "normal answers"))
    write_rows(RESULTS, rows)
    for row in rows:
        if row["type"] in ("all", "normal answers", "sentences with marked spans"):
            print({name: value for name, value in row.items() if value != ""})


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DATA)
