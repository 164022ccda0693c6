"""What is measured once, under θ₀: what the model said, where changes should look, and what they should spare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from letheon.chat import Encoded
from letheon.measure import release_memory
from letheon.models import Model
from letheon.objective import Group, Needs, Objective
from letheon.split import spread
from letheon.train.config import UnlearnConfig
from letheon.train.contrast import Moments, layer_directions, lora_layers, point_adapters
from letheon.train.dataset import Reference, UnlearnDataset
from letheon.train.directional import DirectionalAdamW, directional_layers
from letheon.train.fila import Half, second_halves, start_adapters
from letheon.train.reference import ReferenceCache, informative
from letheon.train.select import FixedSteps, select
from letheon.train.sensitivity import Sensitivity, measure_sensitivity

SCORED: Needs = frozenset({"reference_log_prob", "reference_top", "base_log_prob"})
"""What is known from logits; the base's takes the place of θ₀'s."""

LOOKED_AT = 512
"""Normal dialogues that tell what normal inputs are like; of more, so many are taken."""


@dataclass
class Prepared:
    """What training needs to know of θ₀.

    Attributes:
        reference: By part and number, what was said about a sequence; parts whose term needs nothing have none, and
            normal dialogues none before they are to be dealt.
        states: In the same way, their states, for terms that need them.
        norm: The mean length of the states of old answers, for a term that needs it.
        directions: Full tuning along directions: the (r, d) rows of each weight that learns.
        selected: Full tuning along one gradient: what of each weight that learns is taken off in a step.
        held: Of adapters that start as a part of the weights: what of them does not learn.
        sensitivity: By the parameter whose gradient is to spare normal answers: an adapter's B, or a layer's weight.
    """

    reference: dict[Group, dict[int, Reference]] = field(default_factory=dict)
    states: dict[Group, dict[int, Tensor]] = field(default_factory=dict)
    norm: float | None = None
    directions: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    selected: dict[nn.Parameter, Tensor] = field(default_factory=dict)
    held: list[tuple[nn.Parameter, Half]] = field(default_factory=list)
    sensitivity: dict[nn.Parameter, Sensitivity] = field(default_factory=dict)

    def ask(
        self,
        model: Model,
        cache: ReferenceCache,
        objective: Objective,
        part: Group,
        sequences: Mapping[int, Encoded],
        moments: Moments | None = None,
        *,
        score: bool = False,
    ) -> None:
        """Ask θ₀ what the term of a part needs to know of sequences.

        Args:
            model: The model under θ₀.
            cache: Asks it.
            objective: Whose terms say what they need.
            part: The part.
            sequences: By number.
            moments: Sees a pass over all of them, which goes no further than the objective does.
            score: Ask for log-probabilities in any case.
        """
        needs, listed = objective.needs(part), list(sequences.values())
        whole, above = (moments, None) if objective.reads_logits else (None, moments)
        if "reference_states" in needs or above is not None:
            assert objective.layer is not None
            states = cache.states(model, listed, objective.layer, above)
            if "reference_states" in needs:
                self.states.setdefault(part, {}).update(zip(sequences, states, strict=True))
        asked = score or needs & SCORED
        if asked or whole is not None:
            scored = cache(model, listed, whole)
            if asked:
                self.reference.setdefault(part, {}).update(zip(sequences, scored, strict=True))

    def known_normal(self, objective: Objective) -> Mapping[int, Any] | None:
        """What is known of normal dialogues, by number; None where nobody asks."""
        if "reference_states" in objective.needs("normal"):
            return self.states.setdefault("normal", {})
        # The dual weight asks where the term does not.
        return self.reference.setdefault("normal", {}) if objective.reads_logits else None

    def optimizer(self, args: UnlearnConfig) -> torch.optim.Optimizer | None:
        """Of full tuning along what was found; None where the weights move freely."""
        if self.directions:
            return DirectionalAdamW(
                self.directions,
                args.learning_rate,  # type: ignore[arg-type]
                (args.adam_beta1, args.adam_beta2),
                args.adam_epsilon,
                sensitivity=self.sensitivity,
            )
        return FixedSteps(self.selected, args.learning_rate) if self.selected else None  # type: ignore[arg-type]

    def spare(self, *_: Any) -> None:
        """Take what normal answers are sensitive to out of the gradients, before an optimizer's step."""
        for parameter, sensitivity in self.sensitivity.items():
            if parameter.grad is not None:
                parameter.grad = sensitivity.spare(parameter.grad)


def contrasted(
    model: Model, args: UnlearnConfig, adapter_init: str | None, *, own_optimizer: bool = False
) -> dict[str, nn.Module]:
    """The layers for which a contrast is looked up: those with a new adapter, or of full tuning along directions."""
    if hasattr(model, "peft_config"):
        return lora_layers(model) if adapter_init == "contrast" else {}
    return directional_layers(model) if args.directions and args.select is None and not own_optimizer else {}


