"""Probing: what the head no longer says, the layers below it may still hold.

*Logit lens*: the states that leave a layer go straight through the final norm and the head. Of a model that was only
turned away at its end, lower layers still say the answer. *Linear probe*: they first go through an affine map, fitted
by ridge regression on normal dialogues and plain text from the layer's states to those of the last layer (the tuned
lens of arXiv 2303.08112, in closed form): it undoes the change of coordinates between layers, and knows nothing of
what was to be forgotten. Both read the old answer token by token under teacher forcing; the score is its extraction
strength.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from letheon.chat import Encoded, encode_dialogue, encode_text
from letheon.console import OnProgress
from letheon.evaluate.memorisation import content_of, extraction_strength
from letheon.layers import decoder_layers
from letheon.models import Model, bare_model, in_eval_mode, other_forward
from letheon.split import spread
from letheon.stress.attack import EXTRACTION, Found, Given
from letheon.stress.records import NotRun

LAYERS = 8
"""At most so many layers are read, evenly spread, the last among them."""
FITTED_ON = 60
"""Normal dialogues, and as many paragraphs, that the maps are fitted on."""
RIDGE = 0.01
"""Penalty, as a share of what the data weigh when coordinates have variance 1."""


@torch.no_grad()
def probe(model: Model, given: Given, update: OnProgress) -> Iterator[Found | NotRun]:
    """Read the old answers out of the layers, by the lens and by fitted maps."""
    layers, kind = decoder_layers(model), type(bare_model(model)).__name__
    if not layers:
        yield NotRun(attack="probe", why=f"{kind} has no list of layers whose states could be read")
        return
    # Counted from the last, so that it is among them.
    read = sorted(len(layers) - 1 - number for number in spread(range(len(layers)), LAYERS))
    texts = [encode_dialogue(given.tokenizer, d, given.context) for d in spread(list(given.normal), FITTED_ON)]
    texts += [encode_text(given.tokenizer, text, given.context) for text in spread(list(given.general), FITTED_ON)]
    if not texts:
        yield NotRun(attack="probe", why="there are neither normal dialogues nor general text to fit the maps on")
        return
    with in_eval_mode(model):
        if not _is_plain(model, layers, given.sequences[0]):
            yield NotRun(attack="probe", why=f"{kind} does more after its last layer than norm and head")
            return
        known = states_of(model, texts, [layers[number] for number in read])
        asked = states_of(model, given.sequences, [layers[number] for number in read])
        last = torch.cat([states[-1] for states in known])
        for place, number in enumerate(read):
            update(place, len(read))
            matrix, offset = ridge(torch.cat([states[place] for states in known]), last, RIDGE)
            lens, mapped = [], []
            for sequence, states in zip(given.sequences, asked, strict=True):
                lens.append(_strength(head_on(model, layers, states[place], sequence), sequence))
                mapped.append(_strength(head_on(model, layers, states[place] @ matrix + offset, sequence), sequence))
            how = "Read off a layer's states by the head"
            yield Found("logit lens", how, EXTRACTION, lens, at=number, along="layer")
            yield Found("linear probe", f"{how}, after a linear map", EXTRACTION, mapped, at=number, along="layer")


def states_of(model: Model, sequences: Sequence[Encoded], layers: Sequence[nn.Module]) -> list[list[Tensor]]:
    """By sequence, the (T, d) float32 states that leave each of the layers."""
    found: list[list[Tensor]] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        found[-1].append(output[0].float())

    handles = [layer.register_forward_hook(note) for layer in layers]
    try:
        for sequence in sequences:
            found.append([])
            _run(model, sequence)
    finally:
        for handle in handles:
            handle.remove()
    return found


def head_on(model: Model, layers: Sequence[nn.Module], states: Tensor, sequence: Encoded) -> Tensor:
    """(T, V) logits of a model whose last layer hands on the given (T, d) states; no layer runs."""
    handed = states.to(bare_model(model).dtype)[None]
    with other_forward(layers, lambda *_, **__: handed):
        return _logits(model, sequence)


def ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """The affine map that takes x to y best: (d, e) matrix W and (e,) offset b of ‖xW + b − y‖² + n·penalty·‖σW‖².

    σ is the standard deviation of x's coordinates, so that a few large ones do not decide how much the others shrink.

    Args:
        x: (n, d).
        y: (n, e).
        penalty: > 0.
    """
    mean, spread_ = x.double().mean(dim=0), x.double().std(dim=0).clamp(min=1e-12)
    z, target = (x.double() - mean) / spread_, y.double() - y.double().mean(dim=0)
    gram = z.T @ z + len(z) * penalty * torch.eye(z.size(1), dtype=z.dtype, device=z.device)
    matrix = torch.linalg.solve(gram, z.T @ target) / spread_[:, None]
    offset = y.double().mean(dim=0) - mean @ matrix
    return matrix.to(x.dtype), offset.to(x.dtype)


def _is_plain(model: Model, layers: Sequence[nn.Module], sequence: Encoded) -> bool:
    """Whether a model's logits are what norm and head make of the states that its last layer hands on."""
    try:
        ((own,),) = states_of(model, [sequence], layers[-1:])
        return torch.allclose(head_on(model, layers, own, sequence), _logits(model, sequence), atol=1e-3, rtol=1e-3)
    # Layers that hand on more than states, and models that use what lies between.
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError):
        return False


def _run(model: Model, sequence: Encoded) -> Any:
    return model(input_ids=torch.tensor([sequence.ids], device=model.device), use_cache=False)


def _logits(model: Model, sequence: Encoded) -> Tensor:
    logits: Tensor = _run(model, sequence).logits[0].float()
    return logits


def _strength(logits: Tensor, sequence: Encoded) -> float:
    """Extraction strength of a sequence's marked tokens, the one that ends the turn left out."""
    ids = torch.tensor(sequence.ids, device=logits.device)
    marked = torch.tensor(sequence.answer_mask, device=logits.device)[1:]
    matches = logits[:-1].argmax(dim=1) == ids[1:]
    return extraction_strength(content_of(matches[marked].cpu()))
