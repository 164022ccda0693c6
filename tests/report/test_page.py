"""The page: what it says, that it stands alone, and that it gives nothing away."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_up import SECRET, make_run

from letheon.errors import InputError, MissingExtraError
from letheon.recipe import check_recipe
from letheon.records import Audit, Interval, NotComputed, Results, TurnName, read_verdicts
from letheon.report import charts, write_report
from letheon.report.figures import interval
from letheon.review.audit import fingerprint

VOID = {"meta", "link", "br", "hr", "img", "input"}
SECTIONS = ["verdict", "metrics", "training", "trade", "stress", "answers", "screening", "limits", "origin"]


class Balance(HTMLParser):
    """Checks that every tag is closed by its own, and gathers attributes and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href"):
                self.links.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag


def parse(html: str) -> Balance:
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser


CHARTS = ("bars", "trade", "losses", "probe", "stress", "scores")
DRAWN: dict[tuple[str, str], str | None] = {}


def page(run: Path) -> str:
    """A run's page; a chart of the same numbers is drawn once, which is most of what a page costs."""

    def once(name: str, draw: Callable[..., str | None]) -> Callable[..., str | None]:
        def drawn(*arguments: object, **named: object) -> str | None:
            key = name, repr((arguments, named))
            if key not in DRAWN:
                DRAWN[key] = draw(*arguments, **named)
            return DRAWN[key]

        return drawn

    with pytest.MonkeyPatch.context() as patch:
        for name in CHARTS:
            patch.setattr(charts, name, once(name, getattr(charts, name)))
        return write_report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole run, without texts."""
    return page(make_run(tmp_path_factory.mktemp("plain") / "run"))


@pytest.fixture(scope="module")
def with_texts(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page of a whole run whose recipe asked for texts."""
    return page(make_run(tmp_path_factory.mktemp("texts") / "run", show_texts=True))


def test_says_the_verdict_first_and_every_section_in_order(plain: str) -> None:
    html = plain
    assert re.search(r"Forgotten:</span> <strong>yes</strong>", html)
    assert "The old answers are as improbable as for a model that never saw them" in html
    assert "At step 45: forgotten: 8% of probe tokens" in html
    assert "scaled back to 88% of the change" in html
    assert "Layers tuned: top-66%, chosen by a trial before the first step: forgets most in a second (0.62)." in html
    assert (
        '<tr><th scope="row">top-66%</th><td class="n">0.620</td><td class="n">0.015</td><td class="n">0.840' in html
    )
    row = '<tr><th scope="row">top-33%</th>' + '<td class="n">–</td>' * 3 + '<td class="n">0.5 s</td>'
    assert row in html
    assert "39% of the control" in html
    assert "97.5%" in html
    assert "Probability, relative to before" in html
    assert re.search(r"± [0-9.]+%; of their probability, on dialogues never seen in unlearning", html)
    assert "× 1.009" in html
    assert "± 0.002; after / before; 1 is unchanged" in html
    assert re.findall(r'<section id="(\w+)"', html) == SECTIONS
    assert html.count("<svg") == 12
    assert "not computed: no judge that reads answers is in the recipe" in html
    assert "before: not computed: it is the model itself" in html
    assert "0.969" in html
    assert "evidence of forgetting, and no more" in html
    assert "The base forgets nothing" in html
    assert "Not here yet" not in html


def test_is_balanced_and_stands_alone(with_texts: str) -> None:
    html = with_texts
    parsed = parse(html)
    assert len(parsed.ids) == len(set(parsed.ids))
    assert all(link.startswith("#") and link[1:] in parsed.ids for link in parsed.links)
    assert not parsed.tags & {"script", "img", "link", "iframe"}
    assert "default-src 'none'" in html
    # The names of SVG's namespaces are not addresses; nothing else may look like one.
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"|http-equiv', "", html)
    assert not re.search(r"url\((?!#)|@import", html)
    assert set(re.findall(r"url\(#([^)]+)\)", html)) <= set(parsed.ids)


def test_charts_take_their_colours_from_the_page(plain: str) -> None:
    html = plain
    drawn = " ".join(re.findall(r"<svg.*?</svg>", html, re.DOTALL))
    assert set(re.findall(r"(?:fill|stroke): ([^;\"]+)", drawn)) <= {
        "none", *(f"var(--{name})" for name in (
            "ink", "faint", "line", "before", "after", "control", "forget", "review", "normal"))
    }  # fmt: skip


