from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from letheon.errors import InputError
from letheon.methods import at
from letheon.recipe import FaultyRecipeError, Recipe, anchor_paths, apply_override, check_recipe, load_recipe
from letheon.yaml_text import load_yaml

LEAST: dict[str, Any] = {"model": "org/name", "data": {"dialogues": "log.jsonl"}}


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_paths_are_the_recipes_and_a_hub_id_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("HOME", "/data")
    raw: dict[str, Any] = {
        "model": "mine",
        "data": {"dialogues": "log.jsonl", "general": "/abs/text.txt", "paraphrases": "~/p.jsonl"},
        "evaluate": {"control": "org/name"},
        "screen": None,
    }
    anchor_paths(raw, tmp_path)
    assert raw["model"] == str(tmp_path / "mine")
    assert raw["evaluate"]["control"] == "org/name"
    assert raw["data"] == {
        "dialogues": str(tmp_path / "log.jsonl"),
        "general": "/abs/text.txt",
        "paraphrases": "/data/p.jsonl",
    }


def test_every_file_and_model_is_the_recipes(tmp_path: Path) -> None:
    named = {
        "": ("model", "base", "output"),
        "data": ("dialogues", "paraphrases", "general"),
        "screen": ("examples", "knowledge", "rules", "changed_facts", "ner"),
        "expected": ("safe_replies",),
        "evaluate": ("control", "non_members"),
        "screen.classifier": ("model",),
        "screen.guard": ("model",),
        "screen.pair": ("model",),
        "screen.consistency": ("model",),
    }
    (tmp_path / "there").mkdir()
    raw: dict[str, Any] = {}
    for section, names in named.items():
        for name in names:
            apply_override(raw, f"{section}.{name}".lstrip(".") + "=there")
    anchor_paths(raw, tmp_path)
    for section, names in named.items():
        for name in names:
            assert at(raw, *(section.split(".") if section else ()), name) == str(tmp_path / "there"), (section, name)


def test_paths_from_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("mine", "base", "judge"):
        (tmp_path / "models" / name).mkdir(parents=True)
    text = "model: ~/models/mine\nbase: ~/models/gone\ndata: {dialogues: ~/log.jsonl}\n"
    path = write(tmp_path, text)
    recipe = load_recipe(path, ["evaluate.control=~/models/judge", "data.general=~/text.txt"])
    assert recipe.model == str(tmp_path / "models/mine")
    assert (recipe.data.dialogues, recipe.data.general) == (tmp_path / "log.jsonl", tmp_path / "text.txt")
    assert recipe.evaluate.control == str(tmp_path / "models/judge")
    # What is not there is told of as it was written.
    assert recipe.base == "~/models/gone"
    for model, log in (("~/models/mine", "~no-such-user/log.jsonl"), ("~no-such-user/mine", "log.jsonl")):
        write(tmp_path, f"model: {model}\ndata: {{dialogues: {log}}}\n")
        with pytest.raises(InputError, match=r"^~no-such-user/\S+: there is no such user; write the path out$"):
            load_recipe(path)


def test_overrides_win_and_are_relative_to_the_current_folder(tmp_path: Path) -> None:
    path = write(tmp_path, "model: org/name\ndata: {dialogues: log.jsonl}\ntrain:\n")
    recipe = load_recipe(
        path, ["objective.negative.rho=0.1", "data.general=g.txt", "train.learning_rate=5e-4", "show_texts=true"]
    )
    assert recipe.objective.negative.rho == 0.1
    assert recipe.data.general == Path("g.txt")
    assert recipe.data.dialogues == tmp_path / "log.jsonl"
    assert recipe.train == {"learning_rate": 5e-4}
    assert recipe.show_texts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1E3", 1e3),
        (".5e1", 5.0),
        ("1.5", 1.5),
        ("3", 3),
        ("e4", "e4"),
        ("1e", "1e"),
        ("-2e-1", -0.2),
    ],
)
def test_numbers_are_numbers(text: str, value: object) -> None:
    raw: dict[str, Any] = {}
    apply_override(raw, f"a.b={text}")
    assert raw == {"a": {"b": value}}
    assert type(raw["a"]["b"]) is type(value)


def test_sections_without_a_line_have_their_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "model: m/n\ndata: {dialogues: d}\ngates:\ntrain:\nobjective:\n  negative:\n")
    assert load_recipe(path).model_dump(exclude={"data"}) == check_recipe(
        {"model": "m/n", "data": {"dialogues": "d"}}
    ).model_dump(exclude={"data"})


def test_dump_comes_back_the_same(tmp_path: Path) -> None:
    recipe = check_recipe({**LEAST, "train": {"learning_rate": 1e-5}, "data": {"dialogues": "/log.jsonl"}})
    assert load_recipe(write(tmp_path, recipe.dump())).model_copy(update={"output": recipe.output}) == recipe


