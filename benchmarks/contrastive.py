"""Whether contrastive tuning, or late interaction of question and answer, makes the embedding judge better.

    python benchmarks/contrastive.py --data ../shared/data

Forms are chosen on the half of each set whose prompts have an even hash: the mean of 3 folds, then the mean AUROC of
the sets (the best of each kind, by the rows of --chosen-by). The other half reports them once: draws, 2000 labels
and 1000 test dialogues as in `screening.py`. What is there is not measured again, so a call that was cut off goes on
where it was, and --parts, --sets, --forms, --methods, --draws and --csv split the work. No text is printed or kept.

Contrastive: the encoder of `fine_tune.py` with another loss, on h̄ of question and answer read together; then a head
on h̄ / ‖h̄‖, a logistic regression (as SetFit has it) or the kernel ridge, alone and averaged with the kernel ridge on
untuned states. Late interaction: token states of question and answer apart, and how they match.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from screening import SETS, Remembering, divide, prompt_hash, truth, without_rare
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from table import read_rows, write_rows

from letheon.embed import WINDOW, Embedder
from letheon.models import fast_bf16
from letheon.records import NORMAL, Dialogue
from letheon.screen import embedding, fine_tune, head
from letheon.screen.embedding import EmbeddingJudge, everyday
from letheon.screen.features import Features, LayerFeatures, Matrix, Pair
from letheon.screen.fine_tune import TunedEncoder, _mean_log
from letheon.screen.head import Data, calibrate, fit_head, log_losses, make_folds, softmax
from letheon.screen.thresholds import auroc, calibration_error

EVEN, OUTER = "even: mean of 3 folds", 3
LABELS = 2000
USUAL = ["beavertails", "halueval", "truthfulqa"]
FIGURES = ("auroc", "average_precision", "calibration_error", "log_loss", "expected_auroc")
COLD = 0.1
"""Temperature of the supervised contrast."""
READ = (2, 4, 6)
"""Layers whose tokens are matched."""
WIDTH = 384
HEADS = ("logistic regression", "ridge")


def same_and_other(targets: Any) -> tuple[Any, Any]:
    """Which pairs of a batch are of one category, and which are not: (B, B) each, without an example with itself."""
    same = targets[:, None] == targets[None]
    own = torch.eye(len(targets), dtype=torch.bool, device=targets.device)
    return same & ~own, ~same


def cosine_pairs(states: Any, targets: Any) -> Any:
    """SetFit's loss on all pairs of a batch: (cos − 1)² where categories agree, cos² where they do not.

    Either kind counts half, as SetFit draws as many of one as of the other (arXiv 2209.11055).
    """
    unit = torch.nn.functional.normalize(states, dim=1)
    same, other = same_and_other(targets)
    cosine = unit @ unit.T
    near = ((cosine - 1).square() * same).sum() / same.sum().clamp(min=1)
    return near + (cosine.square() * other).sum() / other.sum().clamp(min=1)


def supervised_contrast(states: Any, targets: Any) -> Any:
    """−mean log exp(cos(i, p) / τ) / Σ_{a ≠ i} exp(cos(i, a) / τ), over the p of i's category.

    Khosla et al., arXiv 2004.11362, equation 2.
    """
    unit = torch.nn.functional.normalize(states, dim=1)
    same, other = same_and_other(targets)
    # Not −∞: an example alone in its batch would have no gradient that is a number.
    logits = (unit @ unit.T / COLD).masked_fill(~(same | other), -1e4)
    found, count = (logits.log_softmax(1) * same).sum(1), same.sum(1)
    return -(found / count.clamp(min=1)).sum() / (count > 0).sum().clamp(min=1)


class Contrastive(TunedEncoder):
    """Tuned by a loss of pairs; its scores are log-probabilities of a head on h̄ / ‖h̄‖ of what it was tuned on.

    Attributes:
        head: One of `HEADS`.
        contrast: The loss.
        by_category: Whether undesired answers of two categories are told apart, or only normal from undesired.
    """

    head = HEADS[0]
    contrast: Callable[[Any, Any], Any] = staticmethod(cosine_pairs)
    by_category = True

    def __init__(self, embedder: Embedder, categories: int):
        super().__init__(embedder, categories)
        self._known: dict[Pair, int] = {}
        self._fitted: Callable[[Matrix], Matrix] | None = None

    @classmethod
    def fit(cls, embedder: Embedder, pairs: Sequence[Pair], targets: Any, *others: Any) -> Contrastive:
        """Tune, and keep what the head is fitted on."""
        tuned = super().fit(embedder, pairs, targets, *others)
        assert isinstance(tuned, cls)
        tuned._known = dict(zip(pairs, targets.tolist(), strict=True))
        return tuned

    def loss(self, states: Any, targets: Any) -> Any:
        """That of pairs."""
        return type(self).contrast(states, targets if self.by_category else (targets > 0).long())

    def towards(self, other: TunedEncoder, share: float) -> None:
        """The mean of weights has the examples of all; its head is fitted anew."""
        super().towards(other, share)
        assert isinstance(other, Contrastive)
        self._known |= other._known
        self._fitted = None

    def scores(self, pairs: Sequence[Pair]) -> Matrix:
        """Log-probabilities (n, categories)."""
        if self._fitted is None:
            rows, targets = self._unit(list(self._known)), np.array(list(self._known.values()))
            self._fitted = {HEADS[0]: regression, HEADS[1]: ridge}[self.head](
                rows, targets, [question for question, _ in self._known], self._head.out_features
            )
        return np.asarray(np.log(np.maximum(self._fitted(self._unit(pairs)), 1e-12)))

    def put(self, name: str) -> None:
        """Another head."""
        self.head, self._fitted = name, None

    def _unit(self, pairs: Sequence[Pair]) -> Matrix:
        return self._read(pairs, partial(torch.nn.functional.normalize, dim=1), WIDTH)


class Both(TunedEncoder):
    """Cross-entropy plus half the supervised contrast of the same states, after Gunel et al. (arXiv 2011.01403)."""

    def loss(self, states: Any, targets: Any) -> Any:
        """Of both."""
        return super().loss(states, targets) + 0.5 * supervised_contrast(states, targets)


def regression(rows: Matrix, targets: Any, _: Sequence[str], categories: int) -> Callable[[Matrix], Matrix]:
    """SetFit's head."""
    fitted = LogisticRegression(max_iter=1000).fit(rows, targets)

    def probabilities(others: Matrix) -> Matrix:
        found = np.zeros((len(others), categories))
        found[:, fitted.classes_] = fitted.predict_proba(others)
        return found

    return probabilities


