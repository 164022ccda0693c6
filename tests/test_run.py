from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from filelock import FileLock

from letheon.errors import InputError, LetheonError
from letheon.models import load_tokenizer
from letheon.recipe import check_recipe
from letheon.records import Results
from letheon.run import RESOLVED, Run

STAGES = ("screen", "unlearn", "evaluate")


def current(run: Run) -> list[str]:
    return [stage for stage in STAGES if run.is_current(stage)]


@pytest.mark.parametrize(
    ("override", "left"),
    [
        ("seed=1", []),
        # Training depends on it by the verdicts, once they are redone.
        ("data.subject=person-1", ["unlearn", "evaluate"]),
        ("screen.forget_above=0.9", ["unlearn"]),
        ("data.held_out=0.5", ["screen"]),
        ("expected.temperature=1", ["screen"]),
        ("objective.negative.rho=0.3", ["screen"]),
        ("tuning.lora.r=2", ["screen"]),
        ("train.max_steps=9", ["screen"]),
        ("stop.patience=2", ["screen"]),
        ("evaluate.examples=1", ["screen", "unlearn"]),
        ("evaluate.samples=2", ["screen", "unlearn"]),
        ("gates.margin=0.2", ["screen", "unlearn"]),
        ("show_texts=true", ["screen", "unlearn"]),
        ("output=elsewhere", []),
    ],
)
def test_settings_leave_what_does_not_depend_on_them(finished: Path, override: str, left: list[str]) -> None:
    assert current(Run.open(finished / "recipe.yaml")) == list(STAGES)
    assert current(Run.open(finished / "recipe.yaml", [override])) == left


@pytest.mark.parametrize(
    ("name", "left"),
    [("verdicts.jsonl", []), ("samples.jsonl", ["screen", "unlearn"]), ("results.json", ["screen"])],
)
def test_a_stage_without_its_files_is_not_done(finished: Path, name: str, left: list[str]) -> None:
    (finished / "run" / name).unlink()
    assert current(Run.open(finished / "recipe.yaml")) == left


def test_an_attack_without_its_file_is_not_done(finished: Path) -> None:
    run = Run.open(finished / "recipe.yaml")
    run.finish("stress", run.key("stress"))
    assert not run.is_current("stress")
    run.stress_file.write_text("{}")
    assert run.is_current("stress")


def test_files_count_by_content(finished: Path) -> None:
    log = finished / "log.jsonl"
    log.touch()
    assert current(Run.open(finished / "recipe.yaml")) == list(STAGES)
    log.write_text(log.read_text() + "\n")
    assert current(Run.open(finished / "recipe.yaml")) == []


def test_sampled_answers_depend_on_their_length_and_judge(finished: Path) -> None:
    sampling = ["expected.sources=[model]", "screen.judges=[labels, embedding]"]
    plain = Run.open(finished / "recipe.yaml", sampling).key("unlearn")
    for other in ("evaluate.max_new_tokens=5", "screen.forget_above=0.9"):
        assert Run.open(finished / "recipe.yaml", [*sampling, other]).key("unlearn") != plain


def test_started_stages_are_not_done(finished: Path) -> None:
    run = Run.open(finished / "run")
    run.start("unlearn", "evaluate")
    assert current(Run.open(finished / "recipe.yaml")) == ["screen"]
    run.finish("evaluate", run.key("evaluate"))
    manifest = json.loads((finished / "run/manifest.json").read_text())
    assert manifest["schema"] == "letheon/manifest/1"
    assert {"seed", "versions", "hardware", "hashes"} <= manifest.keys()
    assert {"torch", "transformers", "letheon"} <= manifest["versions"].keys()
    assert len(manifest["hashes"]["model"]) == len(manifest["hashes"]["dialogues"]) == 64


def test_saved_recipe_has_absolute_paths(talk: Path) -> None:
    Run.open(talk / "recipe.yaml").save_recipe()
    text = (talk / "run/recipe.yaml").read_text()
    assert text.startswith(RESOLVED)
    raw = yaml.safe_load(text)
    assert Path(raw["data"]["dialogues"]).is_absolute()
    assert Path(raw["model"]).is_absolute()
    assert raw["output"] == str(talk / "run")
    # Its own file may be overwritten.
    Run.open(talk / "run").check(whole=True)


