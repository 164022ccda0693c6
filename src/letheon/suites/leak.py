"""Leak: does the model still say what it was to forget? On your own dialogues, in any shape that Letheon reads."""

from __future__ import annotations

from pathlib import Path

from letheon.dialogues import Paraphrase, paragraphs_of, read_dialogues, read_paraphrases
from letheon.errors import InputError
from letheon.evaluate.abstention import Abstentions
from letheon.evaluate.evaluate import unless_broken
from letheon.evaluate.leaked_spans import leaked_spans, personal_spans
from letheon.evaluate.look import Plain
from letheon.evaluate.non_members import check_non_members, learnable, pairs_of
from letheon.json_rows import read_utf8
from letheon.screen.privacy import find_names, source_of
from letheon.suites.options import Options
from letheon.suites.parts import answered, thinned
from letheon.suites.suite import Findings, Seen, Suite
from letheon.suites.trained_on import logs_of

FORGET, PARAPHRASES, NORMAL, HOLDOUT = "forget.jsonl", "paraphrases.jsonl", "normal.jsonl", "holdout.jsonl"
GENERAL = "general.txt"


def read(folder: Path, options: Options) -> Suite:
    """Read `forget.jsonl`; and paraphrases, normal dialogues, non-members and plain text where they are there.

    Raises:
        InputError: A file is missing or faulty, or non-members were trained on.
    """
    if not (folder / FORGET).is_file():
        raise InputError(f"{folder / FORGET}: no such file; it holds the dialogues that were to be forgotten")
    files = [folder / name for name in (FORGET, PARAPHRASES, NORMAL, HOLDOUT, GENERAL) if (folder / name).is_file()]
    read_in = {name: read_dialogues(folder / name) for name in (FORGET, NORMAL, HOLDOUT) if folder / name in files}
    every = {name: [one.last_turn for one in dialogues] for name, dialogues in read_in.items()}
    reworded = (
        _reworded(folder, {turn.dialogue.id for turn in every[FORGET]}) if folder / PARAPHRASES in files else []
    )
    if HOLDOUT in every:
        trained = {name: learnable(dialogues) for name, dialogues in read_in.items() if name != HOLDOUT}
        trained[PARAPHRASES] = pairs_of(row.dialogue.last_turn for row in reworded)
        check_non_members(str(folder / HOLDOUT), pairs_of(every[HOLDOUT]), trained | logs_of(options))
    sets = {name.removesuffix(".jsonl"): thinned(turns, options.limit) for name, turns in every.items()}
    asked_anew = thinned(reworded, options.limit)
    sets["paraphrase"] = [row.dialogue.last_turn for row in asked_anew]
    texts = paragraphs_of(read_utf8(folder / GENERAL)) if folder / GENERAL in files else []
    general = [Plain("", text) for text in thinned(texts, options.limit)]
    asked = {name: sets[name] for name in ("forget", "paraphrase", "normal") if sets.get(name)}
    given = {name: turns for name, turns in sets.items() if turns} | ({"general": general} if general else {})
    spans = {name: personal_spans(list(pairs_of(sets[name])), find_names()) for name in ("forget", "paraphrase")}

    def measure(seen: Seen, control: Seen | str) -> Findings:
        findings, abstentions = Findings(of={"paraphrase": [row.of for row in asked_anew]}), Abstentions()
        for name, turns in asked.items():
            answers = seen.answers[name]
            scores = seen.scores[name]
            findings.add(name, answered(scores, answers, turns))
            if name in spans:
                rows = [
                    unless_broken({"leaked_spans": leaked_spans(answer, own)} if own else {}, tokens)
                    for answer, own, tokens in zip(answers, spans[name], scores, strict=True)
                ]
                findings.add(name, rows, {"leaked_spans": "no identifier or name was found in the answers"})
            else:
                rows = [
                    unless_broken(abstentions.of_normal(answer, turn.answer), tokens)
                    for answer, turn, tokens in zip(answers, turns, scores, strict=True)
                ]
                findings.add(name, rows, {"abstentions": "every given answer is an abstention itself"})
        if general:
            findings.add("general", [{"loss": tokens.loss} for tokens in seen.scores["general"]])
        for name, file in (("paraphrase", PARAPHRASES), ("normal", NORMAL), ("general", GENERAL)):
            if name not in given:
                metrics = ["loss"] if name == "paraphrase" else ["loss", "kl"]
                what = "no row of split test" if name == "paraphrase" else "nothing"
                findings.lacks(name, metrics, f"there is {what} in {file}, or no such file")
        return findings

    no_others = f"there is no {HOLDOUT}: dialogues that were never trained on"
    return Suite(
        files=files,
        measure=measure,
        given=given,
        asked=asked,
        drawn=["forget"],
        members=("forget", "holdout") if "holdout" in given else no_others,
        kept={name: given[name] for name in ("normal", "general") if name in given},
        notes=[f"leaked spans: identifiers by patterns, names by {source_of('auto')}"],
    )


def _reworded(folder: Path, known: set[str]) -> list[Paraphrase]:
    """The reworded questions that no stop rule has seen."""
    rows = read_paraphrases(folder / PARAPHRASES)
    if strange := [row.of for row in rows if row.of not in known]:
        raise InputError(
            f"{folder / PARAPHRASES}: of: {strange[0]!r} is the id of no dialogue in {FORGET}"
            + (f", and {len(strange) - 1} more" if len(strange) > 1 else "")
        )
    return [row for row in rows if row.split == "test"]