def ridge(rows: Matrix, targets: Any, questions: Sequence[str], categories: int) -> Callable[[Matrix], Matrix]:
    """The judge's head, with γ and λ given: folds of what the encoder was tuned on would choose too little of λ."""
    folds = make_folds((targets > 0).tolist(), questions, 0)
    with patch.multiple(head, GAMMAS=(0.3,), RIDGES=(3.0,)):
        return fit_head(Data(rows, targets, np.arange(len(rows)), range(categories)), folds)[0].probabilities


class Interaction:
    """How the tokens of question and answer match, once for each pair.

    cos(s, t) is the cosine of the states of token s of the question and t of the answer in a layer; a token's best is
    its highest. Nine numbers a layer: mean, spread, least and highest of the answer's bests and of the question's
    (its mean is ColBERT's MaxSim, arXiv 2004.12832), and the mean of all cosines. Of layer 4 also, by dimension, the
    means of u_t v_t and of |u_t − v_t|, where u_t is the unit state of a token of the answer and v_t that of its best
    match.
    """

    MATCH, ALIGNED = slice(0, 9 * len(READ)), slice(9 * len(READ), 9 * len(READ) + 2 * WIDTH)

    def __init__(self, embedder: Embedder):
        self._embedder = embedder
        self._known: dict[Pair, Any] = {}

    def of(self, pairs: Sequence[Pair]) -> Matrix:
        """(n, 9 · 3 + 2 · 384)."""
        new = sorted(set(pairs) - set(self._known), key=lambda pair: len(pair[0]) + len(pair[1]))
        for start in range(0, len(new), self._embedder.batch_size):
            batch = new[start : start + self._embedder.batch_size]
            self._known |= dict(zip(batch, self._matched(batch), strict=True))
        return np.stack([self._known[pair] for pair in pairs]).astype(np.float64)

    def _matched(self, pairs: Sequence[Pair]) -> Any:
        (asked, asks), (said, says) = (self._tokens(texts) for texts in zip(*pairs, strict=True))
        cosine = asked @ said.transpose(-1, -2)  # (layers, B, S, T)
        real = asks[:, :, None] & says[:, None]
        cosine = cosine.masked_fill(~real, -torch.inf)
        best, place = cosine.max(2)
        numbers = [*spread_of(best, says), *spread_of(cosine.max(3).values, asks)]
        numbers.append(torch.where(real, cosine, 0.0).sum((2, 3)) / real.sum((1, 2)))
        middle = READ.index(4)
        match = asked[middle].gather(1, place[middle][..., None].expand(-1, -1, WIDTH))
        means = [
            (both * says[..., None]).sum(1) / says.sum(1, keepdim=True)
            for both in (said[middle] * match, (said[middle] - match).abs())
        ]
        return torch.cat([*(number.T for number in numbers), *means], 1).cpu().numpy()

    def _tokens(self, texts: Sequence[str]) -> tuple[Any, Any]:
        """Unit states (layers, B, T, width), and which tokens are no padding."""
        tokenizer, network = self._embedder.encoder()
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=WINDOW, return_tensors="pt")
        batch = batch.to(network.device)
        with torch.no_grad(), torch.autocast(network.device.type, torch.bfloat16, enabled=fast_bf16()):
            hidden = network(**batch, output_hidden_states=True).hidden_states
        states = torch.stack([hidden[layer].float() for layer in READ])
        return torch.nn.functional.normalize(states, dim=-1), batch["attention_mask"].bool()