def test_a_hub_id_stays_one(tmp_path: Path) -> None:
    raw = {"model": "org/name", "output": str(tmp_path), "data": {"dialogues": "hub:org/data:train"}}
    Run(check_recipe(raw)).save_recipe()
    saved = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert saved["model"] == "org/name"
    assert saved["data"]["dialogues"].endswith("/hub:org/data:train")


def test_another_output_for_a_run_folders_recipe(finished: Path) -> None:
    assert Run.open(finished / "run", ["output=other"]).folder == Path("other")
    assert Run.open(finished / "run").folder == finished / "run"


def test_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe.yaml in this folder"):
        Run.open(tmp_path)
    with pytest.raises(InputError, match="no such recipe"):
        Run.open(tmp_path / "none.yaml")


def test_a_paragraph_in_which_nothing_can_be_predicted(talk: Path) -> None:
    (talk / "general.txt").write_text("Rain falls.\n\nH\n\nHi\n")
    run = Run.open(talk / "recipe.yaml", ["data.general=general.txt"])
    with pytest.raises(InputError, match="paragraph 2: a text of 1 token") as caught:
        run.check(whole=True)
    assert len(caught.value.faults) == 1


def test_a_non_member_that_is_longer_than_the_context(talk: Path) -> None:
    (talk / "unseen.jsonl").write_text(json.dumps({"id": "u", "question": "Long?", "answer": "a" * 300}) + "\n")
    with pytest.raises(InputError) as caught:
        Run.open(talk / "recipe.yaml", ["evaluate.non_members=unseen.jsonl"]).check()
    (fault,) = caught.value.faults
    assert fault.startswith("unseen.jsonl: dialogue 'u'")


def test_general_text(talk: Path) -> None:
    (talk / "general.txt").write_text("One\ntwo.\n\n\n  Three. \n")
    assert Run.open(talk / "recipe.yaml", ["data.general=general.txt"]).general() == ["One\ntwo.", "Three."]
    (talk / "general.txt").write_text(" \n")
    with pytest.raises(InputError, match="empty"):
        Run.open(talk / "recipe.yaml", ["data.general=general.txt"]).general()


def test_a_clean_model_needs_no_folder(finished: Path) -> None:
    run = Run.open(finished / "recipe.yaml")
    results = Results.load(run.results_file)
    run.model_folder.rename(finished / "moved")
    assert current(run) == ["screen", "evaluate"]
    assert results.stop is not None
    results.stop = results.stop.model_copy(update={"step": 0})
    results.save(run.results_file)
    assert current(run) == list(STAGES)


def test_faults_of_the_judges_files_are_named_together(talk: Path) -> None:
    (talk / "rules.yaml").write_text("- {name: a, category: c, pattern: '(b'}\n")
    overrides = [f"screen.rules={talk / 'rules.yaml'}", "screen.changed_facts=none.csv", "data.aliases=[Ann]"]
    with pytest.raises(InputError) as caught:
        Run.open(talk / "recipe.yaml", overrides).check()
    assert len(caught.value.faults) == 3
    for fault in ("rule 1 ('a'): pattern: not a regular", "none.csv: no such file", "data.aliases: whose?"):
        assert fault in str(caught.value)
    with pytest.raises(InputError) as caught:
        Run.open(talk / "recipe.yaml", ["screen.knowledge=none.txt", "screen.examples=none.jsonl"]).check()
    assert caught.value.faults == ["none.txt: no such file (screen.knowledge)", "none.jsonl: no such file"]
    names = ["screen.judges=[privacy]", "screen.ner=no_such_pipeline"]
    with pytest.raises(LetheonError, match="no_such_pipeline"):
        Run.open(talk / "recipe.yaml", names).check()