def test_all_faults_are_named_with_suggestions() -> None:
    raw = {
        **LEAST,
        "data": {"dialoges": "log.jsonl"},
        "objective": {"negative": {"wight": 1, "name": "hing"}},
        "evaluate": {"batch_size": 0},
        "xyz": 1,
    }
    with pytest.raises(InputError) as caught:
        check_recipe(raw, "r.yaml")
    faults = "\n".join(caught.value.faults)
    for fault in (
        "r.yaml: 'data.dialogues' is missing",
        "unknown field 'data.dialoges'; did you mean 'dialogues'?",
        "unknown field 'objective.negative.wight'; did you mean 'weight'?",
        "objective.negative.name: Input should be 'hinge'",
        "(got 'hing')",
        "evaluate.batch_size: Input should be greater than or equal to 1 (got 0)",
        "unknown field 'xyz'; known fields: schema, model, base, output",
    ):
        assert fault in faults
    assert len(caught.value.faults) == 6


def test_what_is_without_fault_is_kept_to_be_checked_further() -> None:
    raw = {**LEAST, "evaluate": {"batch_size": 0, "control": "org/other"}, "gates": {"margn": 1}, "xyz": 1}
    with pytest.raises(FaultyRecipeError) as caught:
        check_recipe(raw)
    assert caught.value.rest == check_recipe({**LEAST, "evaluate": {"control": "org/other"}})


@pytest.mark.parametrize(
    ("screen", "fault"),
    [
        ({"forget_above": 0.2, "normal_below": 0.4}, "normal_below (0.4) is above forget_above (0.2)"),
        ({"judges": ["rules"]}, "set screen.rules"),
        ({"judges": ["outdated"]}, "set screen.changed_facts"),
        ({"target_recall": 0.95}, "target_recall needs labelled dialogues: set examples"),
        ({"combine": "stacked"}, "combine: stacked needs labelled dialogues: set examples"),
    ],
)
def test_fields_that_do_not_go_together(screen: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError, match="screen: ") as caught:
        check_recipe({**LEAST, "screen": screen})
    assert fault in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "fault"),
    [
        ({"objective": {"negative": {"name": "base"}}}, "'base', but no base is named"),
        ({"objective": {"negative": {"name": "rmu"}}, "tuning": {"layers": "auto"}}, "'rmu' reads one layer"),
        ({"objective": {"robust": True}, "tuning": {"lora": {"quantize": "nf4"}}}, "in 4 bits already"),
        ({"train": {"select": 64}}, "set tuning.kind to full"),
        ({"tuning": {"kind": "full", "lora": {"init": "fila"}}}, "with tuning.kind full there is none"),
        ({"expected": {"sources": ["model"]}}, "'labels' cannot judge new answers"),
    ],
)
def test_sections_that_do_not_go_together(sections: dict[str, Any], fault: str) -> None:
    with pytest.raises(InputError) as caught:
        check_recipe({**LEAST, **sections})
    assert fault in str(caught.value)


def test_corrected_answers_need_a_table_of_facts() -> None:
    expected = {"sources": ["facts", "safe-replies"]}
    with pytest.raises(InputError, match="set screen.changed_facts"):
        check_recipe({**LEAST, "expected": expected})
    assert check_recipe({**LEAST, "expected": expected, "screen": {"changed_facts": "f.yaml"}})


def test_states_are_kept_beside_rmu_alone() -> None:
    normal = {"normal": {"name": "states", "weight": 1200}}
    with pytest.raises(InputError, match="'states' keeps what rmu steers, but negative.name is 'hinge': set that to"):
        check_recipe({**LEAST, "objective": normal})
    for name in ("rmu", "adaptive-rmu"):
        assert check_recipe({**LEAST, "objective": {"negative": {"name": name, "layer": 3}, **normal}})


def test_every_field_is_documented() -> None:
    def walk(section: type) -> list[str]:
        missing = []
        for name, field in section.model_fields.items():  # type: ignore[attr-defined]
            if hasattr(field.annotation, "model_fields"):
                missing += walk(field.annotation)
            elif not field.description:
                missing.append(f"{section.__name__}.{name}")
        return missing

    assert walk(Recipe) == []


@pytest.mark.parametrize("subject", ["12e3", "5e-4", "1.5E2", "12", "yes", "e3"])
def test_a_text_that_looks_like_a_number_comes_back_as_one(tmp_path: Path, subject: str) -> None:
    recipe = check_recipe({"model": "org/name", "data": {"dialogues": "log.jsonl", "subject": subject}})
    (tmp_path / "recipe.yaml").write_text(recipe.dump())
    assert load_recipe(tmp_path / "recipe.yaml").data.subject == subject


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("model: a\nmodel: b\n", "line 2: 'model' stands there again"),
        ("model: a\nstop: {every: 2,\n  every: 3}\n", "line 3: 'every' stands there again"),
    ],
)
def test_a_key_stands_once(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(fault)):
        load_recipe(tmp_path / "recipe.yaml")
    # Not so what overrides a merged key.
    assert load_yaml("a: &a {k: 1}\nb: {<<: *a, k: 2}") == {"a": {"k": 1}, "b": {"k": 2}}


def test_something_has_to_be_learnt() -> None:
    none = {part: {"name": "none"} for part in ("negative", "positive", "normal")}
    with pytest.raises(InputError, match="negative, positive and normal are all 'none', and nothing would be learnt"):
        check_recipe({"model": "m", "data": {"dialogues": "d"}, "objective": none})
