"""What the model said before unlearning, computed once: never a second model in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from letheon.chat import Encoded
from letheon.forward import answer_logits, answer_states, batch_for, batches, can_pack
from letheon.models import Model, in_eval_mode
from letheon.prefix import FrozenPrefix, frozen_prefix
from letheon.store import Store, digest, key_of
from letheon.train.config import UnlearnConfig
from letheon.train.contrast import Moments
from letheon.train.dataset import Reference

PASS_SIZE = 16
"""Sequences in a forward pass without gradients."""


def pass_size(args: UnlearnConfig) -> int:
    """Sequences in a forward pass without gradients: at least a step's."""
    return max(PASS_SIZE, int(args.per_device_train_batch_size))


class ReferenceCache:
    """Scores sequences under θ₀, each of them once.

    Of a distribution the k likeliest tokens are kept, 516 bytes a token for k = 64. To keep the last hidden states
    instead and to run the head on them again would take 4 d bytes, more from d = 130 on, and the head's time. Where a
    term reads the states of a layer, those are kept.

    Args:
        store: Where that is kept.
        prefix: Where forward passes start from.
        top_k: Tokens kept of each distribution.
        pad_token_id: Padding token.
        batch_size: Sequences a forward pass.
    """

    def __init__(self, store: Store, prefix: FrozenPrefix | None, *, top_k: int, pad_token_id: int, batch_size: int):
        self.store = store
        self.prefix = prefix
        self.top_k = top_k
        self.pad_token_id = pad_token_id
        self.batch_size = batch_size

    def __call__(self, model: Model, sequences: Sequence[Encoded], moments: Moments | None = None) -> list[Reference]:
        """Score sequences that are not known yet, in batches of similar length.

        Args:
            model: The model under θ₀.
            sequences: S sequences.
            moments: Also adds up the second moments of layers' inputs, for which all sequences are run.

        Returns:
            S references, in the order of the sequences; all tokens count.
        """
        names = self._run(model, sequences, "log_prob", partial(self._score, model), moments)
        return [self._read(name) for name in names]

    def states(
        self, model: Model, sequences: Sequence[Encoded], layer: int, moments: Moments | None = None
    ) -> list[Tensor]:
        """The hidden states that leave a layer, of sequences that are not known yet by passes that end there.

        Args:
            model: The model under θ₀.
            sequences: S sequences.
            layer: Number of the layer.
            moments: As above, of layers that are not above it.

        Returns:
            S tensors (n, d), in the order of the sequences.
        """

        def keep(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {f"answer-states-{layer}": answer_states(model, batch, layer, self.prefix)[0].float().cpu()}

        names = self._run(model, sequences, f"answer-states-{layer}", keep, moments)
        return [self.store[f"{name}.answer-states-{layer}"] for name in names]

    def _run(
        self,
        model: Model,
        sequences: Sequence[Encoded],
        what: str,
        look: Callable[[Mapping[str, Tensor]], dict[str, Tensor]],
        moments: Moments | None,
    ) -> list[str]:
        """Look at sequences of which something is not known yet; their names."""
        names = [digest(sequence) for sequence in sequences]
        run = [
            number for number, name in enumerate(names) if moments is not None or f"{name}.{what}" not in self.store
        ]
        with in_eval_mode(model):
            for chosen in batches([sequences[number] for number in run], self.batch_size):
                numbers = [run[place] for place in chosen]
                batch = batch_for(model, [sequences[n] for n in numbers], self.pad_token_id, self.prefix)
                with moments.watching(batch) if moments else nullcontext(), torch.no_grad():
                    looked = look(batch)
                rows, found = batch["row"].cpu(), dict[str, Tensor]()
                for place, number in enumerate(numbers):
                    found |= {f"{names[number]}.{kind}": values[rows == place] for kind, values in looked.items()}
                # Where they were run for their moments alone they are known.
                self.store.update({name: tensor for name, tensor in found.items() if name not in self.store})
        return names

    def _score(self, model: Model, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        logits, targets, _ = answer_logits(model, batch, self.prefix)
        logits = logits.float()
        # No second copy of the logits, as a log-softmax would be.
        normaliser = logits.logsumexp(dim=1, keepdim=True)
        own = (logits.gather(1, targets[:, None]) - normaliser)[:, 0].cpu()
        top = logits.topk(min(self.top_k, logits.size(1)), dim=1)
        values, ids = (top.values - normaliser).cpu(), top.indices.to(torch.int32).cpu()
        return {"log_prob": own, "top_ids": ids, "top_log_probs": values}

    def _read(self, name: str) -> Reference:
        log_prob, ids, values = (self.store[f"{name}.{what}"] for what in ("log_prob", "top_ids", "top_log_probs"))
        return Reference(log_prob, ids, values, torch.ones(len(log_prob), dtype=torch.bool))


def open_cache(model: Model, args: UnlearnConfig, accelerator: Accelerator, pad_token_id: int) -> ReferenceCache:
    """The cache of a training; `model` is under θ₀ and has no wrappers."""
    # Not where several devices share the work: it is not known how they call the layers.
    alone = args.n_gpu <= 1 and accelerator.num_processes == 1
    key = key_of(model, args.bf16, args.fp16, args.top_k, can_pack(model)) if args.keep_cache else None
    store = Store(Path(args.cache_dir or Path(args.output_dir or "") / "cache") if alone else None, key)
    with accelerator.autocast():
        prefix = frozen_prefix(model, pad_token_id, store) if alone else None
    return ReferenceCache(store, prefix, top_k=args.top_k, pad_token_id=pad_token_id, batch_size=pass_size(args))


def informative(with_prompt: Tensor, without_prompt: Tensor) -> Tensor:
    """Tokens that the prompt makes at least twice as likely: log p(y_t|x, y_<t) − log p(y_t|y_<t) > log 2.

    Args:
        with_prompt: (n,) log-probabilities given the prompt.
        without_prompt: (n,) log-probabilities with the question left empty.

    Returns:
        (n,) bool; all True where no token is informative, so that no answer is left out.
    """
    chosen = with_prompt - without_prompt > torch.log(torch.tensor(2.0))
    return chosen if bool(chosen.any()) else torch.ones_like(chosen)
