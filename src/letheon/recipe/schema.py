"""The one schema of a recipe: what to forget, what to keep, with which model, how.

The docstring under each field is its help text; `letheon init` writes them into the starter recipe.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from letheon.errors import InputError
from letheon.methods import METHODS, at, check_method, merged
from letheon.recipe.objective import ObjectiveRecipe
from letheon.recipe.screen import Screen
from letheon.recipe.section import Section
from letheon.recipe.stress import Stress
from letheon.yaml_text import dump_recipe


class Data(Section):
    """Which dialogues."""

    dialogues: Path
    """Dialogue file (.jsonl, .json, .csv, .parquet): the log to screen, with bad and normal dialogues."""
    paraphrases: Path | None = None
    """Reworded questions of dialogues in the log ("of": its id, "split": probe or test), never trained on."""
    general: Path | None = None
    """Plain text, paragraphs separated by blank lines: is general language ability kept?"""
    held_out: float = Field(0.25, ge=0, lt=1)
    """Share of the normal dialogues that unlearning does not see, to measure what it does to them."""
    most_normal: int = Field(20_000, ge=1)
    """At most so many normal dialogues are used; where the log has more, they are drawn at random, by their ids."""
    probe: float = Field(0.0, ge=0, lt=1)
    """Share of the forget dialogues kept from training as the stop rule's probe, where there are no paraphrases; 0:
    it probes those that are trained on."""
    subject: str | None = None
    """Forget what the log says of this person or thing and nothing else (an erasure request); skips the judges."""
    aliases: list[str] = []
    """What else the subject goes by: nicknames, e-mail addresses, phone numbers; exact where the name is."""


ExpectedSource = Literal["data", "facts", "model", "alternates", "safe-replies", "mismatch"]


class Expected(Section):
    """What the model should say instead."""

    sources: list[ExpectedSource] = Field(["data", "safe-replies"], min_length=1)
    """Pooled, then clustered: data; facts (screen.changed_facts); model; alternates; safe-replies; mismatch."""
    samples: int = Field(4, ge=1)
    """Answers sampled from the model itself per prompt, for the sources "model" and "alternates"."""
    safe_replies: Path | None = None
    """YAML with your own safe replies per category, instead of the ones that come with Letheon."""
    temperature: float = Field(0.1, gt=0)
    """How sharply answers near the cluster mean are preferred: w ∝ exp(cos(e, c) / temperature)."""


class Lora(Section):
    """Low-rank adapters."""

    r: int = Field(4, ge=1)
    """Rank. With init contrast, few directions are the most selective ones."""
    alpha: int = Field(8, ge=1)
    """Scale: updates are multiplied by alpha / r."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | list[str] = "all-linear"
    """Which modules get an adapter."""
    exclude_modules: list[str] = ["down_proj"]
    """Modules among them that get none; down_proj has the widest input, and costs more than it gains."""
    init: Literal["contrast", "random", "fila"] = "contrast"
    """contrast: adapters look where forget inputs differ from normal ones (and only B learns); random: plain LoRA;
    fila: they start as the part of the weights that old answers lean on (saved with twice the rank)."""
    quantize: Literal["nf4"] | None = None
    """nf4: hold the base's linear layers in 4 bits while an adapter learns (QLoRA; a GPU, extra 'quantize')."""

    @model_validator(mode="after")
    def _fila_reads_whole_weights(self) -> Lora:
        if self.init == "fila" and self.quantize is not None:
            raise ValueError(
                "init 'fila' decomposes the model's weights, but quantize holds them in 4 bits: set init to contrast "
                "or random, or leave quantize out"
            )
        return self


class Full(Section):
    """All weights of the linear layers."""

    directions: int = Field(4, ge=0)
    """They move along so many input directions, those in which forget inputs stand out most; 0: all, freely."""


