"""What θ₀ said, kept in two ways: its likeliest tokens, or the last hidden states that the head is run on again.

    python benchmarks/reference.py --run runs/bench/lora-0

Of a finished run, over the answers of its held-out normal dialogues: bytes a token; milliseconds of CPU a token to
make (what is done after the head), and to use in a step (the KL and its gradient with respect to the logits of θ);
and which share is seen of the divergence that the unlearned model has from θ₀. One thread; medians of rounds in which
the ways alternate.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from table import write_rows
from torch import Tensor

from letheon.chat import Encoded, encode_turn
from letheon.forward import answer_logits, batch_for
from letheon.head import head_apart
from letheon.material import split_of
from letheon.models import fast_bf16, load_model, load_tokenizer
from letheon.objective import top_k_kl
from letheon.run import Run


@torch.no_grad()
def answers(model: Any, sequences: list[Encoded], pad: int) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """The logits of answers, the states they come from, and the head between them."""
    batch = batch_for(model, sequences, pad)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_bf16()):
        with head_apart(model) as head:
            states = answer_logits(model, batch)[0]
        return head(states), states, head


def top(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As the reference cache keeps them."""
    logits = logits.float()
    found = logits.topk(k, dim=1)
    return found.indices.to(torch.int32), found.values - logits.logsumexp(dim=1, keepdim=True)


def full_kl(now: Tensor, before: Tensor) -> Tensor:
    """(N,) KL over all tokens."""
    old = before.float().log_softmax(dim=1)
    return (old.exp() * (old - now.float().log_softmax(dim=1))).sum(dim=1)


def milliseconds(work: Callable[[], Any]) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="a finished run folder")
    parser.add_argument("--tokens", type=int, default=256, help="answer tokens of a step")
    parser.add_argument("--top-k", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--csv", type=Path, default=Path(__file__).parent / "results" / "reference.csv")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    run = Run.open(given.run)
    tokenizer = load_tokenizer(run.recipe.model)
    turns = [d.last_turn for d in split_of(run).normal_held_out if d.label != "forget"]
    sequences = [encode_turn(tokenizer, turn) for turn in turns]
    before, after = (load_model(source).eval() for source in (run.recipe.model, str(run.model_folder)))
    old, states, head = answers(before, sequences, tokenizer.pad_token_id)
    now = answers(after, sequences, tokenizer.pad_token_id)[0]
    tokens = min(given.tokens, len(old))
    true = float(full_kl(now, old).mean())

    def again() -> Tensor:
        with torch.no_grad():
            return head(states[:tokens])

    def use(loss: Callable[[Tensor], Tensor]) -> None:
        leaf = now[:tokens].detach().requires_grad_()
        loss(leaf).mean().backward()  # type: ignore[no-untyped-call]

    ways: dict[str, tuple[float, Callable[[], Any], Callable[[Tensor], Tensor], float]] = {}
    for k in given.top_k:
        ids, values = top(old, k)
        seen = float(top_k_kl(now, ids.long(), values).mean()) / true
        ways[f"top-{k}"] = (
            8 * k + 4,
            partial(top, old[:tokens], k),
            partial(top_k_kl, top_ids=ids[:tokens].long(), top_log_probs=values[:tokens]),
            seen,
        )
    ways["states"] = (
        states.size(1) * states.element_size() + 4,
        lambda: states[:tokens].clone(),
        lambda leaf: full_kl(leaf, again()),
        1.0,
    )
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(given.rounds):
        for name, (_, make, loss, _) in ways.items():
            taken.setdefault((name, "make"), []).append(milliseconds(make))
            taken.setdefault((name, "use"), []).append(milliseconds(partial(use, loss)))
    rows = [
        {
            "kept": name,
            "bytes_a_token": size,
            "ms_to_make": round(statistics.median(taken[name, "make"]) / tokens, 3),
            "ms_to_use": round(statistics.median(taken[name, "use"]) / tokens, 3),
            "share_of_kl_seen": round(seen, 4),
        }
        for name, (size, _, _, seen) in ways.items()
    ]
    print(*rows, sep="\n")
    write_rows(given.csv, rows)


if __name__ == "__main__":
    main()
