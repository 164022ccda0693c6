"""What a trainer is asked and cannot do: refused before anything is asked of the model, or moved."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from typing import Any

from letheon.errors import InputError
from letheon.models import Model
from letheon.objective import Objective
from letheon.train.base import BaseSaid
from letheon.train.config import UnlearnConfig
from letheon.train.dataset import Forget
from letheon.train.directional import check_optimizer
from letheon.train.fila import check_fila
from letheon.train.negation import check_negation
from letheon.train.scope import check_read
from letheon.train.select import check_select


def check_asked(
    args: UnlearnConfig, objective: Objective, *, forget: Sized | None, normal: Sized | None, base: BaseSaid | None
) -> None:
    """Check that there is something to do, and that settings, objective and data go together: all faults at once.

    Args:
        args: Settings.
        objective: The loss.
        forget: What to forget; None for ordinary fine-tuning.
        normal: What to keep.
        base: What the base said.

    Raises:
        InputError: They do not.
    """
    faults = []
    if not forget and not normal:
        faults.append("nothing to train on: forget_dataset and normal_dataset are both empty")
    elif forget is not None and not forget:
        faults.append("forget_dataset is empty: there is no dialogue to forget")
    if args.dataloader_persistent_workers:
        faults.append(
            "dataloader_persistent_workers=True: such workers would not see what is scored at the start of an "
            "epoch; leave it off"
        )
    if forget and args.load_best_model_at_end:
        faults.append(
            "load_best_model_at_end=True: the stop rule settles which state is kept, and a loss on eval_dataset "
            "would take another; leave it off"
        )
    if (args.sam_rho or args.robust) and args.world_size > 1:
        faults.append(
            f"sam_rho={args.sam_rho}, robust={args.robust}: weights are moved to and fro in one process; leave "
            "both out to use several"
        )
    if "base_log_prob" in objective.needs("negative"):
        if base is None:
            faults.append(f"{type(objective.negative).__name__} needs base: what the model said before")
        if args.robust:
            faults.append("robust=True: the base knows the old answers as they stand; use another distance")
    if faults:
        raise InputError(faults)


def check_base(base: BaseSaid, forget: Sequence[Forget]) -> None:
    """Check that the base was asked about what is to be forgotten.

    Args:
        base: What it said.
        forget: What is to be forgotten.

    Raises:
        InputError: It was asked about something else.
    """
    said, asked = [len(one) for one in base.log_probs], [sum(item.old.answer_mask) for item in forget]
    if said != asked:
        raise InputError(
            f"base was asked about {len(said)} other answers than the {len(asked)} of forget_dataset: give ask_base "
            "the same turns in the same order, with the tokenizer and the max_length of this training"
        )


def check_model(
    model: Model,
    args: UnlearnConfig,
    objective: Objective,
    *,
    adapter_init: str | None,
    directed: bool,
    forget: Sequence[Any],
    normal: Sequence[Any],
) -> None:
    """Check that it can be done with a model.

    Args:
        model: With its adapter, if it has one.
        args: Settings.
        objective: The loss.
        adapter_init: How the adapter starts; None where none is new.
        directed: Whether weights are to move along directions, with the optimizer for that.
        forget: What to forget, as sequences.
        normal: What to keep, as sequences.

    Raises:
        InputError: It cannot.
    """
    if adapter_init == "fila":
        check_fila(model, forget, normal)
    if args.select is not None:
        check_select(model, objective)
    if args.negation is not None:
        check_negation(model)
    if objective.layer is not None:
        check_read(model, objective.layer, devices=args.n_gpu, alone=not objective.reads_logits)
    if directed and not hasattr(model, "peft_config"):
        check_optimizer(args)