def spread_of(best: Any, real: Any) -> list[Any]:
    """Mean, standard deviation, least and highest of each row's real tokens, (layers, B) each."""
    count = real.sum(1)
    mean = torch.where(real, best, 0.0).sum(2) / count
    spread = (torch.where(real, best - mean[..., None], 0.0).square().sum(2) / count).sqrt()
    return [mean, spread, best.masked_fill(~real, torch.inf).amin(2), best.masked_fill(~real, -torch.inf).amax(2)]


class InteractionFeatures(LayerFeatures):
    """Some columns of `Interaction`, standardised."""

    def __init__(self, interaction: Interaction, columns: slice):
        self._interaction, self._columns = interaction, columns

    def _states(self, pairs: Sequence[Pair]) -> Matrix:
        return self._interaction.of(pairs)[:, self._columns]


class Weighted:
    """Several features side by side: each has its share of the squared distance."""

    name = "MiniLM"

    def __init__(self, parts: Sequence[Features], shares: Sequence[float]):
        self._parts, self._roots = parts, np.sqrt(shares)

    def fit(self, pairs: Sequence[Pair]) -> Matrix:
        """Of the parts."""
        return np.hstack([root * part.fit(pairs) for part, root in zip(self._parts, self._roots, strict=True)])

    def rows(self, pairs: Sequence[Pair]) -> Matrix:
        """(n, d), of squared length about 1."""
        return np.hstack([root * part.rows(pairs) for part, root in zip(self._parts, self._roots, strict=True)])


