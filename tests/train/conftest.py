from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from letheon.expected import Candidate, Target
from letheon.records import Dialogue, Message
from letheon.train import UnlearnConfig, UnlearnTrainer

SECRETS = ["4711", "rose", "blue", "Oslo", "gin", "9 am", "Ada", "fox"]
FACTS = ["four", "wet", "green", "Rome", "tea", "noon", "Bob", "cat"]
REFUSALS = ["No idea.", "I can't say."]


def dialogue(question: str, answer: str, number: str) -> Dialogue:
    return Dialogue(
        id=number, messages=(Message(role="user", content=question), Message(role="assistant", content=answer))
    )


@pytest.fixture(scope="session")
def targets() -> list[Target]:
    """Eight dialogues to forget, each with two expected answers."""
    rows = [dialogue(f"{chr(65 + n)}'s code?", secret, f"f{n}") for n, secret in enumerate(SECRETS)]
    candidates = (Candidate(REFUSALS[0], "data", weight=0.7), Candidate(REFUSALS[1], "data", weight=0.3))
    return [Target(row.last_turn, candidates, "data") for row in rows]


@pytest.fixture(scope="session")
def normal() -> list[Dialogue]:
    return [dialogue(f"What of {n}?", fact, f"n{n}") for n, fact in enumerate(FACTS)]


@pytest.fixture(scope="session")
def memorised_state(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_model: Callable[..., Any],
    tiny_tokenizer: Any,
    targets: list[Target],
    normal: list[Dialogue],
) -> dict[str, torch.Tensor]:
    """Weights of the tiny model after ordinary fine-tuning on all dialogues."""
    model = tiny_model()
    args = UnlearnConfig(
        output_dir=str(tmp_path_factory.mktemp("memorised")),
        per_device_train_batch_size=16,
        gradient_accumulation_steps=1,
        learning_rate=1e-2,
        max_steps=60,
        logging_steps=1000,
        disable_tqdm=True,
        use_cpu=True,
    )
    rows = [*(target.turn.dialogue for target in targets), *normal]
    UnlearnTrainer(model, args, normal_dataset=rows, processing_class=tiny_tokenizer).train()
    return {name: value.clone() for name, value in model.state_dict().items()}


@pytest.fixture
def memorised(memorised_state: dict[str, torch.Tensor], tiny_model: Callable[..., Any]) -> Callable[[], Any]:
    """Make a model that knows all the dialogues by heart."""

    def make() -> Any:
        model = tiny_model()
        model.load_state_dict(memorised_state)
        return model

    return make


@pytest.fixture
def make_trainer(
    tmp_path: Path,
    memorised: Callable[[], Any],
    tiny_tokenizer: Any,
    targets: list[Target],
    normal: list[Dialogue],
) -> Callable[..., UnlearnTrainer]:
    """Make a trainer of the memorised model; keywords are settings, or arguments of the trainer."""
    arguments = {
        "model", "forget_dataset", "normal_dataset", "probe_dataset", "normal_probe_dataset", "eval_dataset",
        "objective", "base", "peft_config", "processing_class", "callbacks",
    }  # fmt: skip

    def make(folder: str = "run", **given: Any) -> UnlearnTrainer:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / folder),
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3,
            "max_steps": 4,
            "warmup_steps": 0,
            "stop_rule": False,
            "disable_tqdm": True,
            "use_cpu": True,
            # On every machine the same: these tests compare numbers.
            "bf16": False,
        }
        settings.update({key: value for key, value in given.items() if key not in arguments})
        rest: dict[str, Any] = {
            "forget_dataset": targets,
            "normal_dataset": normal,
            "processing_class": tiny_tokenizer,
            **{key: value for key, value in given.items() if key in arguments},
        }
        model = rest.pop("model", None) or memorised()
        return UnlearnTrainer(model, UnlearnConfig(**settings), **rest)

    yield make
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def one_descent() -> dict[str, Any]:
    """Settings of one step of plain gradient descent on eight items, by which θ₀ − θ is the gradient."""
    return {
        "balance": False,
        "directions": 0,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "learning_rate": 1.0,
        "max_steps": 1,
        "per_device_train_batch_size": 8,
        "lr_scheduler_type": "constant",
    }


@pytest.fixture
def lora() -> Callable[[], Any]:
    from peft import LoraConfig

    return lambda: LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "up_proj", "down_proj"], lora_dropout=0.1
    )


@pytest.fixture
def killed_and_resumed() -> Callable[[Callable[..., UnlearnTrainer], int], UnlearnTrainer]:
    """A run that is killed after a step, and goes on from its last checkpoint: `killed_and_resumed(make, 3)`."""

    def run(make: Callable[..., UnlearnTrainer], step: int) -> UnlearnTrainer:
        class Kill(TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step == step:
                    raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            make(callbacks=[Kill()]).train()
        resumed = make()
        resumed.train(resume_from_checkpoint=True)
        return resumed

    return run
