from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from letheon.console import Console
from letheon.errors import InputError
from letheon.material import expected_of, split_of
from letheon.pipeline import screen_stage
from letheon.recipe import check_recipe
from letheon.records import Dialogue, Turn
from letheon.run import Run
from letheon.screen.judge import Opinion
from letheon.screen.outdated import BESIDE, ELSEWHERE, PAST, STATED, ChangedFact, OutdatedJudge, read_changed_facts


def turn(question: str, answer: str) -> Turn:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Dialogue.model_validate({"id": "x", "messages": messages}).last_turn


def fact(**fields: Any) -> ChangedFact:
    return ChangedFact.model_validate(fields)


MAYOR = fact(about=["Greyfell", "mayor"], old=["Otto Brunn", "Mr Brunn"], new="Ines Varga", since=2021)
FARE = fact(about="tram|trams|streetcar", old="2 crowns", aliases=["two crowns"], new="3 crowns", since="May 2023")
NAME = fact(old="Macedonia", new="North Macedonia", since="2019-02")
JUDGE = OutdatedJudge([MAYOR, FARE, NAME])


def opinion(question: str, answer: str) -> Opinion:
    (found,) = JUDGE.judge([turn(question, answer)])
    assert found is not None
    return found


WHO = "Who is the mayor of Greyfell?"


@pytest.mark.parametrize(
    ("question", "answer", "score"),
    [
        (WHO, "The mayor is Otto Brunn.", STATED),
        (WHO, "OTTO  BRUNN", STATED),
        (WHO, "It is Mr Brunn, and he likes cats.", STATED),
        (WHO, "Otto Brunn was elected mayor in 2016.", STATED),
        (WHO, "Otto Brunn has been mayor since 2016.", STATED),
        (WHO, "Otto Brunn, who was born in 1960, is the mayor.", STATED),
        (WHO, "As of today it’s Otto Brunn.", STATED),
        ("Tell me about Greyfell.", "It is a town. Its mayor is Otto Brunn.", STATED),
        (WHO, "The mayor was Otto Brunn until 2021.", PAST),
        (WHO, "Otto Brunn used to be the mayor.", PAST),
        (WHO, "Not Otto Brunn any more.", PAST),
        (WHO, "Otto Brunn is no longer the mayor.", PAST),
        (WHO, "Otto Brunn, the former mayor, now paints.", PAST),
        (WHO, "Otto Brunn (2016–2021) held the office.", PAST),
        (WHO, "In 2018 it is Otto Brunn who holds the office.", PAST),
        (WHO, "In 2021 it is Otto Brunn who holds the office.", STATED),
        (WHO, "In 2018 and in 2024 it is Otto Brunn who holds the office.", STATED),
        (WHO, "Otto Brunn was succeeded by somebody.", PAST),
        (WHO, "Somebody replaced the popular Otto Brunn.", PAST),
        ("Who was mayor of Greyfell in 2018?", "Otto Brunn.", PAST),
        ("Who held office as mayor of Greyfell in 2018?", "Otto Brunn.", PAST),
        ("Who was mayor of Greyfell in 2018?", "Otto Brunn is the mayor.", STATED),
        (WHO, "Ines Varga is the mayor and took over from Otto Brunn.", BESIDE),
        (WHO, "Otto Brunn is the mayor. Ines Varga is another name that is heard.", BESIDE),
        (WHO, "Otto Brunn is the mayor. He is kind. He is tall. Ines Varga lives in Greyfell.", ELSEWHERE),
        (WHO, "Ines Varga.", 0),
        (WHO, "I do not know.", 0),
        ("Who is your friend?", "It is Otto Brunn.", 0),
        ("Who is the mayor of Norwick?", "It is Otto Brunn.", 0),
        (WHO, "It is Otto Brunner.", 0),
        ("What is a tram ride?", "It costs two crowns.", STATED),
        ("What is a bus ride?", "It costs two crowns.", 0),
        ("Where is Skopje?", "In Macedonia.", STATED),
        ("Where is Skopje?", "In North Macedonia.", 0),
        ("Where is Skopje?", "In North  macedonia, which is near Greece.", 0),
    ],
)
def test_score(question: str, answer: str, score: float) -> None:
    assert opinion(question, answer).score == score


def test_the_worst_value_gives_the_span_and_the_reason_quotes_nothing() -> None:
    answer = "A tram ride was 2 crowns once. Now a tram ride is 2 crowns."
    found = opinion("q", answer)
    assert found == Opinion(
        "outdated",
        STATED,
        (answer.rindex("2"), len(answer) - 1),
        "old value of changed fact 2 stated as current (changed May 2023)",
    )
    assert opinion("q", "nothing") == Opinion("normal", 0.0, None, "states no old value of a changed fact")


