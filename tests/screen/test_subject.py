from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from letheon.console import Console
from letheon.pipeline import screen_stage
from letheon.recipe import check_recipe
from letheon.records import Dialogue, Verdict, write_jsonl
from letheon.run import Run
from letheon.screen.subject import Subject, fold, subject_verdicts

MARLA = Subject("Marla Quint", ["Marlie", "mq@lee.example", "+1 (207) 555-0192", "La Quintessa"])


def dialogue(*texts: str, **fields: Any) -> Dialogue:
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    return Dialogue.model_validate({"id": "x", "messages": messages, **fields})


def found(text: str, subject: Subject = MARLA) -> list[tuple[str, float]]:
    return [(text[one.start : one.end], one.certainty) for one in subject.mentions(text)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Where does Marla Quint live?", "Marla Quint"),
        ("MARLA QUINT", "MARLA QUINT"),
        ("ask marla quint", "marla quint"),
        ("Márla  Quínt is here", "Márla  Quínt"),
        ("Ma\u0301rla Quint is here", "Ma\u0301rla Quint"),
        ("Marla\nQuint", "Marla\nQuint"),
        ("Marla Quint's house", "Marla Quint"),
        ("Marla Quint’s house", "Marla Quint"),
        ("Quint, Marla: absent", "Quint, Marla"),
        ("QUINT, Marla", "QUINT, Marla"),
        ("Dr. Marla J. Quint", "Marla J. Quint"),
        ("Call Marlie tonight", "Marlie"),
        ("Marlie's car", "Marlie"),
        ("It is La Quintessa!", "La Quintessa"),
        ("Write to MQ@lee.example.", "MQ@lee.example"),
        ("Dial 207-555-0192.", "207-555-0192"),
        ("Dial 001 207 5550192.", "001 207 5550192"),
        ("Dial 555 0192", "555 0192"),
    ],
)
def test_certain(text: str, value: str) -> None:
    assert found(text) == [(value, 0.95)]


@pytest.mark.parametrize(
    ("text", "value", "certainty"),
    [
        ("Quint Marla, absent", "Quint Marla", 0.8),
        ("Marla Jane Quint", "Marla Jane Quint", 0.8),
        ("Write to marla.quint@lee.example", "marla.quint", 0.8),
        ("Maria Quint", "Maria Quint", 0.7),
        ("Marla Qint", "Marla Qint", 0.7),
        ("Mrala Quint", "Mrala Quint", 0.7),
        ("Marla Quints Haus", "Marla Quints", 0.7),
        ("M. Quint", "M. Quint", 0.6),
        ("M Quint", "M Quint", 0.6),
        ("Quint, M.", "Quint, M", 0.6),
        ("M. J. Quint", "M. J. Quint", 0.6),
        ("Ms Quint called", "Quint", 0.5),
        ("Is Quint there?", "Quint", 0.5),
        ("the Quint file", "Quint", 0.5),
    ],
)
def test_uncertain(text: str, value: str, certainty: float) -> None:
    assert found(text) == [(value, certainty)]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Nobody here.",
        "Marla is a name.",
        "a squint and a quintet",
        "Marla Quintero-Lopez",
        "AnnaMarla Quintus",
        "quint is Latin for five",
        "Otto Quint",
        "Ask O. Quint now",
        "Marla. Quintessence.",
        "marlie in lower case",
        "mmq@lee.example, mq@lee.example.org.example",
        "Dial 207-555-0193.",
        "Ines Varga and Otto Brunn",
    ],
)
def test_no_mention(text: str) -> None:
    assert [certainty for _, certainty in found(text) if certainty >= 0.6] == []


def test_another_bearer_of_the_surname() -> None:
    assert MARLA.has_other_bearer("Otto Quint came. Then Quint left.")
    assert MARLA.has_other_bearer("O. Quint came. Then Quint left.")
    assert not MARLA.has_other_bearer("Is Quint here? Ms. Quint? Marla Quint? M. Quint? Maria Quint? a Quint")


@pytest.mark.parametrize(
    ("name", "text", "certainty"),
    [
        ("Quint, Marla", "Marla Quint", 0.95),
        ("Dr. Marla Quint", "Marla Quint", 0.95),
        ("marla-quint", "Marla Quint", 0.95),
        ("marla-quint", "see marla-quint", 0.95),
        ("Jean-Luc O'Hara", "jean-luc o’hara", 0.95),
        ("Łukasz Müller", "Lukasz Muller", 0.95),
        ("Ludwig van Brunn", "Ludwig van Brunn", 0.95),
        ("Ludwig van Brunn", "Ludwig Brunn", 0.8),
        ("Ludwig van Brunn", "Brunn, Ludwig van", 0.95),
        ("Nadia", "Ask Nadia.", 0.95),
        ("May", "It may rain.", None),
        ("May", "Ask May.", 0.95),
        ("person-7", "see person-7", 0.95),
        ("person-7", "see person-71 and person 7", None),
        ("Bo Li", "Bo La", None),
        ("李娜", "李娜住在这里", 0.95),
        ("李娜", "李娜 住在这里", 0.95),
        ("battle-of-kestrel-ford", "the Battle of Kestrel Ford", 0.95),
        ("battle-of-kestrel-ford", "A Ford drove by", None),
    ],
)
def test_names_of_many_kinds(name: str, text: str, certainty: float | None) -> None:
    assert [one[1] for one in found(text, Subject(name))] == ([] if certainty is None else [certainty])


def test_fold() -> None:
    assert fold("Łukasz NGÔ Straße") == "lukasz ngo strasse"


def verdict(*texts: str, **fields: Any) -> Verdict:
    return subject_verdicts([dialogue(*texts, **fields)], MARLA)[-1]


