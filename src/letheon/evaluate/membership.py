"""Scores by which a text is taken for a member of what a model was trained on; higher always speaks for membership.

Each is of one answer or text, from its L tokens' log-probabilities; `letheon.evaluate.gradient_norm` has the one that
needs a gradient. `membership` says how well they tell what had to be forgotten from what was never seen.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence

from torch import Tensor

from letheon.evaluate.auc import auc_interval, priv_leak_interval
from letheon.evaluate.teacher_forced import TokenScores
from letheon.records import Metric, NotComputed, SetMetrics

SHARE = 0.4
"""Of the tokens, for Min-K% and Min-K%++: what open-unlearning and MUSE take."""
ATTACKS = ("loss", "zlib", "grad_norm", "min_k", "min_k_plus_plus", "reference")
MEMBERSHIP = (*(f"{name}_auc" for name in ATTACKS), "privleak")
PROBED = "membership: "
"""Before the name of a set whose samples have the scores of `ATTACKS`."""

Rows = Sequence[Mapping[str, float]]
"""Of each text its scores by attack."""


def loss_score(log_probs: Tensor) -> float:
    """LOSS: mean_t log p(y_t), in (−∞, 0]. Yeom et al. (arXiv 1709.01604)."""
    return float(log_probs.double().mean())


def zlib_score(log_probs: Tensor, text: str) -> float:
    """zlib: mean_t log p(y_t) / bytes of the compressed text, in (−∞, 0]: a text may be likely for being simple.

    Carlini et al. (arXiv 2012.07805), §5.2; open-unlearning, `zlib`, with its sign turned.

    Args:
        log_probs: (L,) of its tokens.
        text: The text they spell.
    """
    return loss_score(log_probs) / len(zlib.compress(text.encode("utf-8")))


def reference_score(own: float, reference: float) -> float:
    """Reference: mean_t log p(y_t) − mean_t log p_ref(y_t): what another model finds likely as well tells nothing.

    In (−∞, ∞), in nats a token; above 0 the text is likelier than to the control, and higher speaks for membership.
    Carlini et al. (arXiv 2012.07805), §5.2; open-unlearning, `reference`, with its sign turned.

    Args:
        own: The text's `loss_score`.
        reference: The same by a model that never saw the text: the control.
    """
    return own - reference


def min_k(log_probs: Tensor, share: float = SHARE) -> float:
    """Min-K%: mean log-probability of the least likely tokens of a text, in (−∞, 0].

    Shi et al. (arXiv 2310.16789), there with 20%; open-unlearning takes 40%.

    Args:
        log_probs: (L,) of its tokens.
        share: K, in (0, 1]; at least one token is taken.
    """
    taken = max(1, int(share * len(log_probs)))
    return float(log_probs.double().topk(taken, largest=False).values.mean())


def min_k_plus_plus(standardised: Tensor, share: float = SHARE) -> float:
    """Min-K%++: as Min-K%, of (log p(y_t) − μ_t) / σ_t, with mean and deviation of log p(v) over v ~ p at that place.

    Zhang et al. (arXiv 2404.02936): what counts is how likely a token is beside the others that might stand there.
    In (−∞, √V) for V tokens, in deviations; a token that is as likely as the mean has 0, and higher speaks for
    membership.

    Args:
        standardised: (L,) of its tokens; see `TokenScores`.
        share: K, in (0, 1]; at least one token is taken.
    """
    return min_k(standardised, share)


def attack_scores(tokens: TokenScores, text: str, gradient_norm: float) -> dict[str, float]:
    """A text's scores by attack; `reference` needs another model's, see `beside_control`.

    Args:
        tokens: Of `score_sequences` with `standardise`.
        text: The text that the tokens spell.
        gradient_norm: Of `gradient_norms`.
    """
    assert tokens.standardised is not None
    return {
        "loss": loss_score(tokens.log_probs),
        "zlib": zlib_score(tokens.log_probs, text),
        "grad_norm": gradient_norm,
        "min_k": min_k(tokens.log_probs),
        "min_k_plus_plus": min_k_plus_plus(tokens.standardised),
    }


def beside_control(rows: Rows, control: Rows) -> list[dict[str, float]]:
    """A model's scores with `reference` among them, from the control's of the same texts."""
    return [
        {**row, "reference": reference_score(row["loss"], its["loss"])}
        for row, its in zip(rows, control, strict=True)
    ]


def membership(
    members: Rows, others: Rows, control: tuple[Rows, Rows] | str, of: Sequence[str] | None = None
) -> SetMetrics:
    """The AUC of each attack, and PrivLeak by Min-K% against the control's, each with its 95% interval.

    Args:
        members: Scores of what had to be forgotten, `beside_control` where there is one.
        others: The same of texts that no model here was trained on.
        control: The control's scores of both; or why there are none: then no `reference_auc` and no PrivLeak.
        of: The dialogue of each member, whose turns are no news of each other; None: each is of its own.
    """

    def auc(attack: str) -> Metric:
        return auc_interval(_column(members, attack), _column(others, attack), of)

    found: SetMetrics = {f"{attack}_auc": auc(attack) for attack in ATTACKS if attack != "reference"}
    if isinstance(control, str):
        return found | dict.fromkeys(("reference_auc", "privleak"), NotComputed(not_computed=control))
    own, floor = ((_column(one, "min_k"), _column(other, "min_k")) for one, other in ((members, others), control))
    return found | {"reference_auc": auc("reference"), "privleak": priv_leak_interval(own, floor, of)}


def _column(rows: Rows, attack: str) -> list[float]:
    return [row[attack] for row in rows]
