"""MUSE (Shi et al., arXiv 2407.06460): verbatim memorisation, knowledge memorisation, PrivLeak, and what was kept.

On plain text, as its models are base models. Scalability and sustainability, its other two, are of trainings, not of
a model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from letheon.dialogues import file_rows
from letheon.errors import InputError
from letheon.evaluate.look import Plain
from letheon.evaluate.muse import (
    KNOWLEDGE_TOKENS,
    VERBATIM_TOKENS,
    knowledge_memorisation,
    question_after,
    verbatim_memorisation,
)
from letheon.evaluate.non_members import Pair, check_non_members
from letheon.json_rows import check_files, read_rows
from letheon.suites.options import Options
from letheon.suites.parts import thinned
from letheon.suites.suite import Findings, Seen, Suite
from letheon.suites.trained_on import logs_of

VERBATIM = "verbmem/forget.json"
QUESTIONS = {"knowledge_forget": "knowmem/forget_qa", "knowledge_retain": "knowmem/retain_qa"}
FORGET, RETAIN, HOLDOUT = (f"privleak/{name}.json" for name in ("forget", "retain", "holdout"))


def read(folder: Path, options: Options) -> Suite:
    """Read one corpus (news or books), in the files that MUSE's own script writes.

    Raises:
        InputError: A file is missing or faulty, or the holdout was trained on.
    """
    names = [VERBATIM, *(f"{name}{end}.json" for name in QUESTIONS.values() for end in ("", "_icl"))]
    names += [FORGET, RETAIN, HOLDOUT]
    check_files(folder, names)
    passages = read_rows(folder / VERBATIM, "prompt", "gt", texts=True)
    questions = {name: _questions(folder / name) for name in names if name.startswith("knowmem/")}
    texts = {name: _texts(folder / name) for name in (FORGET, RETAIN, HOLDOUT)}
    trained = {name: [("", text) for text in texts[name]] for name in (FORGET, RETAIN)}
    trained[VERBATIM] = [pair for row in passages for pair in _as_texts(row["prompt"], row["gt"])]
    for name, rows in questions.items():
        trained[name] = [pair for row in rows for pair in _as_texts(row["question"], row["answer"])]
    others = [("", text) for text in texts[HOLDOUT]]
    check_non_members(str(folder / HOLDOUT), others, {**trained, **logs_of(options)})
    passages = thinned(passages, options.limit)
    asked: dict[str, list[Plain]] = {"verbatim": [Plain(row["prompt"], row["gt"]) for row in passages]}
    for name, stem in QUESTIONS.items():
        shown = [(row["question"], row["answer"]) for row in questions[f"{stem}_icl.json"]]
        asked[name] = [
            Plain(question_after(shown, row["question"]), row["answer"])
            for row in thinned(questions[f"{stem}.json"], options.limit)
        ]
    members = {
        "forget": [Plain("", text) for text in thinned(texts[FORGET], options.limit)],
        "holdout": [Plain("", text) for text in thinned(texts[HOLDOUT], options.limit)],
    }

    def measure(seen: Seen, control: Seen | str) -> Findings:
        findings = Findings()
        rows = [
            {"verbatim_memorisation": verbatim_memorisation(said, _cut(seen, item.answer))}
            for said, item in zip(seen.answers["verbatim"], asked["verbatim"], strict=True)
        ]
        findings.add("verbatim", rows)
        for name in QUESTIONS:
            pairs = zip(seen.answers[name], asked[name], strict=True)
            findings.add(name, [{"knowledge_memorisation": knowledge_memorisation(s, i.answer)} for s, i in pairs])
        return findings

    return Suite(
        files=[folder / name for name in names],
        measure=measure,
        given=members,
        asked=asked,
        members=("forget", "holdout"),
        kept={"knowledge_retain": asked["knowledge_retain"]},
        tokens={"verbatim": VERBATIM_TOKENS} | dict.fromkeys(QUESTIONS, KNOWLEDGE_TOKENS),
        notes=["texts longer than the model's context are cut where they end it"],
    )


def _cut(seen: Seen, passage: str) -> str:
    """As much of a passage as the model may write."""
    ids = seen.tokenizer(passage, add_special_tokens=False).input_ids[:VERBATIM_TOKENS]
    return str(seen.tokenizer.decode(ids, skip_special_tokens=True))


def _as_texts(start: str, rest: str) -> list[Pair]:
    """What was cut in two, in every shape that a text may have it: the cut may go through a word."""
    return [(start, rest), *(("", text) for text in (start, start + rest, f"{start} {rest}"))]


def _questions(path: Path) -> list[dict[str, Any]]:
    return read_rows(path, "question", "answer", texts=True)


def _texts(path: Path) -> list[str]:
    """A list of texts, or of objects that each have one, as on the hub."""
    found = [row.get("text") if isinstance(row, dict) else row for _, row in file_rows(path)]
    texts = [text for text in found if isinstance(text, str) and text]
    if not texts or len(texts) < len(found):
        raise InputError(f"{path}: expected a list of texts, or of objects with text")
    return texts