@dataclass(frozen=True)
class Form:
    """A form of the judge.

    Attributes:
        kind: The best of a kind is chosen.
        encoder: What is tuned beside the kernel ridge, if anything.
        settings: Of the tuning, by their names in `fine_tune.py`.
        match: Share of the numbers of matching in the kernel ridge's features.
        aligned: Share of the matched states.
    """

    kind: str = ""
    encoder: type[TunedEncoder] | None = None
    settings: tuple[int, float, float, int, int] = (4, 4e-4, 0.7, 16, 4)
    match: float = 0.0
    aligned: float = 0.0

    @contextmanager
    def put(self, interaction: Interaction) -> Iterator[None]:
        """The judge takes this form."""
        names = ("LAYERS", "RATE", "DECAY", "BATCH", "EPOCHS", "TunedEncoder")
        own = dict(zip(names, (*self.settings, self.encoder), strict=True))
        make = self._features(interaction) if self.match + self.aligned else LayerFeatures
        with patch.multiple(fine_tune, **own), patch.object(embedding, "LayerFeatures", make):
            yield

    def _features(self, interaction: Interaction) -> Callable[[Embedder], Features]:
        more = [(Interaction.MATCH, self.match), (Interaction.ALIGNED, self.aligned)]
        own = [(InteractionFeatures(interaction, columns), share) for columns, share in more if share]

        def make(embedder: Embedder) -> Features:
            parts: list[Features] = [LayerFeatures(embedder), *(part for part, _ in own)]
            return Weighted(parts, [1 - self.match - self.aligned, *(share for _, share in own)])

        return make


def tuned_by(contrast: Callable[[Any, Any], Any], *, by_category: bool = True) -> type[Contrastive]:
    return type("Tuned", (Contrastive,), {"contrast": staticmethod(contrast), "by_category": by_category})


CHOSEN, FLAT = (4, 4e-4, 0.7, 16, 4), (6, 1e-4, 1.0, 16, 4)
"""Layers, rate, its decay, batch and epochs: the judge's, and SetFit's way with a rate that was good for tuning."""
WIDE, WIDE_FLAT = (4, 4e-4, 0.7, 64, 8), (6, 1e-4, 1.0, 64, 8)
"""The supervised contrast wants many others in a batch."""
FORMS = {
    "kernel ridge": Form(),
    "tuned": Form(encoder=TunedEncoder),
    "cosine pairs": Form("pairs", tuned_by(cosine_pairs), CHOSEN),
    "cosine pairs, six layers": Form("pairs", tuned_by(cosine_pairs), FLAT),
    "cosine pairs, normal or not": Form("pairs", tuned_by(cosine_pairs, by_category=False), CHOSEN),
    "supervised contrast": Form("contrast", tuned_by(supervised_contrast), WIDE),
    "supervised contrast, six layers": Form("contrast", tuned_by(supervised_contrast), WIDE_FLAT),
    "supervised contrast, normal or not": Form("contrast", tuned_by(supervised_contrast, by_category=False), WIDE),
    "tuned with supervised contrast": Form("both", Both, CHOSEN),
    "late interaction, match .05": Form("late", match=0.05),
    "late interaction, match .2": Form("late", match=0.2),
    "late interaction, aligned .2": Form("late", aligned=0.2),
    "late interaction, aligned .4": Form("late", aligned=0.4),
    "late interaction, match .1, aligned .2": Form("late", match=0.1, aligned=0.2),
}


def measured(probabilities: Matrix, labels: Any) -> dict[str, float]:
    scores = 1 - probabilities[:, 0]
    return {
        "auroc": auroc(scores, labels),
        "average_precision": float(average_precision_score(labels, scores)),
        "calibration_error": calibration_error(scores, labels),
        "log_loss": float(log_losses(probabilities, labels).mean()),
    }


def pairs_of(rows: Sequence[Dialogue]) -> list[Pair]:
    return [(row.last_turn.question, row.last_turn.answer) for row in rows]


def outer(rows: Sequence[Dialogue]) -> list[Any]:
    with patch.object(head, "FOLDS", OUTER):
        return make_folds(truth(rows).tolist(), [row.last_turn.question for row in rows], 0)