def test_escapes_texts(with_texts: str) -> None:
    html = with_texts
    assert "&lt;script&gt;alert(&#39;before&#39;)&lt;/script&gt;" in html
    assert "<script" not in html


def test_same_run_same_bytes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", show_texts=True)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_user_style_of_matplotlib_does_not_count(tmp_path: Path) -> None:
    import matplotlib

    run = make_run(tmp_path / "run")
    plain = write_report(run).read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "axes.grid": True}):
        assert write_report(run).read_bytes() == plain


def test_holds_no_text_that_the_results_do_not_hold(plain: str) -> None:
    html = plain
    assert SECRET not in html
    assert "Mirella" not in html
    assert "Texts are withheld" in html
    assert "privacy-07" in html


@pytest.mark.parametrize("show_texts", [False, True])
def test_subject_of_an_erasure_request_is_shown_only_with_texts(tmp_path: Path, show_texts: bool) -> None:
    run = make_run(tmp_path / "run", show_texts)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"] |= {"subject": "Mirella Q.", "aliases": ["Mirri"]}
    (run / "recipe.yaml").write_text(check_recipe(recipe).dump())
    assert [name in page(run) for name in ("Mirella Q.", "Mirri")] == [show_texts, show_texts]


def test_attacks_are_told(plain: str, with_texts: str) -> None:
    told = re.sub(r"\s+", " ", plain)
    assert "32 of the old answers were looked for under each attack; 8 others were given to relearning." in told
    assert "The adapter of the model after was merged into its base to be attacked." in told
    assert "(its adapter merged into the base, as <code>letheon export --merge</code> writes it)" in told
    assert "<b>BREACHED</b>: <code>stress.max_recovery</code>, relearn: forget items: 0.232, at most 0.200" in told
    assert '<td class="n">0.150 [0.100, 0.200]</td><td class="n">0.232 [0.150, 0.310]</td></tr>' in told
    assert "at step 8: 23% of what was forgotten is back." in told
    assert "relearn: forget items, extraction strength by step" in told
    assert "probe: logit lens, extraction strength by layer" in told
    assert "the mean share back over all steps is after 0.120; half is back after never." in told
    assert "Not run: quantise, NF4: it needs a GPU." in told
    # What was said under attack stays in its file.
    assert SECRET not in with_texts
    assert "it holds what was to be forgotten" in with_texts


def test_draws_and_membership_are_told(plain: str) -> None:
    text = re.sub(r"<[^>]+>", " ", plain)
    for name in ("leak@1", "leak@8", "Membership", "AUC by loss", "PrivLeak"):
        assert name in text
    assert re.search(r"AUC by loss\s+0\.913\s+0\.861 to 0\.947", text)
    assert re.search(r"-41\.200\s+-58\.000 to -24\.400", text)
    assert "control: not computed: this is the control itself" in text


def test_one_reason_for_a_whole_set_is_said_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    results = Results.load(run / "results.json")
    for sets in results.metrics.values():
        sets["membership"] = dict.fromkeys(sets["membership"], NotComputed(not_computed="nobody named non-members"))
    results.save(run / "results.json")
    html = page(run)
    assert html.count("nobody named non-members") == 1
    assert "PrivLeak" not in html
    # Of one metric alone it stays the metric's.
    assert html.count("no judge that reads answers is in the recipe") == 1
    assert "Judged undesired" in html