def test_files_of_judges_are_the_recipes_and_count_for_the_screening(talk: Path) -> None:
    rules = talk / "rules.yaml"
    rules.write_text("- {name: a, category: c, keywords: [b]}\n")
    recipe = talk / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "screen: {judges: [rules], rules: rules.yaml}\n")
    run = Run.open(talk / "recipe.yaml")
    assert run.recipe.screen.rules == rules
    run.save_recipe()
    assert yaml.safe_load((talk / "run/recipe.yaml").read_text())["screen"]["rules"] == str(rules)
    before = run.key("screen")
    rules.write_text("- {name: a, category: c, keywords: [d]}\n")
    assert run.key("screen") != before


@pytest.mark.parametrize(
    ("settings", "name", "stages"),
    [
        (["data.general=here"], "here", ["evaluate", "stress"]),
        (["data.paraphrases=here"], "here", ["unlearn", "evaluate", "stress"]),
        (["evaluate.non_members=here"], "here", ["evaluate"]),
        (["evaluate.control=other"], "other/here", ["evaluate", "stress"]),
        (["base=other"], "other/here", ["unlearn", "evaluate", "stress"]),
        (["expected.safe_replies=here"], "here", ["unlearn", "evaluate", "stress"]),
        (["screen.changed_facts=here"], "here", ["screen", "evaluate"]),
        (
            ["screen.changed_facts=here", "expected.sources=[data, facts]"],
            "here",
            ["screen", "unlearn", "evaluate", "stress"],
        ),
        (["screen.knowledge=here"], "here", ["screen", "evaluate"]),
        (["screen.examples=here"], "here", ["screen", "evaluate"]),
        (["screen.judges=[consistency]", "model=other"], "other/here", ["screen", "unlearn", "evaluate", "stress"]),
        (["screen.judges=[consistency]", "screen.consistency.model=other"], "other/here", ["screen", "evaluate"]),
    ],
)
def test_a_stage_depends_on_the_files_and_models_that_it_reads(
    talk: Path, settings: list[str], name: str, stages: list[str]
) -> None:
    file = talk / name
    file.parent.mkdir(exist_ok=True)
    keys = []
    for number, text in enumerate(("as it was", "as it is now")):
        file.write_text(text)
        os.utime(file, (number, number))
        run = Run.open(talk / "recipe.yaml", settings)
        keys.append({stage: run.key(stage) for stage in (*STAGES, "stress")})
    assert [stage for stage, key in keys[0].items() if keys[1][stage] != key] == stages


@pytest.mark.parametrize(
    ("verdict", "counts"),
    [
        ({"decision": "review"}, True),
        ({"category": "harmful"}, True),
        ({"score": 0.8, "judge": "person", "reason": "said so"}, False),
    ],
)
def test_of_a_verdict_decision_and_category_count_for_training(
    talk: Path, verdict: dict[str, Any], counts: bool
) -> None:
    run = Run.open(talk / "recipe.yaml")
    run.folder.mkdir()
    said = {"id": "bad-0", "turn": 1, "decision": "forget", "category": "privacy", "score": 0.9, "judge": "privacy"}
    keys = []
    for changes in ({}, verdict):
        run.verdicts_file.write_text(json.dumps({**said, **changes}) + "\n")
        keys.append(run.key("unlearn"))
    assert (keys[0] != keys[1]) == counts


def test_whom_else_a_subject_goes_by_counts_for_the_screening(talk: Path) -> None:
    settings = ["data.subject=person-1", "data.aliases=[Bob]"]
    one, more = (Run.open(talk / "recipe.yaml", settings[:n]) for n in (1, 2))
    assert one.key("screen") != more.key("screen")
    assert one.key("unlearn") == more.key("unlearn")


