"""UnlearnTrainer: a transformers.Trainer whose loss is the objective and which knows when to stop."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, set_seed
from transformers.trainer_utils import TrainOutput

from letheon.chat import Encoded, check_tokenizer
from letheon.errors import InputError
from letheon.expected import Target, targets_of
from letheon.forward import answer_states, can_pack, chunked_logits
from letheon.models import Model, Tokenizer, context_length
from letheon.objective import PARTS, Answers, ChunkedLogits, Counts, CrossEntropy, Group, Objective
from letheon.records import Dialogue, Stop, Turn, write_text
from letheon.train.base import BaseSaid
from letheon.train.check import check_asked, check_base, check_model
from letheon.train.config import UnlearnConfig, default_learning_rate
from letheon.train.dataset import ByLength, Collator, UnlearnDataset
from letheon.train.fila import doubled, hold, without_gradient
from letheon.train.negation import negate
from letheon.train.parts import StepSums, answers_by_part, reads_tops
from letheon.train.prepare import Prepared, contrasted, prepare
from letheon.train.reader import Reader
from letheon.train.reference import open_cache
from letheon.train.relearning import Relearning
from letheon.train.robust import with_wider_margin
from letheon.train.rows import target_of, turn_of
from letheon.train.scale_back import Line
from letheon.train.scope import what_learns
from letheon.train.select import RATE
from letheon.train.sharpness import gradient_of, uphill
from letheon.train.stop import Probe
from letheon.train.watch import Watch
from letheon.train.weights import Weights

STATE_FILE = "letheon_state.json"


class UnlearnTrainer(Trainer):  # type: ignore[misc]
    """Makes a model forget some dialogues and keep others.

    Args:
        model: A causal language model in float32 (full tuning) or any precision (LoRA); or a PeftModel.
        args: Settings.
        forget_dataset: What to forget: dialogues (`Dialogue`, or rows of its format such as a `datasets.Dataset`,
            whose last assistant turn is meant), or `Target`s that also say what to answer instead. Dialogues
            without `expected` answers get safe replies of their category. None: ordinary fine-tuning on
            `normal_dataset`.
        normal_dataset: Dialogues whose every assistant turn is to be kept; or what `letheon.rehearse` returns.
        probe_dataset: Dialogues with an undesired last answer that training does not see (held-out or paraphrased),
            for the stop rule. None: the forget dialogues themselves.
        normal_probe_dataset: As `normal_dataset`, but not seen by training, for the guards, which hold dialogues and
            what was rehearsed apart. None: 16 normal ones.
        objective: The loss. None: the default one (docs/3-unlearn.md).
        base: What the model said before it learnt what is to be forgotten (`letheon.train.base.ask_base`). The
            stop rule's limits are then its level and a little above, and a distance may go back to it.
        peft_config: A `peft.LoraConfig`, or another adapter's; None trains all weights.
        processing_class: The model's tokenizer; it must have a chat template.
        **kwargs: As for `transformers.Trainer`: callbacks, optimizers, eval_dataset, …

    Raises:
        InputError: A dialogue does not fit, there is nothing to forget or to keep, or no chat template.
    """

    # The loss is divided by the counts of the whole accumulated step; see `compute_loss`.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Model,
        args: UnlearnConfig | None = None,
        forget_dataset: Sequence[Dialogue | Target | Mapping[str, Any]] | None = None,
        normal_dataset: Sequence[Dialogue | Encoded | Mapping[str, Any]] | None = None,
        probe_dataset: Sequence[Dialogue | Turn | Mapping[str, Any]] | None = None,
        normal_probe_dataset: Sequence[Dialogue | Encoded | Mapping[str, Any]] | None = None,
        objective: Objective | None = None,
        base: BaseSaid | None = None,
        peft_config: Any = None,
        processing_class: Tokenizer = None,
        eval_dataset: Sequence[Dialogue | Mapping[str, Any]] | None = None,
        **kwargs: Any,
    ):
        # A copy: the learning rate chosen below is this model's, not that of the next one with these settings.
        args = copy.copy(args) if args is not None else UnlearnConfig()
        self._tokenizer = _able_to_pad(processing_class)
        fine_tuning = forget_dataset is None
        self.objective = objective or (Objective(None, None, CrossEntropy()) if fine_tuning else Objective())
        check_asked(args, self.objective, forget=forget_dataset, normal=normal_dataset, base=base)

        targets = targets_of([target_of(row, n) for n, row in enumerate(forget_dataset or ())])
        self._turns = [target.turn for target in targets]
        longest = args.max_length or context_length(model)
        self._reader = Reader(processing_class, longest, self.objective, robust=args.robust, seed=args.seed)
        forget = self._reader.forget(targets)
        self._base = base
        if base is not None:
            check_base(base, forget)
        normal = self._reader.kept(normal_dataset, forget)
        probe = [turn_of(row, n) for n, row in enumerate(probe_dataset or ())]
        watched = self._reader.watched(targets, probe, normal_probe_dataset, normal)

        # None where no adapter is new.
        self._adapter_init = args.adapter_init if peft_config is not None else None
        model = _able_to_learn(model, args, peft_config)
        contrast = bool(forget and normal and contrasted(model, args, self._adapter_init))
        check_model(
            model,
            args,
            self.objective,
            adapter_init=self._adapter_init,
            forget=forget,
            normal=normal,
            directed=contrast and "optimizers" not in kwargs,
        )
        if args.learning_rate is None:
            args.learning_rate = RATE if args.select is not None else default_learning_rate(model, contrast=contrast)

        # What no term reads is not run.
        beside = args.normal_per_forget if self.objective.normal is not None else 0
        pushed = self.objective.negative is not None
        dataset = UnlearnDataset(
            forget, normal, normal_per_forget=beside, seed=args.seed, pushed=pushed, rejecting=self.objective.rejects
        )
        self._prepared = Prepared()
        self._collator = self._collates(twice=bool(args.sam_rho or args.robust))
        super().__init__(
            model=model,
            args=args,
            data_collator=self._collator,
            train_dataset=dataset,
            eval_dataset=None if eval_dataset is None else self._evaluated(eval_dataset),
            processing_class=processing_class,
            **kwargs,
        )
        # By this, transformers before 5.19 tells what `loss_is_scaled_for_ga` says.
        self.model_accepts_loss_kwargs = True
        # Several devices under one process split a batch by its rows.
        self._collator.packed = self.args.n_gpu <= 1 and can_pack(self.model)
        self._weights = Weights(self.objective, targets, args)
        # Each process writes for itself.
        own = f"process-{self.args.process_index}" if self.args.world_size > 1 else ""
        self._folder = Path(self.args.output_dir) / own
        # Where the negative gradient of the micro-batch is still to be taken, and whether the model is there.
        self._elsewhere: AbstractContextManager[None] | None = None
        self._is_elsewhere = False
        self._relearning: Relearning | None = None
        self._line: Line | None = None
        self._watch = Watch(
            self.args,
            base,
            watched,
            tokenizer=processing_class,
            on=bool(forget) and args.stop_rule,
            folder=self._folder,
            log=self._log_probe,
            autocast=self.accelerator.autocast,
        )
        self._step = StepSums()
        # Summed loss and number of the tokens that an evaluation has seen.
        self._evaluation = torch.zeros(2, device=self.args.device)
        self.add_callback(_Adapt(self))

    @property
    def stop(self) -> Stop | None:
        """Why training ended; None before it has, and for ordinary fine-tuning."""
        return self._watch.stop

    @property
    def probes(self) -> list[Probe]:
        """All probes so far."""
        return self._watch.probes

    # -- data --------------------------------------------------------------------------------------------------------

    def _collates(self, *, twice: bool) -> Collator:
        """The collator; `twice` where the negative term is taken once more elsewhere, with what it reads."""
        tops = frozenset(part for part in PARTS if reads_tops(self.objective, part))
        negative: frozenset[Group] = frozenset({"negative", "positive"} if self.objective.prefers else {"negative"})
        return Collator(
            self._tokenizer.pad_token_id,
            self._prepared.reference,
            self._prepared.states,
            tops,
            again=negative if twice else frozenset(),
        )

    def _evaluated(self, rows: Sequence[Dialogue | Mapping[str, Any]]) -> UnlearnDataset:
        return UnlearnDataset([], self._reader.normal(rows), cached=False)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """The loader of `eval_dataset`, which may be dialogues; None takes the trainer's own."""
        if eval_dataset is not None and not isinstance(eval_dataset, str | UnlearnDataset):
            eval_dataset = self._evaluated(eval_dataset)
        loader: DataLoader[Any] = super().get_eval_dataloader(eval_dataset)
        return loader

    def _get_train_sampler(self, train_dataset: UnlearnDataset | None = None) -> Any:
        """As the Trainer's, which cannot read lengths off our items; of a padded batch less is padding then."""
        dataset, strategy = train_dataset or self.train_dataset, self.args.train_sampling_strategy
        if strategy == "group_by_length" or (strategy == "random" and not self._collator.packed):
            return ByLength(dataset, self.args.train_batch_size * self.args.gradient_accumulation_steps)
        return super()._get_train_sampler(dataset)

    # -- loss --------------------------------------------------------------------------------------------------------

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """(3, 2) counted tokens and sequences of each part over the micro-batches of one step.

        Averaged over processes, as their gradients will be.
        """
        counts = torch.zeros(len(PARTS), 2)
        for batch in batch_samples:
            part_of_token = batch["part"][batch["row"]]
            for number in range(len(PARTS)):
                counts[number, 0] += int(batch["counts"][part_of_token == number].sum())
                counts[number, 1] += int((batch["part"] == number).sum())
        reduced: Tensor = self.accelerator.reduce(counts.to(device), reduction="mean")
        return reduced

    def compute_loss(
        self,
        model: Model,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """The weighted sum of the parts; in evaluation, the mean cross-entropy of the answers.

        Args:
            model: The (wrapped) model.
            inputs: A batch of the collator.
            return_outputs: Also return the parts.
            num_items_in_batch: (3, 2) counts of the step; None takes those of the batch.
        """
        if not model.training:
            # Data of an evaluation pass once.
            logits, targets, row = chunked_logits(model, inputs)
            all_count = torch.ones_like(targets, dtype=torch.bool)
            losses = -Answers(logits, targets, row, all_count).log_probs()
            self._evaluation += torch.stack([losses.sum(), losses.new_tensor(len(losses))]).detach()
            loss = losses.mean()
            return (loss, {"loss": loss}) if return_outputs else loss
        batch = self._answers(model, inputs)
        counts = None
        if num_items_in_batch is not None:
            counts = {part: Counts(*num_items_in_batch[n].tolist()) for n, part in enumerate(PARTS)}
        parts = self.objective(batch, counts)
        weights = dict(self._weights.of)
        if self._watch.holding:
            weights["negative"] = 0.0
        if self._is_elsewhere:
            # Answers of this part may be there for the negative term to read.
            weights["positive"] = 0.0
        else:
            self._step.add(parts, batch, balance=self._weights.balances)
            if "negative" in parts and weights["negative"]:
                self._elsewhere = self._leads(parts["negative"])
                weights["negative"] *= self._elsewhere is None
        loss = self.objective.total(parts, weights, self._weights.balance.scale)
        return (loss, parts) if return_outputs else loss

    def training_step(self, model: Model, inputs: dict[str, Any], num_items_in_batch: Tensor | None = None) -> Tensor:
        """As the Trainer's; with SAM or in robust mode, the negative term once more, with the weights elsewhere."""
        again = inputs.pop("again", None)
        loss: Tensor = super().training_step(model, inputs, num_items_in_batch)
        elsewhere, self._elsewhere = self._elsewhere, None
        if elsewhere is None:
            return loss
        with elsewhere:
            self._is_elsewhere = True
            try:
                loss = loss + super().training_step(model, again, num_items_in_batch)
                if self.args.include_num_input_tokens_seen != "no":
                    self.state.num_input_tokens_seen += again["input_ids"].numel()
            finally:
                self._is_elsewhere = False
        return loss

    def _leads(self, negative: Tensor) -> AbstractContextManager[None] | None:
        """To where the negative gradient is taken; None where that is here."""
        if self.args.sam_rho:
            parameters = list(self._trainable().values())
            return uphill(parameters, gradient_of(negative, parameters), self.args.sam_rho)
        return self._relearning.taught(self.state.global_step) if self._relearning else None

    def _answers(self, model: Model, inputs: dict[str, Tensor]) -> dict[Group, Answers]:
        """Run the model, and split the answer tokens of a batch by part; the collator has put those together."""
        objective, prefix = self.objective, self._collator.prefix
        logits: Tensor | ChunkedLogits | None
        states: Tensor | None
        if objective.layer is None:
            logits, states = chunked_logits(model, inputs, prefix)[0], None
        else:
            states, logits = answer_states(model, inputs, objective.layer, prefix, with_logits=objective.reads_logits)
        return answers_by_part(objective, inputs, logits, states, self._prepared.norm)

    def prediction_step(
        self, model: Model, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[Tensor, None, None]:
        """Evaluation is a loss; answers are evaluated by `letheon.evaluate`."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def evaluation_loop(self, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """As the Trainer's, but for the mean over tokens: its own of batches counts short ones as much as long."""
        self._evaluation = torch.zeros(2, device=self.args.device)
        output = super().evaluation_loop(*args, metric_key_prefix=metric_key_prefix, **kwargs)
        total, count = self.accelerator.reduce(self._evaluation, reduction="sum").tolist()
        if count:
            output.metrics[f"{metric_key_prefix}_loss"] = total / count
        return output

    # -- run ---------------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> TrainOutput:
        """Train until the stop rule or a limit of the settings ends it; leaves the best state in `model`.

        `stop` tells the reason. A model that does not say the old answers is left as it is.

        Raises:
            InputError: It has trained before: what it has measured, and where it has pointed adapters, is of the
                model then.
        """
        if self.stop is not None:
            raise InputError("this trainer has trained: make a new UnlearnTrainer to train its model further")
        model = self.accelerator.unwrap_model(self.model)
        model.to(self.args.device)
        self._cache = open_cache(model, self.args, self.accelerator, self._tokenizer.pad_token_id)
        # Workers of a data loader would each number the sequences for themselves.
        self._collator.prefix = None if self.args.dataloader_num_workers else self._cache.prefix
        if not self.train_dataset.forget:
            if self.objective.needs("normal"):
                self._ask_normal(range(len(self.train_dataset.normal)))
            return super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        # All this under θ₀: before a checkpoint, if any, is loaded. And in the precision of training, which comes to
        # the model only when training begins.
        with self.accelerator.autocast():
            if self._watch.on and self._watch.begin(self.model, self._cache):
                return TrainOutput(0, 0.0, {})
            if self.args.robust:
                old = [item.old for item in self.train_dataset.forget]
                self.objective = with_wider_margin(self.objective, model, old, self._cache.batch_size)
                self._relearning = Relearning(
                    model,
                    old,
                    seed=self.args.seed,
                    pad_token_id=self._tokenizer.pad_token_id,
                    prefix=self._collator.prefix,
                    autocast=self.accelerator.autocast,
                )
            self._prepared = prepare(
                model,
                contrasted(model, self.args, self._adapter_init, own_optimizer=self.optimizer is not None),
                self.train_dataset,
                self._cache,
                objective=self.objective,
                args=self.args,
                adapter_init=self._adapter_init,
                unasked=lambda: self._reader.unasked(self._turns),
                base=self._base.log_probs if self._base else (),
            )
            self._collator.reference, self._collator.states = self._prepared.reference, self._prepared.states
        self._line = Line(self._trainable(), self._folder)
        self._epochs_ahead = 0
        self.train_dataset.on_epoch = self._run_ahead
        with without_gradient(self._prepared.held):
            output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self._finish()
        return output

    def _run_ahead(self, epoch: int) -> None:
        """What the data of an epoch ask of θ₀ for the first time, and of the layers that do not change.

        In the order of the epochs, also where a run resumes in a later one: then it comes out the same to the bit.
        """
        dataset, known = self.train_dataset, self._prepared.known_normal(self.objective)
        while self._epochs_ahead <= epoch:
            new = sorted(dataset.dealt(self._epochs_ahead) - known.keys()) if known is not None else []
            if new:
                assert self._line is not None
                with self._line.at_start():
                    self._ask_normal(new)
            if self._collator.prefix is not None:
                drawn = dataset.sequences(self._epochs_ahead)
                with self.accelerator.autocast():
                    self._collator.prefix.run_ahead(self.model, drawn, self._cache.batch_size)
            self._epochs_ahead += 1

    def _ask_normal(self, numbers: Iterable[int]) -> None:
        sequences = {number: self.train_dataset.normal[number] for number in numbers}
        score = not self.objective.reads_states("normal")
        with self.accelerator.autocast():
            self._prepared.ask(self.model, self._cache, self.objective, "normal", sequences, score=score)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As the Trainer's, with gradients that spare normal answers; full tuning with directions has its own."""
        given = self.optimizer is not None
        own = None if given else self._prepared.optimizer(self.args)
        if own is not None:
            self.optimizer: Any = own
        else:
            super().create_optimizer(*args, **kwargs)
            if self._prepared.sensitivity and not given:
                self.optimizer.register_step_pre_hook(self._prepared.spare)
        if self._prepared.held:
            hold(self.optimizer, self._prepared.held)
        optimizer: torch.optim.Optimizer = self.optimizer
        return optimizer

    def _after_step(self, step: int) -> bool:
        """Adapt the weights, probe when it is time; True when training should stop."""
        sums, self._step = self._step, StepSums()
        if self.args.world_size > 1:
            sums.average(lambda values: self.accelerator.reduce(values.to(self.args.device), reduction="mean"))
        self._logged = self._weights.after(sums, dual="normal" in self._collator.reference)
        return self._watch.after(step, sums.losses.values())

    def expected_steps(self) -> int | None:
        """About how many steps it will take in all, for a progress bar; None where no stop rule ends it."""
        return self._watch.expected_steps()

    def _log_probe(self, probe: Probe) -> None:
        # A log takes back that one is due; the loss of this step has not been logged yet.
        due = self.control.should_log
        self.log({f"probe_{key}": value for key, value in vars(probe).items() if key != "step" and value is not None})
        self.control.should_log = due

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, weights and scale to what is logged."""
        if "loss" in logs and getattr(self, "_logged", None):
            logs = {**logs, **self._logged}
        super().log(logs, start_time)

    # -- ending, checkpoints -----------------------------------------------------------------------------------------

    def _trainable(self) -> dict[str, torch.nn.Parameter]:
        return what_learns(self.accelerator.unwrap_model(self.model))

    def _finish(self) -> None:
        """Scale back what was changed, or go back to the best state within the guards; say how it ended."""
        assert self._line is not None
        if self.args.negation is not None:
            negate(self._line, self._trainable(), self.args.negation)
        self._watch.finish(self.state.global_step, self._line)
        self._line.close()

    def _save_checkpoint(self, model: Model, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if not self.args.should_save:
            return
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self._watch.rule.best_step >= 0:
            self._watch.best.copy_to(folder)
        state = {**self._watch.state(), **self._weights.state()}
        # The last file of a checkpoint, whole or not there: it tells that the rest is.
        write_text(folder / STATE_FILE, json.dumps(state))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Model = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        file = Path(resume_from_checkpoint) / STATE_FILE
        if not file.is_file():
            raise InputError(
                f"{resume_from_checkpoint}: not a whole checkpoint of Letheon; delete it to go on from the one before"
            )
        state = json.loads(file.read_text(encoding="utf-8"))
        self._watch.restore(state)
        self._watch.best.copy_from(file.parent)
        self._weights.restore(state)


def _able_to_pad(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, checked, with a padding token.

    Raises:
        InputError: There is no tokenizer, or it has no chat template.
    """
    if tokenizer is None:
        raise InputError("processing_class is missing: pass the model's tokenizer")
    check_tokenizer(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _able_to_learn(model: Model, args: UnlearnConfig, peft_config: Any) -> Model:
    """The model with its adapter, if it gets one, ready for gradients."""
    # Where padding is the token that ends a turn, its row would get no gradient. Nothing reads padding anyway.
    model.get_input_embeddings().padding_idx = None
    # Before the adapter is made: its weights are drawn at random.
    set_seed(args.seed)
    if peft_config is not None:
        from peft import get_peft_model

        model = get_peft_model(model, doubled(peft_config) if args.adapter_init == "fila" else peft_config)
    if args.gradient_checkpointing and hasattr(model, "enable_input_require_grads"):
        model.enable_input_require_grads()
    return model


class _Adapt(TrainerCallback):  # type: ignore[misc]
    """Hands the end of each optimizer step to the trainer, and the number of each epoch to its data."""

    def __init__(self, trainer: UnlearnTrainer):
        self.trainer = trainer

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The data loader does it too, except where a run resumes within an epoch or has several processes.
        self.trainer.train_dataset.set_epoch(int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer._after_step(state.global_step):
            control.should_training_stop = True