def test_corrected_answers_have_the_new_value_where_the_old_was_stated() -> None:
    assert JUDGE.corrected(turn(WHO, "The mayor is Mr Brunn, and a tram ride is two crowns.")) == (
        "The mayor is Ines Varga, and a tram ride is 3 crowns."
    )
    assert JUDGE.corrected(turn(WHO, "It was Otto Brunn once. It is Otto Brunn.")) == (
        "It was Otto Brunn once. It is Ines Varga."
    )
    assert JUDGE.corrected(turn(WHO, "It was Otto Brunn once.")) is None
    assert JUDGE.corrected(turn(WHO, "Ask somebody else.")) is None


def test_read(tmp_path: Path) -> None:
    rows = [MAYOR, FARE]
    yaml = tmp_path / "facts.yaml"
    yaml.write_text(
        "- {about: [Greyfell, mayor], old: [Otto Brunn, Mr Brunn], new: Ines Varga, since: 2021}\n"
        "- {about: tram|trams|streetcar, old: 2 crowns, aliases: [two crowns], new: 3 crowns, since: May 2023}\n"
    )
    assert read_changed_facts(yaml) == rows
    lines = tmp_path / "facts.jsonl"
    lines.write_text("".join(row.model_dump_json() + "\n" for row in rows) + "\n")
    assert read_changed_facts(lines) == rows
    table = tmp_path / "facts.csv"
    table.write_text(
        'about,old,new,since,aliases\n"[""Greyfell"", ""mayor""]","[""Otto Brunn"", ""Mr Brunn""]",Ines Varga,2021,\n'
        "tram|trams|streetcar,2 crowns,3 crowns,May 2023,two crowns\n"
    )
    assert read_changed_facts(table) == rows


def test_a_date_and_a_number_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "facts.yaml"
    path.write_text("- {old: 27, new: [28], since: 2020-07-01}\n")
    (found,) = read_changed_facts(path)
    assert (found.old, found.new, found.since, found.year) == (("27",), ("28",), "2020-07-01", 2020)


@pytest.mark.parametrize(
    ("name", "text", "faults"),
    [
        ("f.yaml", "[]", ["no facts in it"]),
        ("f.yaml", "a: 1", ["expected a list of facts"]),
        ("f.yaml", "- [", ["not valid YAML"]),
        ("f.yaml", "- {old: a, new: b}\n- {old: a, since: 2021-02-30}", ["not valid YAML: line 2: no such"]),
        # Not the line itself, which may be of what is to be forgotten.
        ("f.yaml", "- old: Secret Lane: 4", ["not valid YAML: line 1: mapping values are not allowed here"]),
        ("f.yaml", "- {old: a}\n- {old: '', new: b, nwe: c}\n", ["1: 'new' is missing", "empty text", "'nwe'"]),
        ("f.jsonl", '{"old": "a", "new": "b"}\n{\n', [":2: bad JSON"]),
        ("f.jsonl", "1" * 5000, [":1: bad JSON: a number has too many digits"]),
        ("f.csv", "old,new\na,b\nc,\n", [":3: 'new' is missing"]),
        ("f.csv", "old,new\na,b, c\nc,\n", [":2: not as many cells", ":3: 'new' is missing"]),
        ("f.csv", "old,old\na,b\n", [":1: two columns of the header have one name"]),
        ("f.csv", f"old,new\na,{'b' * 200_000}\nc,\n", [":3: 'new' is missing"]),
        ("f.txt", "x", ["known: .yaml, .yml, .jsonl, .csv"]),
    ],
)
def test_every_fault_is_named_with_its_place(tmp_path: Path, name: str, text: str, faults: list[str]) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as caught:
        read_changed_facts(tmp_path / name)
    assert len(caught.value.faults) == len(faults)
    for fault in faults:
        assert fault in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_changed_facts(tmp_path / "none.yaml")


def test_a_recipe_draws_the_model_to_corrected_answers(tmp_path: Path) -> None:
    (tmp_path / "facts.yaml").write_text("- {old: Otto Brunn, new: Ines Varga}\n")
    (tmp_path / "log.jsonl").write_text(
        '{"id": "a", "question": "Who is mayor?", "answer": "Otto Brunn is mayor."}\n'
        '{"id": "b", "question": "Who is mayor?", "answer": "Ines Varga is mayor."}\n'
    )
    raw = {
        "model": "org/name",
        "output": str(tmp_path / "run"),
        "data": {"dialogues": str(tmp_path / "log.jsonl")},
        "screen": {"judges": ["outdated"], "changed_facts": str(tmp_path / "facts.yaml")},
        "expected": {"sources": ["facts"]},
    }
    run = Run(check_recipe(raw))
    screen_stage(run, Console())
    assert [one.decision for one in run.verdicts()] == ["forget", "normal"]
    (target,) = expected_of(run, split_of(run))
    assert target.answers == ("Ines Varga is mayor.",)