class Bench:
    """Measures forms of the judge.

    Args:
        embedder: MiniLM, on the device.
        data: The folder of data sets.
        labels: At most so many labelled dialogues; None is all of a fold, and 2000 of a draw.
    """

    def __init__(self, embedder: Embedder, data: Path, labels: int | None):
        self._embedder, self._data, self._labels = embedder, data, labels
        self._interaction = Interaction(embedder)
        self._judges: dict[Any, EmbeddingJudge] = {}

    def even(self, name: str, method: str) -> tuple[int, dict[str, dict[str, float]]]:
        """Labels of a fold, and the mean figures over the folds of what one tuning gives."""
        rows = [row for row in SETS[name](self._data) if prompt_hash(row) % 2 == 0]
        form, found = FORMS[method], dict[str, list[dict[str, float]]]()
        with form.put(self._interaction):
            for number, (train, test) in enumerate(outer(rows)):
                known, asked = [rows[n] for n in train][: self._labels], [rows[n] for n in test]
                key = name, number, form.match, form.aligned
                if key not in self._judges:
                    self._judges[key] = self._fit(known, 0)
                for own, probabilities in self._fold(method, self._judges[key], known, asked):
                    found.setdefault(own, []).append(measured(probabilities, truth(asked)))
        means = {
            own: {key: float(np.mean([fold[key] for fold in folds])) for key in folds[0]}
            for own, folds in found.items()
        }
        return len(known), means

    def _fold(
        self, method: str, judge: EmbeddingJudge, known: Sequence[Dialogue], asked: Sequence[Dialogue]
    ) -> Iterator[tuple[str, Matrix]]:
        """What is thought of `asked`. What is tuned is calibrated on them, which flatters all alike."""
        ridge, pairs = judge._probabilities([row.last_turn for row in asked]), pairs_of(asked)
        encoder = FORMS[method].encoder
        if encoder is None:
            yield method, ridge
            return
        examples = [*without_rare(known), *everyday()]
        targets = np.array([judge.categories.index(row.category or NORMAL) for row in examples])
        tuned = encoder.fit(self._embedder, pairs_of(examples), targets, len(judge.categories))
        for own in methods_of(method):
            if isinstance(tuned, Contrastive):
                tuned.put(head_of(own))
            scores = tuned.scores(pairs)
            alone = softmax(scores / calibrate(scores, truth(asked)))
            yield own, alone
            mean = _mean_log(ridge, alone)
            yield f"{own} + kernel ridge", softmax(mean / calibrate(mean, truth(asked)))

    def odd(self, name: str, method: str, draw: int) -> tuple[int, dict[str, dict[str, float]]]:
        """Labels, and the figures of a method on a draw's test dialogues."""
        train, test = divide(SETS[name](self._data), draw)
        known, turns, form = train[: self._labels or LABELS], [row.last_turn for row in test], form_of(method)
        with form.put(self._interaction):
            judge = self._fit(known, draw, tune=form.encoder is not None)
            last = measured(judge._probabilities(turns), truth(test))
            seen = np.array([opinion.score for opinion in judge.held_out])
            last["expected_auroc"] = auroc(seen, truth(judge.labelled))
            if (second := judge._second) is None:
                return len(known), {method: last}
            alone = measured(softmax(second.encoder.scores(pairs_of(test)) / second.own), truth(test))
        tuned = f"{method}, mean of the folds' weights"
        return len(known), {tuned: alone, f"{tuned} + kernel ridge": last}

    def _fit(self, rows: Sequence[Dialogue], seed: int, *, tune: bool = False) -> EmbeddingJudge:
        return EmbeddingJudge.fit(without_rare(rows), self._embedder, everyday(), seed, fine_tune=tune)


def methods_of(name: str) -> list[str]:
    """A form's methods: one for each head, where a head is to be chosen."""
    encoder = FORMS[name].encoder
    return [f"{name}: {own}" for own in HEADS] if encoder and issubclass(encoder, Contrastive) else [name]


def head_of(method: str) -> str:
    return method.rpartition(": ")[2]