def prepare(
    model: Model,
    layers: Mapping[str, nn.Module],
    dataset: UnlearnDataset,
    cache: ReferenceCache,
    *,
    objective: Objective,
    args: UnlearnConfig,
    adapter_init: str | None,
    unasked: Callable[[], Sequence[Encoded]],
    base: Sequence[Tensor] = (),
) -> Prepared:
    """Measure all that training asks of θ₀, start new adapters, and freeze what full tuning does not move.

    Args:
        model: The model, without wrappers.
        layers: Those that are to look where forget inputs differ, by name; may be none.
        dataset: The data.
        cache: Scores sequences.
        objective: Whose terms say what they need.
        args: Settings.
        adapter_init: How the adapter starts; None where none is new.
        unasked: The old answers with the question left empty.
        base: What the base said of each turn to forget, for a term that needs it.
    """
    found = Prepared()
    layers = dict(layers) if dataset.normal else {}
    old, normal = [item.old for item in dataset.every], dataset.normal
    # Of normal dialogues the prompts count too: what is known about normal inputs is never enough.
    moments = (Moments(layers), Moments(layers, everywhere=True)) if layers else (None, None)
    choose = args.token_choice != "all"
    found.ask(model, cache, objective, "negative", dict(enumerate(old)), moments[0], score=choose)
    found.ask(model, cache, objective, "positive", dict(enumerate(dataset.expected)))
    looked = spread(range(len(normal)), LOOKED_AT) if layers else []
    found.ask(model, cache, objective, "normal", {number: normal[number] for number in looked}, moments[1])
    if "reference_norm" in objective.needs("negative"):
        assert objective.layer is not None
        lengths = [states.norm(dim=1) for states in cache.states(model, old, objective.layer)]
        found.norm = float(torch.cat(lengths).mean())
    if moments[0] is not None and moments[1] is not None:
        _look(model, layers, moments[0], moments[1], found, args.directions)
        # They are as large as half the layers, and no longer needed.
        moments = (None, None)
        release_memory()
        if args.damping is not None:
            found.sensitivity = _sensitivity(model, layers, normal, args, args.damping, cache)
    if choose:
        negative = found.reference["negative"]
        masks = {number: torch.arange(len(known.log_prob)) > 0 for number, known in negative.items()}
        if args.token_choice == "informative":
            blind = cache(model, unasked())
            masks = {
                number: informative(known.log_prob, blind[number].log_prob) for number, known in negative.items()
            }
        found.reference["negative"] = {
            number: replace(known, counts=masks[number]) for number, known in negative.items()
        }
    if "base_log_prob" in objective.needs("negative"):
        known = found.reference["negative"]
        found.reference["negative"] = {n: replace(known[n], log_prob=said) for n, said in enumerate(base)}
    forget = [item.old for item in dataset.forget]
    if adapter_init == "fila":
        start_adapters(model, forget, normal, cache.pad_token_id, cache.prefix)
        found.held = second_halves(model)
    if args.select is not None:
        found.selected = select(
            model,
            forget,
            components=args.select,
            elicit=args.elicit,
            batch_size=int(args.per_device_train_batch_size),
            pad_token_id=cache.pad_token_id,
            seed=args.seed,
            prefix=cache.prefix,
        )
    return found


def _look(
    model: Model, layers: dict[str, nn.Module], forget: Moments, normal: Moments, found: Prepared, rank: int
) -> None:
    """Point adapters, or leave the weights of full tuning alone to learn, along their directions."""
    if hasattr(model, "peft_config"):
        point_adapters(model, forget, normal)
        return
    rows = layer_directions(layers, forget, normal, dict.fromkeys(layers, rank))
    found.directions = {layer.weight: rows[name] for name, layer in layers.items()}  # type: ignore[misc]
    model.requires_grad_(False)
    for weight in found.directions:
        weight.requires_grad_(True)


def _sensitivity(
    model: Model,
    layers: Mapping[str, nn.Module],
    normal: Sequence[Encoded],
    args: UnlearnConfig,
    damping: float,
    cache: ReferenceCache,
) -> dict[nn.Parameter, Sensitivity]:
    measured = measure_sensitivity(
        model,
        layers,
        normal,
        damping=damping,
        pad_token_id=cache.pad_token_id,
        # It needs a backward pass: no more memory than a step of training.
        batch_size=int(args.per_device_train_batch_size) * (2 + args.normal_per_forget),
        seed=args.seed,
        prefix=cache.prefix,
    )
    by_parameter: dict[nn.Parameter, Sensitivity] = {}
    for name, layer in layers.items():
        adapters = [adapter.weight for adapter in getattr(layer, "lora_B", {}).values()]
        by_parameter |= dict.fromkeys(adapters or [layer.weight], measured[name])
    return by_parameter
