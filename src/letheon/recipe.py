"""The one schema of a recipe: what to forget, what to keep, with which model, how.

The docstring under each field is its help text; `letheon init` writes them into the starter recipe.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path
from string import Formatter
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from letheon.errors import InputError
from letheon.methods import METHODS, check_method, merged, without


class Section(BaseModel):
    """A part of the recipe; refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, raw: Any) -> Any:
        """A section whose every line is commented out has its defaults."""
        if not isinstance(raw, dict):
            return raw
        return {key: value for key, value in raw.items() if value is not None or not cls._is_section(str(key))}

    @classmethod
    def _is_section(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        return field is not None and isinstance(field.get_default(call_default_factory=True), Section | dict)


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
    probe: float = Field(0.1, ge=0, lt=1)
    """Share of the forget dialogues kept from training as the stop rule's probe, where there are no paraphrases."""
    subject: str | None = None
    """Forget what the log says of this person or thing and nothing else (an erasure request); skips the judges."""
    aliases: list[str] = []
    """What else the subject goes by: nicknames, e-mail addresses, phone numbers; exact where the name is."""


JudgeName = Literal[
    "labels",
    "embedding",
    "privacy",
    "contradiction",
    "rules",
    "outdated",
    "classifier",
    "guard",
    "pair",
    "api",
    "consistency",
]
GuardPreset = Literal["qwen3guard", "llama-guard-3", "granite-guardian", "granite-guardian-3.3", "wildguard"]


class Classifier(Section):
    """A sequence classifier as a judge."""

    model: str
    """Folder (or hub id) of a Hugging Face sequence classifier."""
    labels: dict[str, str]
    """Every label of the model, by its name → the category it stands for, or "normal"."""
    text: str = "answer"
    """What it reads: answer; pair (question and answer, in two parts); or a text with {question} and {answer}."""
    max_length: int = Field(512, ge=64)
    """Tokens read at once; a longer answer is read in overlapping windows, and the worst of them counts."""
    batch_size: int = Field(16, ge=1)
    """Texts read at once."""

    @field_validator("text")
    @classmethod
    def _text_has_the_answer(cls, text: str) -> str:
        return text if text in ("answer", "pair") else check_template(text, "answer", "question")


class Guard(Section):
    """A generative guard model as a judge."""

    model: str
    """Folder (or hub id) of the guard model."""
    preset: GuardPreset
    """How it is asked and what it answers: that of the family it belongs to."""
    max_length: int = Field(2048, ge=512)
    """Tokens read at once; a longer answer is read in overlapping windows, and the worst of them counts."""
    batch_size: int = Field(8, ge=1)
    """Dialogues read at once."""


class Pair(Section):
    """A model of premise and hypothesis (NLI, HHEM) as a judge."""

    model: str
    """Folder (or hub id) of a sequence classifier of two texts: entailment and contradiction, or one score."""
    template: str = "{question} {text}"
    """How answers, acceptable ones too, are written for it; sentences of screen.knowledge are read as they are."""
    labels: dict[Literal["entailment", "contradiction"], str] = Field(default_factory=dict)
    """The model's names of the two labels, where they are others ("entailment": "LABEL_2")."""
    category: str = "hallucination"
    """The category of what it finds."""
    max_length: int = Field(512, ge=64)
    """Tokens read at once; a longer answer is read in overlapping windows, and the worst of them counts."""
    batch_size: int = Field(16, ge=1)
    """Pairs read at once."""

    @field_validator("template")
    @classmethod
    def _template_has_the_text(cls, template: str) -> str:
        return check_template(template, "text", "question")


class Api(Section):
    """A language model behind an OpenAI-compatible server as a judge; its key comes from the environment."""

    url: str
    """Address of the server up to its version, such as http://localhost:8000/v1."""
    model: str
    """The model's name there."""
    rubrics: dict[str, str | None] = Field({"harmful": None, "privacy": None}, min_length=1)
    """Category → what counts as that; null takes Letheon's own for harmful, privacy, hallucination or outdated."""
    allow_remote: bool = False
    """Send the dialogues to a server on another machine."""
    concurrency: int = Field(4, ge=1)
    """Requests under way at once."""
    timeout: float = Field(60, gt=0)
    """Seconds that one request may take."""
    tries: int = Field(5, ge=1)
    """How often a question is asked, where the server fails or is busy, before the turn is left to a person."""
    answer_tokens: int = Field(512, ge=16)
    """Tokens that an answer may have; models that think aloud first need many."""
    max_requests: int | None = Field(None, ge=1)
    """Budget of a stage in requests; when it is spent, the remaining turns are left to a person."""
    max_tokens: int | None = Field(None, ge=1)
    """Budget of a stage in tokens, as the server counts them; what is under way when it is spent comes on top."""

    @model_validator(mode="before")
    @classmethod
    def _no_keys_here(cls, raw: Any) -> Any:
        """A recipe is copied into the run folder and handed on; an address may hold a key as well."""
        if not isinstance(raw, dict):
            return raw
        named = [key for key in raw if re.search(r"key|token$|secret|password|header|auth", str(key), re.IGNORECASE)]
        if named or re.search(r"//[^/]*@|[?#]", str(raw.get("url", ""))):
            where = repr(named[0]) if named else "the url's user, password or query"
            raise ValueError(
                f"no key is read from a recipe ({where}), which is copied into the run folder; "
                "put it into the environment variable LETHEON_API_KEY"
            )
        return raw

    @model_validator(mode="after")
    def _asked_before_dialogues_leave(self) -> Api:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"url {self.url!r} is no address such as http://localhost:8000/v1")
        if not self.allow_remote and not is_loopback(self.url):
            raise ValueError(
                f"{parts.hostname} is another machine, and the dialogues would be sent there; "
                "set allow_remote: true if that is what you want, or use a server on this machine"
            )
        return self


