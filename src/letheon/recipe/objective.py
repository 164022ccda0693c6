"""The section `objective`: the three terms, and what is a distance's own to set."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from letheon.recipe.section import Section

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
    "base",
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
    """hinge: log-odds margin (default); base: back to the recipe's `base`; none; or a published distance."""
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

    name: Literal["cluster-mean", "uniform", "single", "none"] | None = None
    """cluster-mean; uniform: all expected answers alike; single: the one nearest the cluster's mean; none. null:
    cluster-mean, or single where less than a quarter of the expected answers abstain."""
    weight: float | None = Field(None, ge=0)
    """λ_pos; null: 1, or 0.2 where a quarter of the expected answers or more abstain, which neighbours would too."""


class Normal(Section):
    """What keeps the model's ability."""

    name: Literal["ce+kl", "ce", "kl", "js", "ap", "states", "none"] = "ce+kl"
    """ce: cross-entropy on normal answers; kl, js: divergence to the model before; ap: normal answers rather than
    expected ones (answer preservation); states: hidden states as before (rmu)."""
    weight: float = Field(2.5, ge=0)
    """λ_nor, where the dual step starts; of states rmu's α, 1200 by its authors."""
    floor: float | None = Field(None, ge=0)
    """λ_nor never falls below this; null: weight."""
    beta: float | None = Field(None, gt=0)
    """ap: inverse temperature; null: 0.1."""
    top_k: int = Field(64, ge=1)
    """Tokens of the reference distribution that are cached (the rest is one bucket)."""
    budget: float = Field(1.1, gt=0)
    """The normal perplexity may rise to this multiple of what it was before λ_nor grows."""
    dual_rate: float = Field(5.0, ge=0)
    """Step of λ_nor per unit of overrun; 0 keeps it fixed, as it always is with states."""
    rehearsal: bool = True
    """Keep the model's own answers to everyday questions as well, so that what the log does not show drifts less."""

    @model_validator(mode="after")
    def _beta_is_that_of_ap(self) -> Normal:
        if self.beta is not None and self.name != "ap":
            raise ValueError(f"{self.name!r} has no beta: take it out, or set it to null")
        return self


class ObjectiveRecipe(Section):
    """The three terms."""

    negative: Negative = Negative()
    positive: Positive = Positive()
    normal: Normal = Normal()
    balance: bool = True
    """Scale the negative loss to the normal loss's gradient norm (s in the docs); rmu and states are not scaled."""

    robust: bool = False
    """Train against what letheon stress does, too: other prompts, relearning, 4 bits; docs/robustness.md."""

    @model_validator(mode="after")
    def _something_is_asked(self) -> ObjectiveRecipe:
        if {self.negative.name, self.positive.name, self.normal.name} == {"none"}:
            raise ValueError("negative, positive and normal are all 'none', and nothing would be learnt: name one")
        return self

    @model_validator(mode="after")
    def _robust_goes_with_the_rest(self) -> ObjectiveRecipe:
        if self.robust and self.negative.tokens == "informative":
            raise ValueError(
                "robust does not go with negative.tokens 'informative', which is known of a prompt as it stands: "
                "set tokens to all or without-first"
            )
        if self.robust and self.negative.sam_rho:
            raise ValueError(
                f"robust and negative.sam_rho={self.negative.sam_rho:g} each say where the distance's gradient is "
                "taken: leave one of them out"
            )
        if self.robust and self.negative.name in ("none", "reinforce", "base"):
            raise ValueError(f"robust does not go with negative.name {self.negative.name!r}: name another distance")
        return self

    @model_validator(mode="after")
    def _states_are_those_of_rmu(self) -> ObjectiveRecipe:
        if self.normal.name == "states" and not self.negative.reads_states:
            raise ValueError(
                f"normal.name 'states' keeps what rmu steers, but negative.name is {self.negative.name!r}: "
                "set that to rmu or adaptive-rmu, or normal.name to ce+kl"
            )
        return self
