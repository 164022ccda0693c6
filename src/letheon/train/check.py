"""What a trainer is asked and cannot do: refused before anything is tokenised or moved, all of it at once."""

from __future__ import annotations

from collections.abc import Sized

from letheon.errors import InputError
from letheon.objective import Objective
from letheon.train.base import BaseSaid
from letheon.train.config import UnlearnConfig


def check_asked(
    args: UnlearnConfig, objective: Objective, *, forget: Sized | None, normal: Sized | None, base: BaseSaid | None
) -> None:
    """Check that there is something to do, and that settings, objective and data go together.

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
