"""The section `screen`: who judges, with which models, and when a turn is to be forgotten."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from string import Formatter
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from letheon.recipe.section import Section

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
