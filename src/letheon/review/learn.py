"""Active learning: what has been decided teaches a judge, whose doubt orders what has not.

After every ten decisions the embedding judge is fitted on the recipe's examples and the decided turns, in a thread of
its own, and scores the turns that come next. It only orders the queue and shows its scores: it decides nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import islice

import numpy as np

from letheon.embed import Embedder, Vectors
from letheon.errors import LetheonError, MissingExtraError, missing_modules
from letheon.records import Dialogue, Turn
from letheon.review.session import Session
from letheon.screen.embedding import EmbeddingJudge, everyday

EVERY = 10
"""Decisions after which it learns anew."""
ENOUGH = 5
"""Examples and decided turns of either kind, "forget" and "normal", that there is something to learn from."""
POOL = 500
"""Turns that are scored each time, the most doubtful first; the others keep their scores until it is their turn."""
CHUNK = 32
"""Texts that are embedded between two looks at whether the review has ended."""


class Stopped(Exception):
    """The review ended while something was being learnt."""


class Learner:
    """Watches a session, and reorders its queue.

    Args:
        session: The review.
        examples: Labelled dialogues that the recipe's embedding judge was fitted on; may be empty.
        seed: Of the fit's folds.
        warn: Where to say once why nothing is learnt.

    Attributes:
        note: Why nothing is learnt, for the page; None while all is well.
    """

    def __init__(self, session: Session, examples: Sequence[Dialogue], seed: int, warn: Callable[[str], None]):
        self.note: str | None = None
        self._session, self._seed = session, seed
        self._examples = [d.model_copy(update={"category": None}) for d in examples if d.label is not None]
        self._stop = threading.Event()
        self._embedder = RememberingEmbedder(self._stop)
        self._thread: threading.Thread | None = None
        self._tried = 0
        if missing_modules("screen"):
            self.note = f"The queue is not reordered: {MissingExtraError('learning from decisions', 'screen')}"
            warn(self.note)

    @property
    def busy(self) -> bool:
        """Whether something is being learnt at this moment."""
        return self._thread is not None and self._thread.is_alive()

    def look(self) -> None:
        """Start to learn, if enough has been decided since the last time."""
        if not self.busy and self.note is None and self._is_due():
            self._thread = threading.Thread(target=self._learn, name="letheon-review-learner", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Leave off as soon as possible."""
        self._stop.set()

    def wait(self) -> None:
        """Wait until nothing is being learnt any more."""
        if self._thread is not None:
            self._thread.join()

    def _is_due(self) -> bool:
        return self._session.decided // EVERY > self._tried // EVERY

    def _learn(self) -> None:
        try:
            while self._is_due():
                self._once()
        except Stopped:
            pass
        except LetheonError as error:
            self.note = f"The queue is not reordered: {error}"
        except BaseException as error:
            self.note = f"The queue is not reordered any more: {type(error).__name__}; see the terminal"
            raise

    def _once(self) -> None:
        session = self._session
        with session.lock:
            decided = list(session.numbers("decided"))
            taught = [as_example(session.items[n].turn, session.properties(n)[1]) for n in decided]
            waiting = list(islice(session.numbers("waiting"), POOL))
        self._tried = len(decided)
        labelled = [*self._examples, *taught]
        labels = [dialogue.label for dialogue in labelled]
        if min(labels.count("forget"), labels.count("normal")) < ENOUGH:
            return
        judge = EmbeddingJudge.fit(labelled, self._embedder, everyday(), self._seed)
        opinions = judge.judge([session.items[number].turn for number in waiting])
        scores = {number: opinion.score for number, opinion in zip(waiting, opinions, strict=True) if opinion}
        session.rescore(scores, learned_from=len(decided))


def as_example(turn: Turn, label: str) -> Dialogue:
    """A decided turn as a labelled dialogue that ends with it; without category, since few are of the same."""
    messages = turn.dialogue.messages[: turn.index + 1]
    return Dialogue.model_validate({"id": f"{turn.dialogue.id}#{turn.index}", "messages": messages, "label": label})


class RememberingEmbedder(Embedder):
    """An embedder that keeps what it has embedded, in memory: the same turns are scored again and again.

    Args:
        stop: Once it is set, embedding ends with `Stopped`.
    """

    def __init__(self, stop: threading.Event):
        super().__init__()
        self._stop = stop
        self._rows: dict[tuple[str, tuple[int, ...]], Vectors] = {}

    def encode_layers(self, texts: Sequence[str], layers: Sequence[int]) -> Vectors:
        """As `Embedder.encode_layers`; a text that has been embedded before costs nothing."""
        which = tuple(layers)
        # Sorted by length, so that a chunk holds texts of about the same length.
        new = sorted({text for text in texts if (text, which) not in self._rows}, key=len)
        for start in range(0, len(new), CHUNK):
            if self._stop.is_set():
                raise Stopped
            chunk = new[start : start + CHUNK]
            for text, row in zip(chunk, super().encode_layers(chunk, layers), strict=True):
                self._rows[text, which] = row
        return np.stack([self._rows[text, which] for text in texts]) if texts else super().encode_layers([], layers)