class Tuning(Section):
    """Which weights learn."""

    kind: Literal["lora", "full"] = "lora"
    """lora: an adapter; full: the model's own weights."""
    layers: str | None = None
    """Which layers: all, top-8 (the last), a share (top-66%), a range from 0 (5-7); null: top-66% with lora, all
    with full, with rmu the layer that it reads and the two below; auto: chosen by a trial."""
    damping: float | None = Field(0.1, gt=0)
    """Contrast and directions: steps spare what normal answers are sensitive to; larger spares less, null nothing."""
    lora: Lora = Lora()
    full: Full = Full()

    @field_validator("layers")
    @classmethod
    def _layers_are_known(cls, layers: str | None) -> str | None:
        if layers is None:
            return None
        if not re.fullmatch(r"auto|all|top-[1-9]\d*%?|\d+-\d+", layers):
            raise ValueError(
                f"{layers!r} is none of: auto, all, a number such as top-8, a share such as top-66%, "
                "a range such as 5-7"
            )
        if layers[0].isdigit():
            first, last = layers.split("-")
            if int(first) > int(last):
                raise ValueError(f"{layers!r} names no layer: set it to {last}-{first}")
        return layers

    @model_validator(mode="after")
    def _a_pattern_says_its_layers_itself(self) -> Tuning:
        modules = self.lora.target_modules
        if isinstance(modules, str) and modules != "all-linear" and self.layers != "all":
            raise ValueError(
                f"lora.target_modules is a pattern ({modules!r}), which names layers itself: "
                "set layers to all, or give a list of modules"
            )
        return self


class StopRecipe(Section):
    """When it is enough."""

    every: int = Field(6, ge=1)
    """Probe every so many steps."""
    probability: float = Field(0.1, gt=0, lt=1)
    """Forgotten when the old answers' probability on the probe is at most this, and …"""
    extraction_strength: float = Field(0.1, gt=0, lt=1)
    """… their extraction strength at most this: about what a model that never saw them has."""
    truth_probability: float = Field(0.8, gt=0, lt=1)
    """Or replaced: expected answers that state something are so much likelier than the old ones."""
    normal_budget: float = Field(1.12, gt=1)
    """Guard: the normal probe's perplexity may rise to this multiple of what it was before."""
    kl_budget: float = Field(0.12, gt=0)
    """Guard: KL to the model before, on the normal probe, in nats per token."""
    normal_kept: float = Field(0.9, gt=0, lt=1)
    """Guard: of their probability before, the log's own normal dialogues on the probe keep at least this share."""
    patience: int = Field(10, ge=1)
    """Give up after so many times `every` steps without progress."""


class Evaluate(Section):
    """What is measured before, after, and on a control."""

    batch_size: int = Field(16, ge=1)
    """Sequences scored or answered at once."""
    max_new_tokens: int = Field(48, ge=1)
    """Length of the greedy answers."""
    normal: int = Field(40, ge=1)
    """At most so many dialogues of each normal set are measured."""
    control: str | None = None
    """Model that never saw the dialogues to forget, where there is one: the target of forgetting."""
    samples: int = Field(0, ge=0, le=256)
    """Answers drawn to each prompt to forget, at temperature 1, for leak@k: greedy ones hide leaks; 0: none."""
    non_members: Path | None = None
    """Dialogue file, like what is to be forgotten, that no model here was trained on: membership attacks need it."""
    examples: int = Field(6, ge=0)
    """Prompts whose greedy answers before and after are kept (texts only with show_texts)."""


class Gates(Section):
    """When the exit code is 1."""

    max_probability: float = Field(0.3, ge=0, le=1)
    """Highest mean probability of the old answers that still counts as forgotten, where there is no control."""
    margin: float = Field(0.05, ge=0)
    """How far above the control's the probability and extraction strength may stay."""
    min_normal: float = Field(0.95, ge=0, le=1)
    """Lowest ratio of normal answers' probability after to before."""
    max_general: float = Field(1.05, ge=1)
    """Highest ratio of the loss on general text after to before."""