class Consistency(Section):
    """The disagreement of an answer with others to the same prompt as a judge."""

    model: str | None = None
    """Folder (or hub id) of the model that answers again; by default the recipe's own, which wrote the log."""
    samples: int = Field(5, ge=2)
    """Answers drawn a prompt."""
    temperature: float = Field(1.0, gt=0)
    """Of the draws."""
    max_new_tokens: int = Field(64, ge=8)
    """Tokens of an answer that are compared."""


class Ray(Section):
    """Where the engine ray judges; verdicts do not depend on it."""

    address: str | None = None
    """Of a cluster to join, such as head:6379; by default RAY_ADDRESS, and without that workers on this machine."""
    workers: int | None = Field(None, ge=1)
    """Processes that judge, each with models of its own; by default one a GPU, or one a core where there is none."""


class Screen(Section):
    """Which dialogues need unlearning: the evaluative model."""

    judges: list[JudgeName] = ["labels"]
    """Judges that look at every answer."""
    combine: Literal["max", "mean", "stacked"] = "max"
    """How their scores become one: the highest; the mean in a category; a regression fitted on the examples."""
    examples: Path | None = None
    """Labelled dialogues that the embedding judge is fitted on; without them it is a weak prior."""
    fine_tune: bool = False
    """Tune the embedding judge's MiniLM on them, too; needs 200, and minutes without a GPU."""
    knowledge: Path | None = None
    """Text with the facts that answers must not contradict, for the judges contradiction and pair."""
    ner: str = "auto"
    """How the privacy judge finds names: rampart, patterns, or a spaCy pipeline; auto: the best that is installed."""
    rules: Path | None = None
    """YAML with words and patterns that answers must not hold, for the rules judge."""
    changed_facts: Path | None = None
    """Table (.yaml, .jsonl, .csv) of facts that have changed, old value and new, for the outdated judge."""
    duplicates: Literal["near", "exact", "none"] = "near"
    """Which turns share a verdict, where a judge takes its time: near repetitions, exact ones, or none."""
    forget_above: float = Field(0.5, ge=0, le=1)
    """Score from which a turn is forgotten."""
    normal_below: float = Field(0.5, ge=0, le=1)
    """Score under which a turn is normal; between the two it waits for a person and is not trained on."""
    classifier: Classifier | None = None
    """For the judge classifier."""
    guard: Guard | None = None
    """For the judge guard."""
    pair: Pair | None = None
    """For the judge pair."""
    api: Api | None = None
    """For the judge api."""
    consistency: Consistency = Consistency()
    """For the judge consistency."""
    engine: Literal["local", "ray"] = "local"
    """Where the judges work: in this process, or on the workers of a Ray cluster."""
    ray: Ray = Ray()
    """For the engine ray."""
    target_recall: float | None = Field(None, gt=0, lt=1)
    """Choose the thresholds by the examples instead, so that this share of what is to be forgotten is found."""
    target_precision: float | None = Field(None, gt=0, lt=1)
    """Choose them so that this share of what is forgotten should be; with both targets, the rest is for review."""

    @model_validator(mode="after")
    def _ordered(self) -> Screen:
        if self.normal_below > self.forget_above:
            raise ValueError(
                f"normal_below ({self.normal_below}) is above forget_above ({self.forget_above}); "
                "swap them, or make them equal for no review band"
            )
        for name in ("classifier", "guard", "pair", "api"):
            if name in self.judges and getattr(self, name) is None:
                raise ValueError(f"judge {name!r} needs its model: fill in screen.{name}")
        if self.engine == "ray" and "api" in self.judges:
            raise ValueError(
                "engine 'ray' does not go with judge 'api': workers would each spend its budget; "
                "set engine to local, and raise api.concurrency to ask more at once"
            )
        if "rules" in self.judges and self.rules is None:
            raise ValueError("judge 'rules' needs rules: set screen.rules to their file")
        if "outdated" in self.judges and self.changed_facts is None:
            raise ValueError("judge 'outdated' needs changed facts: set screen.changed_facts to their file")
        if self.fine_tune and "embedding" not in self.judges:
            raise ValueError("fine_tune is of the judge 'embedding': add it to judges")
        if self.examples is None:
            asked = [name for name in ("target_recall", "target_precision") if getattr(self, name) is not None]
            asked += ["combine: stacked"] if self.combine == "stacked" else []
            asked += ["fine_tune"] if self.fine_tune else []
            if asked:
                raise ValueError(f"{asked[0]} needs labelled dialogues: set examples to their file")
        return self


