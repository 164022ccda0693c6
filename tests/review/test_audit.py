from __future__ import annotations

import random
from pathlib import Path

import pytest
from scipy.stats import binomtest
from screened_run import judged, made, write_run

from letheon.console import Console
from letheon.errors import InputError
from letheon.records import Verdict
from letheon.review.audit import draw, fingerprint, in_words, read_audit, scored, wilson
from letheon.review.decisions import standing, with_decisions
from letheon.review.serve import audit_of, save_audit
from letheon.run import Run


def normals(n: int) -> list[Verdict]:
    return [judged(f"n{number}", "normal", "normal", 0.1) for number in range(n)]


@pytest.mark.parametrize(("hits", "n"), [(0, 50), (1, 50), (25, 50), (50, 50), (3, 7), (0, 1)])
def test_wilson_of_a_large_population_is_scipys(hits: int, n: int) -> None:
    theirs = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits, n, 10**9) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


@pytest.mark.parametrize("hits", [0, 3, 10])
def test_a_sample_of_all_leaves_no_doubt(hits: int) -> None:
    assert wilson(hits, 10, 10) == (hits / 10, hits / 10)


def test_the_interval_narrows_with_the_population_and_knows_what_was_seen() -> None:
    widths = []
    for population in (51, 60, 100, 1000, 10**6):
        low, high = wilson(2, 50, population)
        assert 2 / population <= low <= 0.04 <= high <= 1 - 48 / population
        widths.append(high - low)
    assert widths == sorted(widths)


@pytest.mark.parametrize(("bad", "population", "n"), [(12, 300, 50), (3, 80, 50), (150, 1000, 50)])
def test_coverage(bad: int, population: int, n: int) -> None:
    rng, covered, trials = random.Random(0), 0, 2000
    truth = [1] * bad + [0] * (population - bad)
    for _ in range(trials):
        low, high = wilson(sum(rng.sample(truth, n)), n, population)
        covered += low - 1e-12 <= bad / population <= high + 1e-12
    assert covered / trials >= 0.93


def test_draws_from_normal_verdicts_that_nobody_has_seen() -> None:
    verdicts = [*normals(30), judged("r"), judged("f", "forget", score=0.9)]
    decided = standing([made("n0", "normal"), made("n1", "forget")])
    audit = draw(verdicts, decided, 10, seed=3)
    names = [turn.id for turn in audit.sample]
    assert (audit.population, len(names), len(set(names))) == (28, 10, 10)
    assert not {"n0", "n1", "r", "f"} & set(names)
    assert draw(verdicts, decided, 10, seed=3) == audit
    assert draw(verdicts, decided, 10, seed=4).sample != audit.sample
    assert len(draw(verdicts, decided, 100, seed=3).sample) == 28
    with pytest.raises(InputError, match="nothing to draw"):
        draw([judged("r")], {}, 10, seed=3)


def test_scored_as_it_goes(tmp_path: Path) -> None:
    audit = draw(normals(40), {}, 10, seed=0)
    assert in_words(audit) == "audit: none of 10 turns labelled yet"
    names = [turn.id for turn in audit.sample]
    some = scored(audit, standing([made(names[0], "forget"), made(names[1], "normal"), made("other", "forget")]))
    assert (some.labelled, some.missed) == (2, 1)
    assert "1 of 2 turns called normal should have been forgotten (8 are still to be labelled)" in in_words(some)
    decisions = [made(name, "normal") for name in names] + [made(names[3], "forget"), made(names[4], "undone")]
    most = scored(audit, standing(decisions))
    assert most.share is not None
    assert most.in_all is not None
    assert (most.labelled, most.missed) == (9, 1)
    assert (most.share.low, most.share.high) == wilson(1, 9, 40)
    assert most.in_all.estimate == pytest.approx(40 / 9)
    save_audit(tmp_path / "audit.json", most)
    assert read_audit(tmp_path / "audit.json") == most


def test_an_audit_goes_on_when_its_decisions_have_come_into_the_verdicts(tmp_path: Path) -> None:
    run, verdicts, console = Run.open(write_run(tmp_path, [], [])), normals(10), Console(quiet=True)
    audit = audit_of(run, verdicts, [], console, 5)
    assert audit is not None
    save_audit(run.audit_file, audit)
    decisions = [made(audit.sample[0].id, "forget")]
    settled = list(with_decisions(verdicts, decisions))
    assert audit_of(run, settled, decisions, console, 5) == audit
    assert audit_of(run, settled, decisions, console, None) == audit


def test_an_audit_of_all_that_there_is_goes_on(tmp_path: Path) -> None:
    run, verdicts, console = Run.open(write_run(tmp_path, [], [])), normals(3), Console(quiet=True)
    audit = audit_of(run, verdicts, [], console, 50)
    assert audit is not None
    save_audit(run.audit_file, audit)
    assert audit_of(run, verdicts, [made(audit.sample[0].id, "normal")], console, 50) == audit


def test_fingerprint_goes_by_decisions() -> None:
    verdicts = normals(3)
    other = [*verdicts[:2], verdicts[2].model_copy(update={"score": 0.2})]
    assert fingerprint(verdicts) == fingerprint(other)
    assert fingerprint(verdicts) != fingerprint([*verdicts[:2], judged("n2")])


def test_file_of_another_version(tmp_path: Path) -> None:
    file = tmp_path / "audit.json"
    assert read_audit(file) is None
    file.write_text('{"schema": "letheon/audit/9"}')
    with pytest.raises(InputError, match="letheon/audit/9"):
        read_audit(file)
    file.write_text('{"schema": "letheon/audit/1", "seed": "x"}')
    with pytest.raises(InputError, match="damaged: seed"):
        read_audit(file)
