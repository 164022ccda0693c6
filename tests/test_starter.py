from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from letheon.recipe import check_recipe, load_recipe
from talk import talk_rows

Letheon = Callable[..., tuple[int, str, str]]


def test_starter_validates_and_runs(talk: Path, letheon: Letheon) -> None:
    code, out, err = letheon("init", "log.jsonl", "model", "--output", "recipes/mine.yaml")
    assert (code, out) == (0, "")
    assert "recipes/mine.yaml: written for 12 dialogues (6 labelled 'forget')" in err
    assert "next: letheon validate recipes/mine.yaml && letheon run recipes/mine.yaml" in err
    assert letheon("validate", "recipes/mine.yaml")[0] == 0
    code, _, err = letheon("run", "recipes/mine.yaml", "--set", "train.max_steps=1")
    assert code in (0, 1), err
    assert (talk / "recipes/runs/mine/results.json").is_file()


def test_starter_spells_out_the_defaults(talk: Path, letheon: Letheon) -> None:
    assert letheon("init", "log.jsonl", "org/name", "-o", "mine.yaml")[0] == 0
    text = (talk / "mine.yaml").read_text()
    found = load_recipe(talk / "mine.yaml")
    least = check_recipe({"model": "org/name", "data": {"dialogues": str(talk / "log.jsonl")}})
    assert found == least.model_copy(update={"output": talk / "runs/mine"})
    assert yaml.safe_load(text)["objective"]["normal"]["budget"] == 1.1
    # What a distance has of its own is named, and left open: another one has none of it.
    assert "    # rho:" in text
    assert "  # paraphrases:" in text
    # Every setting has its help above it.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for before, line in zip(lines, lines[1:], strict=False):
        name, _, value = line.partition(": ")
        if (
            name.isidentifier()
            and value
            and not value.startswith("#")
            and name not in ("schema", "model")
            and "  # " not in line
        ):
            assert before.startswith("#"), line


def test_without_labels_the_privacy_judge_looks(talk: Path, letheon: Letheon) -> None:
    rows = [{key: value for key, value in row.items() if key != "label"} for row in talk_rows()]
    (talk / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = letheon("init", "log.jsonl", "model", "-o", "mine.yaml")
    assert code == 0
    assert "not every dialogue has a label: the judge 'privacy'" in err
    assert load_recipe(talk / "mine.yaml").screen.judges == ["privacy"]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("log.jsonl", "model"), "recipe.yaml: exists; pass --force"),
        (("gone.jsonl", "model", "-o", "new.yaml"), "gone.jsonl: no such file"),
        (("log.jsonl", "./gone", "-o", "new.yaml"), "./gone: no such model folder"),
    ],
)
def test_starter_refuses(talk: Path, letheon: Letheon, arguments: tuple[str, ...], fault: str) -> None:
    before = (talk / "recipe.yaml").read_bytes()
    code, _, err = letheon("init", *arguments)
    assert (code, fault in err, len(err.splitlines())) == (2, True, 1)
    assert (talk / "recipe.yaml").read_bytes() == before
    assert not (talk / "new.yaml").exists()


def test_all_that_is_wrong_is_named_together(talk: Path, letheon: Letheon) -> None:
    code, _, err = letheon("init", "gone.jsonl", "./gone", "-o", "new.yaml", "--method", "nonsense")
    assert (code, len(err.splitlines())) == (2, 3)
    assert all(
        fault in err for fault in ("no method 'nonsense'", "./gone: no such model", "gone.jsonl: no such file")
    )


def test_force_overwrites(talk: Path, letheon: Letheon) -> None:
    assert letheon("init", "log.jsonl", "model", "--force")[0] == 0
    assert (talk / "recipe.yaml").read_text().startswith("# A Letheon recipe: letheon run recipe.yaml")
