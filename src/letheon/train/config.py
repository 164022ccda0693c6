"""Settings of an unlearning run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from transformers import TrainingArguments

from letheon.models import Model, fast_bf16

AdapterInit = Literal["contrast", "random", "fila"]
TokenChoice = Literal["all", "without-first", "informative"]


@dataclass
class UnlearnConfig(TrainingArguments):  # type: ignore[misc]
    """`transformers.TrainingArguments` with the settings of unlearning; only defaults that differ are repeated.

    A batch of B holds B dialogues to forget, an expected answer for each, and B · `normal_per_forget` normal ones.
    """

    output_dir: str | None = field(default="letheon-output", metadata={"help": "Where checkpoints are written."})
    learning_rate: float | None = field(
        default=None,
        metadata={"help": "None: by tuning and size; see default_learning_rate."},
    )
    per_device_train_batch_size: int = field(
        default=2, metadata={"help": "Dialogues to forget in a step: many small steps forget at less cost than few."}
    )
    num_train_epochs: float = field(default=20, metadata={"help": "Upper limit; the stop rule ends it earlier."})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=4, metadata={"help": "Steps of linear warm-up."})
    logging_steps: float = field(default=1, metadata={"help": "Log the parts of the loss every so many steps."})
    save_strategy: str = field(default="no", metadata={"help": "Checkpoints to resume from; no, steps or epoch."})
    report_to: None | str | list[str] = field(default="none", metadata={"help": "No tracker unless asked."})
    remove_unused_columns: bool | None = field(default=False, metadata={"help": "Dialogues are not model inputs."})
    optim: str = field(default="adamw_torch_fused", metadata={"help": "Optimizer."})

    bf16: bool | None = field(
        default=None, metadata={"help": "Autocast to bfloat16 over float32 masters; None: where hardware has it."}
    )

    normal_per_forget: int = field(default=2, metadata={"help": "Normal dialogues per dialogue to forget."})
    max_length: int | None = field(default=None, metadata={"help": "Longest sequence; None: the model's context."})
    adapter_init: AdapterInit = field(
        default="contrast",
        metadata={
            "help": "contrast: new LoRA adapters look where forget inputs differ from normal ones; random; fila: "
            "they start as the part of the weights that old answers lean on (their rank is doubled)."
        },
    )
    directions: int = field(
        default=4,
        metadata={"help": "Full tuning: input directions in which a layer's weights move; 0: all weights, freely."},
    )
    damping: float | None = field(
        default=0.1,
        metadata={
            "help": "contrast, directions: what normal answers are sensitive to is taken out of gradients; larger "
            "takes out less, None nothing."
        },
    )
    token_choice: TokenChoice = field(
        default="all", metadata={"help": "Which answer tokens the negative loss counts."}
    )
    sam_rho: float = field(
        default=0.0,
        metadata={"help": "SAM: the negative gradient is taken so far uphill of the weights; 0: where they are."},
    )
    robust: bool = field(
        default=False,
        metadata={"help": "Train against other prompts, begun answers, relearning and rounding to 4 bits, too."},
    )
    select: int | None = field(
        default=None,
        metadata={
            "help": "Full tuning: MLP weights move along one gradient of the old answers, its so many principal "
            "components shrunk (RepSelect)."
        },
    )
    elicit: float = field(
        default=0.01,
        metadata={"help": "select: rate at which an adapter first learns the old answers, for that gradient; 0: no."},
    )
    negation: float | None = field(
        default=None,
        metadata={"help": "After training, go this multiple of the change the other way (task-vector negation)."},
    )
    balance: bool = field(default=True, metadata={"help": "Scale the negative loss to the normal gradient norm."})
    cache_dir: str | None = field(
        default=None, metadata={"help": "Where what the model says before is held meanwhile; None: in output_dir."}
    )
    keep_cache: bool = field(
        default=False,
        metadata={"help": "Leave it there for the next run on the same model; it tells of what is to be forgotten."},
    )
    top_k: int = field(default=64, metadata={"help": "Reference tokens cached per position."})
    dual_rate: float = field(default=5.0, metadata={"help": "Step of the normal weight; 0 keeps it fixed."})
    normal_floor: float | None = field(
        default=None, metadata={"help": "The normal weight never falls below this; None: below its start."}
    )
    normal_budget: float = field(default=1.1, metadata={"help": "Allowed ratio of normal perplexity to before."})

    stop_rule: bool = field(default=True, metadata={"help": "Probe while training and stop when it is enough."})
    stop_every: int = field(default=6, metadata={"help": "Probe every so many steps."})
    stop_probability: float = field(default=0.1, metadata={"help": "Probe probability that counts as forgotten."})
    stop_extraction: float = field(
        default=0.1, metadata={"help": "Probe extraction strength that counts as forgotten."}
    )
    stop_truth: float = field(
        default=0.8, metadata={"help": "Probe truth probability from which expected answers stand for old ones."}
    )
    stop_normal_budget: float = field(
        default=1.12, metadata={"help": "Guard on the normal probe's perplexity ratio."}
    )
    stop_kl_budget: float = field(default=0.12, metadata={"help": "Guard on the normal probe's KL."})
    stop_normal_kept: float = field(
        default=0.9, metadata={"help": "Guard on the probability that the log's own normal dialogues keep."}
    )
    stop_patience: int = field(
        default=10, metadata={"help": "Give up after so many times stop_every steps without progress."}
    )
    probe_size: int = field(default=16, metadata={"help": "Dialogues in a quick probe; confirmed on all of them."})

    def __post_init__(self) -> None:
        least = {
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 1,
            "normal_per_forget": 0,
            "max_length": 2,
            "directions": 0,
            "top_k": 1,
            "stop_every": 1,
            "stop_patience": 1,
            "probe_size": 1,
            "learning_rate": 0,
        }
        low = {name: value for name in least if (value := getattr(self, name)) is not None and value < least[name]}
        faults = [f"{name}={value}: at least {least[name]}" for name, value in low.items()]
        if self.max_steps == 0 or self.max_steps < -1:
            faults.append(f"max_steps={self.max_steps}: at least 1, or -1 for no limit")
        for name in ("stop_probability", "stop_extraction", "stop_kl_budget"):
            if getattr(self, name) <= 0:
                faults.append(f"{name}={getattr(self, name)}: above 0")
        if self.stop_normal_budget <= 1:
            faults.append(f"stop_normal_budget={self.stop_normal_budget}: above 1, where nothing is lost")
        for name in ("stop_truth", "stop_normal_kept"):
            if not 0 <= getattr(self, name) < 1:
                faults.append(f"{name}={getattr(self, name)}: at least 0, and below 1")
        for name, choices in (("adapter_init", get_args(AdapterInit)), ("token_choice", get_args(TokenChoice))):
            if (value := getattr(self, name)) not in choices:
                faults.append(f"{name}={value!r}: one of {', '.join(choices)}")
        if faults:
            raise ValueError("; ".join(faults))
        if self.damping is not None and self.damping <= 0:
            raise ValueError(f"damping={self.damping}: it must be above 0, or None to take nothing out")
        if self.sam_rho < 0:
            raise ValueError(f"sam_rho={self.sam_rho}: it must be above 0, or 0 for no SAM")
        if self.robust and self.sam_rho:
            raise ValueError(
                f"robust=True, sam_rho={self.sam_rho}: each says where the negative gradient is taken; use one"
            )
        if self.robust and self.token_choice == "informative":
            raise ValueError(
                "robust=True, token_choice='informative': which tokens are informative is known of an item as it is, "
                "not of its other ways; take another token_choice"
            )
        if self.select is not None and (self.select < 1 or self.elicit < 0):
            raise ValueError(f"select={self.select}, elicit={self.elicit}: at least 1, and at least 0")
        if self.select is not None and (self.weight_decay or self.sam_rho or self.robust):
            raise ValueError(
                f"select={self.select}: the steps are fixed before the first one, so weight_decay="
                f"{self.weight_decay}, sam_rho={self.sam_rho}, robust={self.robust} could do nothing; leave them out"
            )
        if self.negation is not None and (self.negation <= 0 or self.stop_rule):
            raise ValueError(
                f"negation={self.negation}, stop_rule={self.stop_rule}: it must be above 0, and goes with "
                "stop_rule=False: what is negated in the end has not forgotten before"
            )
        if self.bf16 is None:
            self.bf16 = not self.fp16 and fast_bf16()
        if not torch.accelerator.is_available():
            # Unless told that it is the CPU that is meant, transformers refuses bf16 here.
            self.use_cpu = True
            # There is nothing to pin memory for, and torch warns.
            self.dataloader_pin_memory = False
        super().__post_init__()


def default_learning_rate(model: Model, *, contrast: bool) -> float:
    """Learning rate by kind of tuning and model size.

    Measured for 135M only; larger sizes are scaled as the literature scales them (see docs/3-unlearn.md).

    Args:
        model: The model, with the adapter if one is trained.
        contrast: Whether the adapter's A is pointed and fixed, or full tuning has directions: what is learned for a
            few directions takes larger steps.
    """
    adapter = hasattr(model, "peft_config")
    if adapter:
        # Both count what is packed into 4 bits as what it stands for.
        learning, parameters = model.get_nb_trainable_parameters()
        parameters -= learning
    else:
        parameters = model.num_parameters()
    if contrast:
        return 2e-2 if parameters < 5e8 else 4e-3
    if adapter:
        return 5e-4 if parameters < 5e8 else 1e-4
    if parameters < 5e8:
        return 3e-5
    return 2e-5 if parameters < 4e9 else 5e-6