class Recipe(Section):
    """A whole run."""

    schema_: Literal["letheon/recipe/1"] = Field(default="letheon/recipe/1", alias="schema")
    """Version of this file's format."""
    model: str
    """Folder (or hub id) of the causal language model to treat."""
    base: str | None = None
    """The model from before it learnt what is to be forgotten, if you have it: its level is where forgetting ends."""
    output: Path = Path("runs/latest")
    """The run folder."""
    method: str = "letheon"
    """A published method by name: its authors' settings fill what the recipe leaves open (docs/methods.md)."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of everything random."""
    show_texts: bool = False
    """Write texts of forget dialogues into samples, results and report. Off: ids and scores only."""
    data: Data
    screen: Screen = Screen()
    expected: Expected = Expected()
    objective: ObjectiveRecipe = ObjectiveRecipe()
    tuning: Tuning = Tuning()
    train: dict[str, Any] = Field(default_factory=dict)
    """Passed to UnlearnConfig, which knows all of transformers.TrainingArguments: learning_rate, max_steps, …"""
    stop: StopRecipe = StopRecipe()
    evaluate: Evaluate = Evaluate()
    gates: Gates = Gates()
    stress: Stress = Stress()

    @model_validator(mode="before")
    @classmethod
    def _method_fills_what_is_open(cls, raw: Any) -> Any:
        settings = METHODS.get(str(raw.get("method"))) if isinstance(raw, dict) else None
        if not settings:
            return raw
        filled = merged(settings, raw)
        meant = settings["objective"]["negative"]["name"]
        named = at(filled, "objective", "negative", "name")
        if named != meant:
            raise ValueError(
                f"method {raw['method']!r} has the distance {meant!r}, but objective.negative.name is {named!r}: "
                "take one of them out; where a recipe spells out its settings, "
                f"'--set method={raw['method']}' puts the method's in their place"
            )
        return filled

    @field_validator("method")
    @classmethod
    def _method_is_known(cls, name: str) -> str:
        try:
            check_method(name)
        except InputError as error:
            raise ValueError(str(error)) from None
        return name

    @model_validator(mode="after")
    def _the_base_is_named(self) -> Recipe:
        if self.objective.negative.name == "base" and self.base is None:
            raise ValueError(
                "objective.negative.name is 'base', but no base is named: set base to the model from before it "
                "learnt what is to be forgotten, or name another distance"
            )
        return self

    @model_validator(mode="after")
    def _what_is_reinforced_is_negated(self) -> Recipe:
        if (self.objective.negative.name == "reinforce") != (self.train.get("negation") is not None):
            raise ValueError(
                "objective.negative.name: reinforce, which teaches the old answers, and train.negation, which then "
                "goes the other way, belong together: set both, or neither"
            )
        return self

    @model_validator(mode="after")
    def _one_gradient_moves_weights(self) -> Recipe:
        if self.train.get("select") is not None and self.tuning.kind != "full":
            raise ValueError(
                "train.select (method repselect) moves the weights themselves, and an adapter could not hold it: "
                "set tuning.kind to full"
            )
        return self

    @model_validator(mode="after")
    def _an_adapter_starts_by_fila(self) -> Recipe:
        if self.tuning.lora.init == "fila" and self.tuning.kind == "full":
            raise ValueError(
                "tuning.lora.init 'fila' (method loku) is how an adapter starts, and with tuning.kind full there is "
                "none: set kind to lora, or take method ihl, which is the same without it"
            )
        return self

    @model_validator(mode="after")
    def _corrected_answers_need_facts(self) -> Recipe:
        if "facts" in self.expected.sources and self.screen.changed_facts is None:
            raise ValueError(
                "expected.sources names 'facts': set screen.changed_facts to their file, or take 'facts' out"
            )
        return self

    @model_validator(mode="after")
    def _states_say_which_layers_learn(self) -> Recipe:
        if self.tuning.layers == "auto" and self.objective.negative.reads_states:
            raise ValueError(
                f"tuning.layers is auto, but {self.objective.negative.name!r} reads one layer: "
                "leave layers out, and that one and the two below learn"
            )
        return self

    @model_validator(mode="after")
    def _sampled_answers_need_a_judge(self) -> Recipe:
        if "model" in self.expected.sources and set(self.screen.judges) <= {"labels"}:
            raise ValueError(
                "expected.sources names 'model', but judge 'labels' cannot judge new answers: "
                "add another to screen.judges, or take 'model' out"
            )
        return self

    @model_validator(mode="after")
    def _robust_rounds_whole_weights(self) -> Recipe:
        if self.objective.robust and self.quantizes:
            raise ValueError(
                "objective.robust measures what rounding does to whole weights, but tuning.lora.quantize holds them "
                "in 4 bits already: leave one of them out"
            )
        return self

    @property
    def quantizes(self) -> bool:
        """Whether the model is to be held in 4 bits."""
        return self.tuning.kind == "lora" and self.tuning.lora.quantize is not None

    def dump(self) -> str:
        """The resolved recipe as YAML."""
        return dump_recipe(self.model_dump(mode="json", by_alias=True))
