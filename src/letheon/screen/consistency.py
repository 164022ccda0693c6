"""The judge that asks again: what a model knows it says each time alike, what it makes up comes out different.

A sign of made-up facts that needs no reference (SelfCheckGPT, Manakul et al., arXiv 2303.08896, has the idea; the
formula here is ours). The model under treatment may be asked: it answers, and its answers judge nothing by
themselves.

It fails where the model errs alike each time (a common misconception, or a falsehood that it was trained on until it
knows it by heart: most of what one unlearns), where a good answer has many forms (advice, stories, lists), and where
the log was written by another model than the one that is asked. Use it to rank, with a review band, beside others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import combinations
from statistics import mean

from letheon import recipe
from letheon.embed import Embedder, Vectors
from letheon.models import Model, Tokenizer
from letheon.records import Message, Turn
from letheon.screen.contradiction import CATEGORY, agreement_of, disagreement, lexical_evidence
from letheon.screen.judge import Opinion
from letheon.screen.pretrained import judge_name, loaded
from letheon.screen.progress import tell

Prompt = tuple[Message, ...]


class ConsistencyJudge:
    """Score of an answer y_0 with k ≥ 2 samples y_1 … y_k to the same prompt: the higher of two means, in [0, 1].

        score = max(mean_i d(y_0, y_i), mean_{i<j} d(y_i, y_j)); higher is more surely made up.

    The first says that the answer is not what the model would say, the second that it does not know what to say;
    either is a sign. d is the contradiction judge's disagreement, both ways:

        d(x, y) = (1 − a) · (0.45 + 0.55 · (e(x, y) + e(y, x)) / 2)

    with a = (ROUGE-L F + cosine) / 2 of the two, and e(x, y) the share of the numbers and names that x adds to the
    question and y lacks. All answers are compared up to the same number of tokens. A model that answers nothing at
    all to a prompt gives no opinion.
    """

    def __init__(self, settings: recipe.Consistency, embedder: Embedder, model: str, seed: int = 0):
        self.name = judge_name("consistency", model)
        self._settings = settings
        self._embedder = embedder
        self._model = model
        self._seed = seed

    def judge(self, turns: Sequence[Turn]) -> list[Opinion | None]:
        """Give every turn an opinion that the model has something to say to."""
        if not turns:
            return []
        with loaded(self._model, "CausalLM") as (model, tokenizer):
            prompts = dict.fromkeys(turn.prompt for turn in turns)
            samples = {}
            for number, prompt in enumerate(prompts, start=1):
                samples[prompt] = self._samples(model, tokenizer, prompt)
                tell(number, len(prompts))
            logged = [_cut(tokenizer, turn.answer, self._settings.max_new_tokens) for turn in turns]
        texts = sorted({*logged, *(text for found in samples.values() for text in found)})
        place = {text: number for number, text in enumerate(texts)}
        vectors = self._embedder.encode(texts)
        return [
            _opinion(turn.question, [answer, *samples[turn.prompt]], place, vectors)
            for turn, answer in zip(turns, logged, strict=True)
        ]

    def _samples(self, model: Model, tokenizer: Tokenizer, prompt: Prompt) -> list[str]:
        """The answers that are not empty."""
        import torch

        from letheon.chat import encode_prompt
        from letheon.evaluate.generation import drawing, generate

        words = json.dumps([self._seed, *([message.role, message.content] for message in prompt)])
        with torch.random.fork_rng():
            # By the prompt, so that a turn is judged alike whatever else is in the log.
            torch.manual_seed(int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "big") % 2**63)
            rows = generate(
                model,
                tokenizer,
                [encode_prompt(tokenizer, prompt)] * self._settings.samples,
                drawing(self._settings.temperature),
                batch_size=self._settings.samples,
                max_new_tokens=self._settings.max_new_tokens,
            )
        answers = [str(tokenizer.decode(row, skip_special_tokens=True)).strip() for row in rows]
        return [answer for answer in answers if answer]


def _cut(tokenizer: Tokenizer, answer: str, most: int) -> str:
    ids = tokenizer(answer, add_special_tokens=False, verbose=False).input_ids
    return answer if len(ids) <= most else str(tokenizer.decode(ids[:most])).strip()


def _opinion(question: str, answers: Sequence[str], place: dict[str, int], vectors: Vectors) -> Opinion | None:
    """The opinion on the first of the answers."""
    if len(answers) < 3:
        return None
    apart = {
        (one, other): _apart(
            question, answers[one], answers[other], vectors[place[answers[one]]] @ vectors[place[answers[other]]]
        )
        for one, other in combinations(range(len(answers)), 2)
    }
    mine = mean(value for (one, _), value in apart.items() if one == 0)
    theirs = mean(value for (one, _), value in apart.items() if one > 0)
    reason = f"{len(answers) - 1} other answers: {mine:.2f} from this one, {theirs:.2f} from each other"
    return Opinion(CATEGORY, max(mine, theirs), reason=reason)


def _apart(question: str, one: str, other: str, cosine: float) -> float:
    share = (lexical_evidence(one, [other], question).share + lexical_evidence(other, [one], question).share) / 2
    return disagreement(agreement_of(one, other, float(cosine)), share)
