from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from letheon.cli import app
from letheon.records import Dialogue
from letheon.screen.privacy import names_by_patterns
from letheon.screen.subjects import SubjectRow, list_subjects


def dialogue(name: str, question: str, answer: str, subject: str | None = None) -> Dialogue:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Dialogue.model_validate({"id": name, "messages": messages, "subject": subject})


LOG = [
    dialogue("a", "Where does Marla Quint live?", "Marla Quint lives at 15 Fern Hollow; dial 207-555-0192."),
    dialogue("b", "Is Ms. Quint there?", "Write to marla@lee.example."),
    dialogue("c", "Who is Márla Quint?", "A baker.", "marla-quint"),
    dialogue("d", "Call Mr. Otto Brunn.", "His number is 207 555 0192, mail MARLA@lee.example."),
    dialogue("e", "What about Mr. Lee?", "Ann Lee and Bob Lee are both here."),
    dialogue("f", "What is red?", "A colour.", "colours"),
]


def test_forms_of_a_name_are_one_person() -> None:
    rows = {(row.kind, row.label): row.dialogues for row in list_subjects(LOG, names_by_patterns)}
    assert rows == {
        ("person", "Marla Quint"): ("a", "b", "c"),
        ("phone", "207-555-0192"): ("a", "d"),
        ("e-mail", "marla@lee.example"): ("b", "d"),
        ("person", "Mr. Otto Brunn"): ("d",),
        # Two persons have the surname: whose it is stays open.
        ("person", "Mr. Lee"): ("e",),
        ("person", "Ann Lee"): ("e",),
        ("person", "Bob Lee"): ("e",),
        ("subject", "colours"): ("f",),
    }
    assert [row.label for row in list_subjects(LOG, names_by_patterns)][:1] == ["Marla Quint"]


@pytest.mark.parametrize(
    ("kind", "label", "masked"),
    [
        ("person", "Marla J. Quint", "M. J. Q."),
        ("subject", "marla-quint", "m. q."),
        ("e-mail", "marla@lee.example", "m…@l…"),
        ("phone", "207-555-0192", "…92"),
    ],
)
def test_masks(kind: str, label: str, masked: str) -> None:
    assert SubjectRow(kind, label, ()).masked == masked


def test_the_command_shows_names_only_when_asked(tmp_path: Path) -> None:
    data = tmp_path / "log.jsonl"
    data.write_text("".join(one.model_dump_json(exclude_none=True) + "\n" for one in LOG))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: org/name\ndata: {dialogues: log.jsonl}\nscreen: {ner: patterns}\n")
    hidden = CliRunner().invoke(app, ["subjects", str(recipe)])
    assert hidden.exit_code == 0
    assert "8 subjects in 6 dialogues" in hidden.output
    assert not [word for word in ("Marla", "Quint", "marla@", "0192", "Fern", "baker") if word in hidden.output]
    shown = CliRunner().invoke(app, ["subjects", str(recipe), "--show", "--most", "3"])
    assert "Marla Quint" in shown.output
    assert "and 5 more: --most 8" in shown.output
    assert "Fern" not in shown.output
    assert json.loads(data.read_text().splitlines()[0])["id"] == "a"