ExpectedSource = Literal["data", "facts", "model", "safe-replies", "mismatch"]


class Expected(Section):
    """What the model should say instead."""

    sources: list[ExpectedSource] = Field(["data", "safe-replies"], min_length=1)
    """Pooled, then clustered: data; facts (screen.changed_facts); model; safe-replies; mismatch (normal answers)."""
    samples: int = Field(4, ge=1)
    """Answers sampled from the model itself per prompt, for the source "model"."""
    safe_replies: Path | None = None
    """YAML with your own safe replies per category, instead of the ones that come with Letheon."""
    temperature: float = Field(0.1, gt=0)
    """How sharply answers near the cluster mean are preferred: w ∝ exp(cos(e, c) / temperature)."""


NegativeName = Literal[
    "hinge",
    "masc",
    "inverted-hinge",
    "nlul",
    "npo",
    "simnpo",
    "dpo",
    "flat-tv",
    "undial",
    "wga",
    "satimp",
    "max-entropy",
    "logit-flattening",
    "jensun",
    "rmu",
    "adaptive-rmu",
    "gradient-ascent",
    "reinforce",
    "none",
]
OWN_SETTINGS: dict[NegativeName, tuple[str, ...]] = {
    "hinge": ("rho", "eta", "rivals"),
    "masc": ("rho", "eta", "rivals"),
    "npo": ("beta",),
    "simnpo": ("beta", "gamma"),
    "dpo": ("beta",),
    "undial": ("beta",),
    "wga": ("beta",),
    "satimp": ("beta1", "beta2"),
    "rmu": ("layer", "steering"),
    "adaptive-rmu": ("layer", "scale"),
}
"""The settings that are a distance's own; the others have none."""