def test_a_judge_by_other_names_is_another(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(talk / "recipe.yaml", ["screen.judges=[privacy]"])
    keys = []
    for source in ("patterns", "rampart"):
        monkeypatch.setattr("letheon.screen.privacy.source_of", lambda ner, source=source: source)
        keys.append(run.key("screen"))
    assert keys[0] != keys[1]


def test_where_judges_work_changes_nothing(talk: Path) -> None:
    here, there = (
        Run.open(talk / "recipe.yaml", some) for some in ([], ["screen.engine=ray", "screen.ray.workers=2"])
    )
    assert [here.key(stage) for stage in STAGES] == [there.key(stage) for stage in STAGES]


HOLD = """
import sys, time
from pathlib import Path
from letheon.run import Run
run = Run.open(Path("recipe.yaml"))
run.hold()
print("held", flush=True)
sys.stdin.read()
"""


def test_two_processes_do_not_work_in_one_folder(talk: Path, letheon: Any) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for verb in ("run", "screen", "unlearn", "evaluate", "stress"):
            code, out, err = letheon(verb, "recipe.yaml")
            assert (code, out) == (2, "")
            assert "another letheon is at work there; wait until it has ended" in err
        # Another folder is free; and so is this one as soon as that process is gone, however it ended.
        assert letheon("screen", "recipe.yaml", "--set", "output=elsewhere")[0] == 0
        other.kill()
    assert letheon("screen", "recipe.yaml")[0] == 0


def test_a_run_is_of_one_process(talk: Path, letheon: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of several would write and remove the same folders."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    code, _, err = letheon("unlearn", "recipe.yaml")
    assert (code, "a run is one process's, and this is one of 2: start letheon by itself" in err) == (2, True)
    assert not (talk / "run").exists()


def test_a_disk_without_locks_is_said(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def acquire(self: FileLock, **options: Any) -> None:
        raise NotImplementedError

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.warns(UserWarning, match="no locks; see to it that no other letheon works there"):
        Run.open(talk / "recipe.yaml").hold()


def test_models_beside_the_treated_one_have_its_tokens(talk: Path) -> None:
    """One tokenizer serves them all: ids of another would be scored as nonsense, or not at all."""
    shutil.copytree(talk / "model", talk / "other")
    tokenizer = load_tokenizer(str(talk / "model"))
    tokenizer.add_tokens(["onemore"])
    tokenizer.save_pretrained(talk / "other")
    with pytest.raises(InputError) as caught:
        Run.open(talk / "recipe.yaml", ["evaluate.control=other", "base=other"]).check()
    assert caught.value.faults == [
        f"{field}: other has other tokens than the model: name one with the same tokenizer"
        for field in ("evaluate.control", "base")
    ]


def test_paraphrases_are_of_the_log(finished: Path) -> None:
    rows = [{"question": "Reworded?", "answer": "As it was.", "id": f"p{n}", "split": "test"} for n in range(25)]
    of = ["bad-0", *(f"bad {n}" for n in range(1, 25))]
    lines = [json.dumps({**row, "of": name}) + "\n" for row, name in zip(rows, of, strict=True)]
    (finished / "reworded.jsonl").write_text("".join(lines))
    with pytest.raises(InputError) as caught:
        Run.open(finished / "run", [f"data.paraphrases={finished}/reworded.jsonl"]).check()
    first, *_, last = caught.value.faults
    log = Run.open(finished / "run").recipe.data.dialogues
    assert first == f"{finished}/reworded.jsonl: 'p1': of: {log} has no dialogue 'bad 1'"
    assert last == "… and 4 more"


def test_a_judge_by_words_is_not_one_by_meanings(talk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_embedding = Run.open(talk / "recipe.yaml", ["screen.judges=[embedding]"])
    by_labels = Run.open(talk / "recipe.yaml")
    before = by_embedding.key("screen"), by_labels.key("screen")
    monkeypatch.setattr("letheon.screen.embedding.has_embedder", lambda: False)
    assert by_embedding.key("screen") != before[0]
    assert by_labels.key("screen") == before[1]


def test_non_members_are_not_among_reworded_questions(finished: Path) -> None:
    row = {"question": "Reworded?", "answer": "As it was."}
    (finished / "unseen.jsonl").write_text(json.dumps(row) + "\n")
    (finished / "reworded.jsonl").write_text(json.dumps({**row, "id": "p", "of": "bad-0", "split": "test"}) + "\n")
    files = [f"evaluate.non_members={finished}/unseen.jsonl", f"data.paraphrases={finished}/reworded.jsonl"]
    with pytest.raises(InputError, match="row 1 stands in .*reworded.jsonl as well"):
        Run.open(finished / "run", files).check()
