"""How much personal data the privacy judge finds: marked spans of presidio-research's sentences, normal answers.

The sentences come from templates; those of odd templates are reported, those of even ones were used to mend the
patterns (`half`). A marked span counts as found when at least half of its characters lie in found spans of its group,
and a found span as right when at least half of its characters lie in marked spans of its group; towns and countries
count with addresses, titles with names, since the marks put them now here, now there. Intervals are bootstraps over
sentences.

    python benchmarks/privacy.py --data data
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from table import write_rows

from letheon.records import Dialogue
from letheon.screen.privacy import FindNames, Identifier, PrivacyJudge, find_names, find_personal
from letheon.screen.privacy.presidio import installed_pipeline

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
    "DRIVER_LICENSE": "national id",
    "IBAN_CODE": "iban",
    "US_PASSPORT": "national id",
    "URL": "url",
}
"""Marked type or found kind → group; a kind that is not here is its own."""
NO_PERSON = ("organisation", "birth date")
"""Groups that the row "of persons" leaves out: nobody's data, or any date (only those of birth are looked for)."""
OWN = {"CREDIT_CARD", "US_SSN", "US_DRIVER_LICENSE"}
CONTACTS = {"ADDRESS", "PHONE_NUMBER", "EMAIL_ADDRESS"}
Span = tuple[str, int, int]
Sentence = tuple[str, list[Span], list[Span]]
"""Text, marked spans, found spans."""


def share_in(text: str, span: Span, others: Sequence[Span]) -> float:
    """Share of a span's characters (spaces left out) that lie in others of its group."""
    own = [n for n in range(span[1], span[2]) if not text[n].isspace()]
    inside = [n for n in own if any(o[0] == span[0] and o[1] <= n < o[2] for o in others)]
    return len(inside) / max(len(own), 1)


def presidio_alone(pipeline: str) -> FindNames:
    """Presidio with all its recognisers for English, as it comes: what the judge's finders are held against."""
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import SpacyNlpEngine

    # Its recogniser of e-mail would fetch a list of suffixes.
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=()).__call__  # type: ignore[assignment]
    engine = SpacyNlpEngine(models=[{"lang_code": "en", "model_name": pipeline}])
    engine.nlp = {"en": spacy.load(pipeline)}
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    analyzer = AnalyzerEngine(registry=registry, nlp_engine=engine)

    def find(texts: Sequence[str]) -> list[list[Any]]:
        found = []
        for text in texts:
            best: list[Any] = []
            for one in sorted(analyzer.analyze(text, language="en"), key=lambda one: -one.score):
                if all(one.end <= other.start or other.end <= one.start for other in best):
                    best.append(one)
            found.append([Identifier(one.entity_type, one.start, one.end) for one in best])
        return found

    return find


def about_persons(spans: Sequence[Span]) -> list[Span]:
    return [span for span in spans if span[0] not in NO_PERSON]


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
        tuple(any(group in (None, span[0]) for span in spans) for spans in (gold, found))
        for _, gold, found in sentences
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
        of_persons = [(text, about_persons(gold), about_persons(found)) for text, gold, found in sentences]
        for group in (None, "of persons", *groups):
            whole = group in (None, "of persons")
            numbers = count(of_persons if group == "of persons" else sentences, None if whole else group)
            recall, precision = ratios(numbers)
            row: dict[str, Any] = {"names": names, "half": half, "level": level, "type": group or "all"}
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


def must_go(row: dict[str, Any]) -> bool:
    """Whether the marks hold a number of somebody's own, or a contact and a person beside it."""
    marks = {span["entity_type"] for span in row["spans"]}
    return bool(marks & OWN) or ("PERSON" in marks and bool(marks & CONTACTS))


def judged(
    dialogues: Sequence[Dialogue], truth: Sequence[bool], find: FindNames, half: str, names: str, what: str
) -> dict[str, Any]:
    """Which answers the judge would forget (score ≥ 0.5), and hold for review (≥ 0.3)."""
    started = time.perf_counter()
    opinions = PrivacyJudge(find).judge([dialogue.last_turn for dialogue in dialogues])
    seconds = time.perf_counter() - started
    scores = [opinion.score for opinion in opinions if opinion is not None]
    forget = [score >= 0.5 for score in scores]
    hits = sum(a and b for a, b in zip(forget, truth, strict=True))
    recall, precision = ratios((sum(truth), hits, sum(forget), hits))
    return {
        "names": names,
        "half": half,
        "level": "judge",
        "type": what,
        "marked": sum(truth),
        "marked_found": hits,
        "found": sum(forget),
        "found_right": hits,
        "recall": "" if recall is None else f"{recall:.3f}",
        "precision": "" if precision is None else f"{precision:.3f}",
        "answers": len(scores),
        "review": sum(0.3 <= score < 0.5 for score in scores),
        "ms": f"{1000 * seconds / len(scores):.1f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of public data sets")
    data: Path = parser.parse_args().data
    raw = json.loads((data / "pii/generated_small.json").read_text(encoding="utf-8"))
    rows = []
    pipeline = installed_pipeline()
    if pipeline is None:
        sys.exit("no spaCy pipeline with presidio: pip install 'letheon[presidio]'")
    finders: dict[str, FindNames] = {
        "presidio alone": presidio_alone(pipeline),
        "patterns": find_names("patterns"),
        f"presidio, {pipeline}": find_names(pipeline),
        "rampart": find_names("rampart"),
    }
    for names, find in finders.items():
        alone = names == "presidio alone"
        for half, parity in (("tuned on", 0), ("reported", 1)):
            picked = [row for row in raw if row["template_id"] % 2 == parity]
            texts = [row["full_text"] for row in picked]
            found = find(texts) if alone else find_personal(texts, find)
            sentences = [
                (
                    row["full_text"],
                    [(GROUPS[s["entity_type"]], s["start_position"], s["end_position"]) for s in row["spans"]],
                    [(GROUPS.get(one.kind, one.kind), one.start, one.end) for one in spans],
                )
                for row, spans in zip(picked, found, strict=True)
            ]
            rows += rows_of(sentences, half, names)
            if not alone:
                truth = [must_go(row) for row in picked]
                rows.append(judged(as_answers(picked), truth, find, half, names, "sentences as answers"))
        if not alone:
            normal = normal_answers(data)
            rows.append(judged(normal, [False] * len(normal), find, "reported", names, "normal answers"))
    write_rows(RESULTS, rows)
    for row in rows:
        if row["type"] in ("all", "of persons", "normal answers", "sentences as answers"):
            print({name: value for name, value in row.items() if value != ""})


if __name__ == "__main__":
    main()