class Negative(Section):
    """The distance loss that drives the model away from its old answers."""

    name: NegativeName = "hinge"
    """hinge: log-odds margin (default); none; or a published distance, see docs/methods.md."""
    weight: float = Field(1.0, ge=0)
    """λ_neg."""
    rho: float | None = Field(None, gt=0, lt=1)
    """hinge, masc: a token is forgotten when its odds against rivals fall to rho / (1 - rho); null: 0.2, masc 0.7."""
    eta: float | None = Field(None, gt=0)
    """hinge, masc: scale of the margin; null: 1, masc 0.25."""
    rivals: int | None = Field(None, ge=1)
    """hinge, masc: how many rival tokens the margin is measured against; null: 10."""
    beta: float | None = Field(None, gt=0)
    """npo, simnpo, dpo, wga, undial: inverse temperature, power, demotion; null: 0.1, 2.5, 0.1, 1, 10."""
    gamma: float | None = Field(None, ge=0)
    """simnpo: margin; larger goes on pushing for longer; null: 0."""
    beta1: float | None = Field(None, ge=0)
    """satimp: power of p; null: 5."""
    beta2: float | None = Field(None, ge=0)
    """satimp: power of 1 - p; null: 1."""
    layer: int | None = Field(None, ge=0)
    """rmu, adaptive-rmu: the layer, from 0, whose hidden states are steered; null: the last of the lowest quarter."""
    steering: float | None = Field(None, gt=0)
    """rmu: length of the vector that they are steered to; null: 20; adaptive-rmu finds one that fits the model."""
    scale: float | None = Field(None, gt=0)
    """adaptive-rmu: that length as a multiple of the states' mean length before; null: 5."""
    sam_rho: float = Field(0.0, ge=0)
    """SAM, with any distance: its gradient is taken so far uphill of the weights; 0: where they are."""
    tokens: Literal["all", "without-first", "informative"] = "all"
    """Which answer tokens count: all; all but the first; those that the prompt makes likelier."""

    @model_validator(mode="after")
    def _only_its_own_settings(self) -> Negative:
        own = OWN_SETTINGS.get(self.name, ())
        every = dict.fromkeys(name for names in OWN_SETTINGS.values() for name in names)
        if foreign := [name for name in every if name not in own and getattr(self, name) is not None]:
            raise ValueError(
                f"{self.name!r} has no {' and no '.join(foreign)}: take it out, or set it to null"
                + (f"; its own settings are {', '.join(own)}" if own else "")
            )
        return self

    def own_settings(self) -> dict[str, float]:
        """Those of the named distance that are set."""
        own = {name: getattr(self, name) for name in OWN_SETTINGS.get(self.name, ())}
        return {name: value for name, value in own.items() if value is not None}

    @property
    def reads_states(self) -> bool:
        """Whether it reads hidden states in place of logits."""
        return self.name in ("rmu", "adaptive-rmu")


class Positive(Section):
    """The pull toward the cluster mean of the expected answers."""

    name: Literal["cluster-mean", "uniform", "single", "none"] = "cluster-mean"
    """cluster-mean (default); uniform: all expected answers alike; single: the best one only; none."""
    weight: float = Field(0.2, ge=0)
    """λ_pos."""


class Normal(Section):
    """What keeps the model's ability."""

    name: Literal["ce+kl", "ce", "kl", "js", "states", "none"] = "ce+kl"
    """ce: cross-entropy on normal answers; kl, js: divergence to the model before; states: its hidden ones (rmu)."""
    weight: float = Field(2.5, ge=0)
    """λ_nor, where the dual step starts; of states rmu's α, 1200 by its authors."""
    floor: float | None = Field(None, ge=0)
    """λ_nor never falls below this; null: weight."""
    top_k: int = Field(64, ge=1)
    """Tokens of the reference distribution that are cached (the rest is one bucket)."""
    budget: float = Field(1.1, gt=0)
    """The normal perplexity may rise to this multiple of what it was before λ_nor grows."""
    dual_rate: float = Field(5.0, ge=0)
    """Step of λ_nor per unit of overrun; 0 keeps it fixed, as it always is with states."""
    rehearsal: bool = True
    """Keep the model's own answers to everyday questions as well, so that what the log does not show drifts less."""