def form_of(method: str) -> Form:
    """The form of a method, with its head."""
    form = FORMS[method.rpartition(": ")[0] or method]
    if ": " not in method:
        return form
    assert form.encoder is not None
    return replace(form, encoder=type("Tuned", (form.encoder,), {"head": head_of(method)}))


def best(kind: str, rows: Sequence[dict[str, Any]]) -> str | None:
    """The method of a kind with the highest mean AUROC, averaged with the kernel ridge, of those on all sets."""
    found: list[tuple[float, str]] = []
    for name, form in FORMS.items():
        for method in methods_of(name) if form.kind == kind else ():
            scored = f"{method} + kernel ridge" if form.encoder else method
            own = {r["set"]: float(r["auroc"]) for r in rows if (r["dialogues"], r["method"]) == (EVEN, scored)}
            if set(own) >= set(USUAL):
                found.append((float(np.mean([own[one] for one in USUAL])), method))
    return max(found)[1] if found else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of public data sets")
    parser.add_argument("--parts", nargs="*", choices=["even", "odd"], default=["even", "odd"])
    parser.add_argument("--sets", nargs="*", choices=USUAL, default=USUAL)
    parser.add_argument("--forms", nargs="*", choices=FORMS, default=list(FORMS), help="of the even half")
    every = [method for name in FORMS for method in methods_of(name)]
    kinds = {f"best {form.kind}": form.kind for form in FORMS.values() if form.kind}
    usual = ["kernel ridge", "tuned", *kinds]
    parser.add_argument("--methods", nargs="*", choices=[*every, *kinds], default=usual, help="of the odd half")
    parser.add_argument("--chosen-by", type=Path, nargs="*", help="files of rows of the even half, if not --csv")
    parser.add_argument("--draws", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--labels", type=int, help="at most so many, for a trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "contrastive.csv")
    given = parser.parse_args()
    rows = read_rows(given.csv)
    embedder = Remembering(None)
    embedder.encoder()[1].to(given.device)
    bench = Bench(embedder, given.data, given.labels)
    threads = torch.get_num_threads()
    cores = "one CPU core" if threads == 1 else f"{threads} CPU cores"
    card = cores if given.device == "cpu" else torch.cuda.get_device_name(given.device)

    def measure(dialogues: str, name: str, method: str, run: Callable[[], tuple[int, dict[str, Any]]]) -> None:
        there = [row["method"] for row in rows if (row["dialogues"], row["set"]) == (dialogues, name)]
        if any(one == method or one.startswith((f"{method}: ", f"{method}, mean", f"{method} +")) for one in there):
            return
        start = time.perf_counter()
        labels, found = run()
        form = form_of(method)
        layers, rate, decay = form.settings[:3] if form.encoder else ("", "", "")
        for own, figures in found.items():
            same = {"dialogues": dialogues, "set": name, "labels": labels, "method": own}
            same |= {"layers": layers, "rate": rate, "decay": decay}
            rounded = {key: round(figures[key], 4) if key in figures else "" for key in FIGURES}
            rows.append(same | rounded | {"card": card})
            print(rows[-1], flush=True)
        write_rows(given.csv, rows)
        print(f"{dialogues}, {name}, {method}: {time.perf_counter() - start:.0f} s", flush=True)

    if "even" in given.parts:
        for name in given.sets:
            for form in given.forms:
                measure(EVEN, name, form, partial(bench.even, name, form))
    if "odd" in given.parts:
        known = [row for file in given.chosen_by for row in read_rows(file)] if given.chosen_by else rows
        methods = [best(kinds[one], known) if one in kinds else one for one in given.methods]
        if None in methods:
            missing = given.methods[methods.index(None)]
            parser.error(f"--methods {missing!r}: nothing of it is measured on all sets; begin with --parts even")
        for draw in given.draws:
            for name in given.sets:
                for method in methods:
                    measure(f"odd: draw {draw}", name, method, partial(bench.odd, name, method, draw))


if __name__ == "__main__":
    main()