def test_attacks_under_other_settings_are_told_as_such(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "These attacks were made under other settings" not in page(run)
    results = Results.load(run / "results.json")
    results.stress = None
    results.save(run / "results.json")
    assert "These attacks were made under other settings" in page(run)


def test_an_audit_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    assert "Nobody has audited it" in page(run)
    audit = Audit(
        seed=0,
        screening=fingerprint(read_verdicts(run / "verdicts.jsonl")),
        population=400,
        sample=(TurnName(id="a", turn=1), TurnName(id="b", turn=1)),
        labelled=2,
        missed=1,
        share=Interval(estimate=0.5, low=0.1, high=0.9),
        in_all=Interval(estimate=200, low=40, high=360),
    )
    (run / "audit.json").write_text(audit.model_dump_json(by_alias=True))
    html = page(run)
    assert "Audit: 1 of 2 turns called normal should have been forgotten" in html
    assert "Nobody has audited it" not in html
    # Of another screening it says nothing.
    (run / "audit.json").write_text(audit.model_copy(update={"screening": "hash"}).model_dump_json(by_alias=True))
    assert "Nobody has audited it" in page(run)


def test_a_screening_alone_has_cost_no_memory_in_unlearning_and_counts_no_labels(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    results = Results.load(run / "results.json")
    results.peak_memory_mb = {"screen": 777}
    assert results.screening is not None
    results.screening = results.screening.model_copy(update={"n": 54321})
    results.save(run / "results.json")
    html = page(run)
    assert html.count("777 MB") == 1  # In the table of stages.
    assert "54321" not in html


def test_of_several_turns_each_is_remembered_for_itself(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    samples = [
        {"model": "after", "set": "forget", "id": "d1", "turn": turn, "scores": {"probability": value}}
        for turn, value in ((1, 0.951), (3, 0.022))
    ]
    (run / "samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    html = page(run)
    for turn, value in ((1, "0.951"), (3, "0.022")):
        assert f'd1</th><td class="n">{turn}</td><td>forget</td><td class="n">{value}</td>' in html


def test_paths_of_the_recipe_tell_nothing_of_its_owner(tmp_path: Path) -> None:
    html = page(make_run(tmp_path / "run"))
    assert "dialogues: log.jsonl" in html
    assert str(tmp_path) not in html


FILES = ["results.json", "recipe.yaml", "manifest.json", "training.jsonl", "verdicts.jsonl", "samples.jsonl"]
FILES += ["stress.json"]


@pytest.mark.parametrize("missing", FILES)
def test_any_file_may_be_missing(tmp_path: Path, missing: str) -> None:
    run = make_run(tmp_path / "run")
    (run / missing).unlink()
    parse(page(run))


@pytest.mark.parametrize("only", [None, *FILES])
def test_any_file_may_stand_alone(tmp_path: Path, only: str | None) -> None:
    run = make_run(tmp_path / "run")
    for name in FILES:
        if name != only:
            (run / name).unlink()
    html = page(run)
    parse(html)
    assert "Not here yet" in html
    if only is None:
        assert "letheon evaluate" in html
        assert "letheon unlearn" in html
        assert "letheon screen" in html


def test_numbers_that_are_none_or_not_finite(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    results = Results.load(run / "results.json")
    raw = results.model_dump(mode="json", by_alias=True)
    raw["metrics"] = {"after": {"forget": {"probability": {"mean": 0.5, "stderr": None, "n": 1}}}}
    raw["metrics"]["after"]["my_set"] = {"my_metric": {"mean": 12345.0, "stderr": 0.00001, "n": 3}}
    raw["screening"] = {"precision": None, "recall": None, "n": 0, "forget": 1, "review": 0, "normal": 2}
    Results.model_validate(raw).save(run / "results.json")
    (run / "training.jsonl").write_text('{"step": 1, "negative": NaN}\n{"step": 2, "negative": 3.0}\n{"step": 3')
    html = page(run)
    parse(html)
    assert "My metric" in html
    assert "12,345" in html
    assert "the data has no true labels" in html
    assert "There is no control" in html


def test_resumed_steps_count_once(tmp_path: Path) -> None:
    from letheon.report.folder import read_run

    run = make_run(tmp_path / "run")
    (run / "training.jsonl").write_text('{"step": 2, "loss": 9}\n{"step": 1, "loss": 5}\n{"step": 2, "loss": 4}\n')
    assert [(line["step"], line["loss"]) for line in read_run(run).steps] == [(1, 5), (2, 4)]


def test_line_separators_inside_strings_do_not_split_a_sample(tmp_path: Path) -> None:
    from letheon.report.folder import read_run

    run = make_run(tmp_path / "run")
    sample = {"model": "after", "id": "a\u2028b", "answer": "c\x85d"}
    (run / "samples.jsonl").write_text(json.dumps(sample, ensure_ascii=False) + "\n", encoding="utf-8")
    assert read_run(run).samples == [sample]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("training.jsonl", '{"step": 1}\n{"st\n{"step": 2}\n', "line 2"),
        ("samples.jsonl", "[1]\n", "expected an object, found list"),
        ("manifest.json", "{", "damaged; start a new run folder"),
        ("manifest.json", '{"schema": "letheon/manifest/0"}', "letheon/manifest/0"),
        ("recipe.yaml", "a: [", "not valid YAML"),
        ("recipe.yaml", "- a", "expected 'key: value' lines, found list"),
        ("verdicts.jsonl", '{"id": 1}\n', "letheon screen"),
        ("results.json", '{"schema": "letheon/results/1", "stop": 3}', "letheon evaluate"),
        ("results.json", '{"schema": "letheon/results/0"}', "letheon/results/0"),
        ("manifest.json", '{"schema": "letheon/manifest/1", "stages": 5}', "stages: expected an object: damaged"),
        ("manifest.json", "\udcff", "not UTF-8: damaged"),
        ("manifest.json", '{"seed": ' + "1" * 5000 + "}", "damaged; start"),
        ("manifest.json", "[" * 100_000, "damaged; start"),
        ("results.json", "\udcff", "not UTF-8: not a results file"),
        ("verdicts.jsonl", "\n\udcff\n", "verdicts.jsonl:2: not UTF-8; mend the line"),
        ("training.jsonl", "\udcff\n", "line 1: not UTF-8"),
        ("samples.jsonl", "\udcff\n", "line 1: not UTF-8"),
        ("recipe.yaml", "\udcff", "not UTF-8; save it as UTF-8"),
        ("audit.json", "\udcff", "not UTF-8: damaged; delete it"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    run = make_run(tmp_path / "run")
    (run / name).write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        write_report(run)
    assert name in str(caught.value)
    assert not (run / "report.html").exists()


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder"):
        write_report(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("library", ["jinja2", "matplotlib"])
def test_missing_library_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    run = make_run(tmp_path / "run")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'letheon[report]'")):
        write_report(run)


def test_importing_the_report_imports_no_torch() -> None:
    code = (
        "import sys, letheon.report\n"
        "heavy = {'torch', 'transformers', 'jinja2', 'matplotlib', 'letheon.train'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("value", "text"), [(0.12345, "0.123"), (0.0, "0.000"), (0.0001, "1.0e-04"), (4321.0, "4,321"), (None, "–")]
)
def test_numbers(value: float | None, text: str) -> None:
    from letheon.report.figures import number

    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.21, "3.2 s"), (59.4, "59 s"), (59.7, "1 min 00 s"), (93, "1 min 33 s"), (3725, "1 h 02 min")],
)
def test_durations(seconds: float, text: str) -> None:
    from letheon.report.figures import duration

    assert duration(seconds) == text


def test_expected_answers_that_are_learnt_have_a_curve(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    title = "Expected answers over old ones (truth probability)"
    assert title not in page(run)
    training = run / "training.jsonl"
    learnt = training.read_text(encoding="utf-8").replace('"kl": ', '"truth_probability": 0.9, "kl": ')
    training.write_text(learnt, encoding="utf-8")
    html = page(run)
    assert title in html
    assert html.count("<svg") == 13


def test_the_limits_drawn_are_those_that_were_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which may be a base's level, of which the recipe says nothing."""
    drawn: dict[str, float | None] = {}

    def probe(probes: Any, key: str, color: str, limit: float | None, stop: int | None, name: str) -> str | None:
        drawn[key] = limit
        return None

    monkeypatch.setattr(charts, "probe", probe)
    write_report(make_run(tmp_path / "run"))
    assert drawn["extraction_strength"] == 0.07
    # A results file of before says nothing of them.
    assert drawn["truth_probability"] is None


def test_a_model_already_clean_is_probed_once_at_step_0(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "training.jsonl").write_text(
        '{"step": 0, "probe": {"probability": 0.0, "normal_ratio": 1.0, "kl": 0.0}}\n'
    )
    html = page(run)
    parse(html)
    assert "Old answers' probability on the probe" in html or "Old answers&#39; probability on the probe" in html


def test_a_difference_near_zero_is_zero() -> None:
    assert interval(Interval(estimate=2.5e-5, low=-4e-4, high=0.0333)) == "0.000 [0.000, 0.033]"
    assert interval(NotComputed(not_computed="why")) == "–"