class ObjectiveRecipe(Section):
    """The three terms."""

    negative: Negative = Negative()
    positive: Positive = Positive()
    normal: Normal = Normal()
    balance: bool = True
    """Scale the negative loss to the normal loss's gradient norm (s in the docs); rmu and states are not scaled."""

    @model_validator(mode="after")
    def _states_are_those_of_rmu(self) -> ObjectiveRecipe:
        if self.normal.name == "states" and not self.negative.reads_states:
            raise ValueError(
                f"normal.name 'states' keeps what rmu steers, but negative.name is {self.negative.name!r}: "
                "set that to rmu or adaptive-rmu, or normal.name to ce+kl"
            )
        return self


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
    init: Literal["contrast", "random"] = "contrast"
    """contrast: adapters look where forget inputs differ from normal ones (and only B learns); random: plain LoRA."""
    quantize: Literal["nf4"] | None = None
    """nf4: hold the base's linear layers in 4 bits while an adapter learns (QLoRA; a GPU, extra 'quantize')."""


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
    rho: float = Field(0.2, gt=0, lt=1)
    """For the curve: a probe token is still preferred when its odds against its rivals exceed rho / (1 - rho)."""
    normal_budget: float = Field(1.12, gt=1)
    """Guard: the normal probe's perplexity may rise to this multiple of what it was before."""
    kl_budget: float = Field(0.12, gt=0)
    """Guard: KL to the model before, on the normal probe, in nats per token."""
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
    output: Path = Path("runs/latest")
    """The run folder."""
    method: str = "letheon"
    """A published method by name: its authors' settings fill what the recipe leaves open (docs/methods.md)."""
    seed: int = 0
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

    @model_validator(mode="before")
    @classmethod
    def _method_fills_what_is_open(cls, raw: Any) -> Any:
        settings = METHODS.get(str(raw.get("method"))) if isinstance(raw, dict) else None
        if not settings:
            return raw
        filled = merged(settings, raw)
        meant = settings["objective"]["negative"]["name"]
        named = _at(filled, "objective", "negative", "name")
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
    def _what_is_reinforced_is_negated(self) -> Recipe:
        if (self.objective.negative.name == "reinforce") != (self.train.get("negation") is not None):
            raise ValueError(
                "objective.negative.name: reinforce, which teaches the old answers, and train.negation, which then "
                "goes the other way, belong together: set both, or neither"
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

    @property
    def quantizes(self) -> bool:
        """Whether the model is to be held in 4 bits."""
        return self.tuning.kind == "lora" and self.tuning.lora.quantize is not None

    def dump(self) -> str:
        """The resolved recipe as YAML."""
        return yaml.safe_dump(
            self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True, width=100
        )


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, apply `--set key.path=value` overrides, and check it whole.

    Paths in the file are relative to the file; paths in overrides to the current folder.

    Args:
        path: The YAML file.
        overrides: Each "objective.negative.rho=0.1"; the value is read as YAML.

    Raises:
        InputError: Every fault at once, each with its place and, for a misspelt field, a suggestion.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such recipe; 'letheon init DATA MODEL' writes a starter")
    try:
        raw = _yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{path}: expected 'key: value' lines, found {type(raw).__name__}")
    anchor_paths(raw, path.parent)
    for override in overrides:
        apply_override(raw, override)
    return check_recipe(raw, str(path))


def check_recipe(raw: dict[str, Any], where: str = "recipe") -> Recipe:
    """Validate a recipe given as nested dictionaries.

    Raises:
        InputError: Every fault at once.
    """
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise InputError([f"{where}: {_explain(fault)}" for fault in error.errors()]) from None


def check_template(template: str, *fields: str) -> str:
    """Refuse a template that lacks its first field, or has others than these."""
    try:
        named = [name for _, name, _, _ in Formatter().parse(template) if name is not None]
    except ValueError:
        named = [""]
    if fields[0] not in named or not set(named) <= set(fields):
        known = " and ".join(f"{{{field}}}" for field in fields)
        raise ValueError(f"a template needs {{{fields[0]}}}, and may hold {known} and nothing else in braces")
    return template


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def anchor_paths(raw: dict[str, Any], folder: Path) -> None:
    """Make the paths of a raw recipe relative to its own folder, in place."""
    for section, keys in PATH_FIELDS.items():
        holder = _at(raw, *(section.split(".") if section else ()))
        if not isinstance(holder, dict):
            continue
        for key in keys:
            value = holder.get(key)
            # A model may be a hub id: only what exists beside the recipe is taken for a folder.
            if isinstance(value, str) and (key not in MODEL_FIELDS or (folder / value).exists()):
                holder[key] = str(folder / Path(value).expanduser())


PATH_FIELDS = {
    "": ("model", "output"),
    "data": ("dialogues", "paraphrases", "general"),
    "screen": ("examples", "knowledge", "rules", "changed_facts", "ner"),
    "screen.classifier": ("model",),
    "screen.guard": ("model",),
    "screen.pair": ("model",),
    "screen.consistency": ("model",),
    "expected": ("safe_replies",),
    "evaluate": ("control",),
}
MODEL_FIELDS = ("model", "control", "ner")


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Apply one "a.b.c=value" to a raw recipe, in place.

    Raises:
        InputError: No "=", or a path through something that is not a section.
    """
    key, found, value = override.partition("=")
    if not found or not key:
        raise InputError(f"--set {override!r}: expected key.path=value, e.g. objective.negative.rho=0.1")
    if key == "method":
        take_method(raw, value)
        return
    *parents, leaf = key.split(".")
    holder = raw
    for parent in parents:
        if holder.get(parent) is None:
            holder[parent] = {}
        holder = holder[parent]
        if not isinstance(holder, dict):
            raise InputError(f"--set {override!r}: {parent!r} is a value, not a section")
    try:
        holder[leaf] = _yaml(value)
    except yaml.YAMLError:
        raise InputError(f"--set {override!r}: the value is not valid YAML; quote it") from None


def _at(raw: Any, *path: str) -> Any:
    """What raw settings have at a path; None where it leads nowhere."""
    for part in path:
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw


def take_method(raw: dict[str, Any], name: str) -> None:
    """Put a method's settings in the place of a raw recipe's, in place.

    What an earlier method had set goes, and so does all of the objective.
    """
    kept = without(raw, METHODS.get(str(raw.get("method")), {}))
    raw.clear()
    raw.update(merged({**kept, "objective": {}, "method": name}, METHODS.get(name, {})))


class _Loader(yaml.SafeLoader):
    """YAML with the numbers of version 1.2: 5e-4 is one, where version 1.1 sees a text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - it is a SafeLoader


def _explain(fault: Any) -> str:
    """One pydantic fault as a line: where, what is wrong, and the nearest known field."""
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *parents, unknown = [str(part) for part in fault["loc"]]
        known = _fields_at(parents)
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"
        return f"unknown field {place!r}; {hint}"
    if fault["type"] == "missing":
        return f"{place!r} is missing"
    message = str(fault["msg"]).removeprefix("Value error, ")
    given = fault["input"]
    shown = f" (got {given!r})" if isinstance(given, str | int | float | bool | None) else ""
    return f"{place}: {message}{shown}" if place else f"{message}{shown}"


def _fields_at(path: Sequence[str]) -> list[str]:
    """Names of the fields of the section at a path."""
    section: type[BaseModel] = Recipe
    for part in path:
        annotation: Any = section.model_fields[part].annotation
        candidates = [annotation, *get_args(annotation)]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return [field.alias or name for name, field in section.model_fields.items()]
