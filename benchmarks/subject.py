"""How much of what a log says of one person an erasure request finds, by the name alone: TOFU's authors.

Each of 20 authors is asked to be forgotten in the log of all 200 (20 pairs of question and answer each). Then every
mention in the author's own pairs is rewritten to another form of the name.

    python benchmarks/subject.py --data data
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from table import write_rows

from letheon.records import Dialogue
from letheon.screen.privacy import FindNames, find_names
from letheon.screen.subject import Subject, subject_verdicts

RESULTS = Path(__file__).parent / "results/subject.csv"
PAIRS = 20
"""Of each author, one after the other in the file."""


def with_typing_error(name: str, draw: random.Random) -> str:
    """One letter, not the first of a word, changed to another, left out, doubled, or swapped with the next."""
    place = draw.choice([n for n in range(1, len(name) - 1) if name[n - 1 : n + 2].isalpha()])
    letter, after = name[place], name[place + 1]
    new = draw.choice([draw.choice("abcdefghijklmnopqrstuvwxyz"), "", letter * 2, after + letter])
    return name[:place] + new + name[place + (2 if new == after + letter else 1) :]


FORMS: dict[str, Callable[[str, random.Random], str]] = {
    "as it is": lambda name, _: name,
    "lower case": lambda name, _: name.lower(),
    "surname first, comma": lambda name, _: f"{name.split()[-1]}, {' '.join(name.split()[:-1])}",
    "surname first": lambda name, _: f"{name.split()[-1]} {' '.join(name.split()[:-1])}",
    "typing error": with_typing_error,
    "initial and surname": lambda name, _: f"{name[0]}. {name.split()[-1]}",
    "title and surname": lambda name, _: f"Ms. {name.split()[-1]}",
    "given name": lambda name, _: name.split()[0],
}


def dialogue(row: dict[str, Any], number: int) -> Dialogue:
    messages = [{"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]}]
    return Dialogue.model_validate({"id": str(number), "messages": messages})


def author_of(rows: Sequence[dict[str, str]], find: FindNames) -> str:
    """The name of two words or more that the rows have most often."""
    texts = [row[field] for row in rows for field in ("question", "answer")]
    names = [
        text[one.start : one.end]
        for text, found in zip(texts, find(texts), strict=True)
        for one in found
        if one.kind == "person"
    ]
    return Counter(name for name in names if " " in name).most_common(1)[0][0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of public data sets")
    data: Path = parser.parse_args().data
    rows = [json.loads(line) for line in (data / "tofu/full.jsonl").read_text(encoding="utf-8").splitlines()]
    log = [dialogue(row, number) for number, row in enumerate(rows)]
    find, draw = find_names("rampart"), random.Random(0)
    counts: dict[str, Counter[str]] = {}
    for author in range(0, len(rows) // PAIRS, 10):
        block = range(PAIRS * author, PAIRS * (author + 1))
        name = author_of([rows[n] for n in block], find)
        subject = Subject(name)
        others = [one for n, one in enumerate(log) if n not in block]
        counts.setdefault("other authors", Counter()).update(v.decision for v in subject_verdicts(others, subject))
        # A given name that stands alone would stay what it is in every form.
        whole = re.compile(re.escape(name))
        own = [rows[n] for n in block if whole.search(rows[n]["question"] + rows[n]["answer"])]
        for form, change in FORMS.items():
            changed = [
                dialogue({field: whole.sub(lambda _: change(name, draw), row[field]) for field in row}, n)  # noqa: B023
                for n, row in enumerate(own)
            ]
            counts.setdefault(form, Counter()).update(v.decision for v in subject_verdicts(changed, subject))
    found = [
        {"form": form, "pairs": count.total()}
        | {decision: f"{count[decision] / count.total():.4f}" for decision in ("forget", "review", "normal")}
        for form, count in counts.items()
    ]
    write_rows(RESULTS, found)
    for row in found:
        print(row)


if __name__ == "__main__":
    main()