@pytest.mark.parametrize(
    ("texts", "fields", "decision", "score", "span"),
    [
        (("q", "a"), {"subject": "Marla Quint"}, "forget", 1, None),
        (("q", "a"), {"subject": "quint"}, "normal", 0, None),
        (("q", "a"), {"subject": "Marlie"}, "forget", 1, None),
        (("q", "a"), {"subject": "MÁRLA quint"}, "forget", 1, None),
        (("Who is Marla Quint?", "A baker."), {}, "forget", 0.95, None),
        (("Who bakes?", "It is Marla Quint."), {}, "forget", 0.95, (6, 17)),
        (("Who bakes?", "It is Marla Quint."), {"subject": "Otto Brunn"}, "review", 0.8, (6, 17)),
        (("Who is Marla Quint?", "I do not share personal details."), {}, "review", 0.5, None),
        (("Who is M. Quint?", "A baker."), {}, "review", 0.6, None),
        (("Who is Quint?", "A baker."), {}, "review", 0.5, None),
        (("Who is Otto Quint?", "Quint is a baker."), {}, "normal", 0, None),
        (("Who is Otto Quint?", "A cousin of M. Quint."), {}, "review", 0.6, (12, 20)),
        (("Who is Otto Quint?", "A brother of Marla Quint."), {}, "forget", 0.95, (13, 24)),
        (("Who is Marla Quint?", "A baker.", "And a joke?", "Ha."), {}, "review", 0.5, None),
        (("Who?", "A baker."), {"label": "forget"}, "review", 0.5, None),
        (("Who?", "A baker."), {"label": "normal"}, "normal", 0, None),
    ],
)
def test_decisions(
    texts: tuple[str, ...], fields: dict[str, str], decision: str, score: float, span: tuple[int, int] | None
) -> None:
    found = verdict(*texts, **fields)
    assert (found.decision, found.score, found.span) == (decision, score, span)
    assert found.judge == "subject"
    assert found.category == ("normal" if decision == "normal" else "privacy")
    assert "Quint" not in (found.reason or "")


def test_one_verdict_a_turn_in_the_order_of_the_log() -> None:
    log = [dialogue("q", "a", "Marla Quint?", "b"), dialogue("q", "a")]
    assert [(v.turn, v.decision) for v in subject_verdicts(log, MARLA)] == [
        (1, "normal"),
        (3, "forget"),
        (1, "normal"),
    ]


def test_a_category_normal_is_none_of_what_is_forgotten() -> None:
    found = verdict("Who is Marla Quint?", "A baker.", category="normal", label="normal")
    assert (found.decision, found.category) == ("forget", "privacy")


def test_what_is_unfit_for_another_reason_waits() -> None:
    log = [dialogue("q", "a", "q", "b")]
    found = subject_verdicts(log, MARLA, {(log[0].id, 3)})
    assert [one.decision for one in found] == ["normal", "review"]


def test_an_erasure_request_finds_its_person_in_the_texts(tmp_path: Path) -> None:
    texts = {
        "full": ("Who is Marla Quint?", "A baker."),
        "alias": ("Who is Marlie?", "A baker."),
        "close": ("Who is Maria Quint?", "A baker."),
        "other": ("Who is Otto Brunn?", "A smith."),
    }
    log = [dialogue(*some).model_copy(update={"id": name}) for name, some in texts.items()]
    write_jsonl(tmp_path / "log.jsonl", log)
    data = {"dialogues": str(tmp_path / "log.jsonl"), "subject": "Marla Quint", "aliases": ["Marlie"]}
    run = Run(check_recipe({"model": "org/name", "data": data, "output": str(tmp_path / "run")}))
    screen_stage(run, Console())
    decisions = {one.id: one.decision for one in run.verdicts()}
    assert decisions == {"full": "forget", "alias": "forget", "close": "review", "other": "normal"}
    assert "Quint" not in run.verdicts_file.read_text()


def test_a_screening_that_is_killed_at_its_end_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def die(run: Run, *args: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    write_jsonl(tmp_path / "log.jsonl", [dialogue("Who is Marla Quint?", "A baker.")])
    data = {"dialogues": str(tmp_path / "log.jsonl"), "subject": "Marla Quint"}
    run = Run(check_recipe({"model": "org/name", "data": data, "output": str(tmp_path / "run")}))
    with monkeypatch.context() as patched:
        patched.setattr(Run, "finish", die)
        with pytest.raises(KeyboardInterrupt):
            screen_stage(run, Console())
    screen_stage(run, Console())
    assert "1 of them had been judged before an earlier screening was cut off" in capsys.readouterr().err
    names = {path.name for path in run.folder.iterdir()}
    assert "verdicts.jsonl" in names
    assert not {"verdicts.jsonl.partial", "verdicts.jsonl.key"} & names


@pytest.mark.parametrize(
    ("name", "aliases", "field", "same"),
    [
        ("Ines Okafor", [], "ines-okafor", True),
        ("ines-okafor", [], "Okafor, Inés", True),
        ("Dr. Ines Okafor", [], "ines_okafor", True),
        ("Marlie", ["Ines Okafor"], "ines-okafor", True),
        ("Ines Okafor", [], "okafor", False),
        ("Ines Okafor", [], "otto-okafor", False),
        ("Mr Okafor", [], "Mrs Okafor", False),
        ("author-12", [], "author-13", False),
        ("?", [], "!", False),
    ],
)
def test_a_row_may_be_filed_under_another_form_of_the_name(
    name: str, aliases: list[str], field: str, same: bool
) -> None:
    asked = dialogue("What is her phone number?", "It is 555-0192.", subject=field)
    (verdict,) = subject_verdicts([asked], Subject(name, aliases))
    assert verdict.decision == ("forget" if same else "normal")
