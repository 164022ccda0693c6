"""What a recipe says reaches settings, objective and data of its training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from letheon.chat import Encoded
from letheon.objective import AdaptiveRMU, AnswerPreservation, ClusterMean, LogOddsHinge, Objective, ReferenceKL
from letheon.recipe import Recipe, check_recipe
from letheon.train.recipe_run import (
    GUARDING,
    TrainingLog,
    _last_checkpoint,
    objective_of,
    training_data,
    training_settings,
)
from letheon.train.trainer import STATE_FILE


def recipe(**sections: Any) -> Recipe:
    return check_recipe({"model": "m", "data": {"dialogues": "d.jsonl"}, **sections})


def test_all_settings_reach_the_trainer() -> None:
    given = recipe(
        seed=5,
        objective={
            "balance": False,
            "negative": {"sam_rho": 0.3, "tokens": "without-first"},
            "normal": {"top_k": 9, "dual_rate": 1.5, "floor": 0.25, "budget": 1.7},
        },
        tuning={"damping": 0.4, "lora": {"init": "random"}, "full": {"directions": 7}},
        stop={
            "every": 3,
            "probability": 0.21,
            "extraction_strength": 0.22,
            "truth_probability": 0.7,
            "normal_budget": 1.3,
            "kl_budget": 0.4,
            "normal_kept": 0.6,
            "patience": 8,
        },
    )
    wanted = {
        "output_dir": "out",
        "seed": 5,
        "adapter_init": "random",
        "directions": 7,
        "damping": 0.4,
        "sam_rho": 0.3,
        "token_choice": "without-first",
        "balance": False,
        "top_k": 9,
        "dual_rate": 1.5,
        "normal_floor": 0.25,
        "normal_budget": 1.7,
        "stop_every": 3,
        "stop_probability": 0.21,
        "stop_extraction": 0.22,
        "stop_truth": 0.7,
        "stop_normal_budget": 1.3,
        "stop_kl_budget": 0.4,
        "stop_normal_kept": 0.6,
        "stop_patience": 8,
    }
    settings = training_settings(given, "out")
    assert {name: getattr(settings, name) for name in wanted} == wanted


def test_an_objective_has_the_terms_weights_and_seed_of_its_recipe() -> None:
    given = recipe(
        objective={
            "negative": {"name": "adaptive-rmu", "weight": 0.5},
            "positive": {"weight": 0.25},
            "normal": {"name": "kl", "weight": 7.0},
        }
    )
    terms = AdaptiveRMU(3, seed=11), ClusterMean(), ReferenceKL(cross_entropy=False)
    assert objective_of(given.objective, 3, seed=11) == Objective(*terms, weights=(0.5, 0.25, 7.0))
    given = recipe(objective={"normal": {"name": "ap", "beta": 0.3}})
    assert objective_of(given.objective) == Objective(LogOddsHinge(), ClusterMean(), AnswerPreservation(0.3))


def test_every_eighth_rehearsed_answer_is_for_the_guards_alone(tiny_model: Callable[..., Any]) -> None:
    rehearsed = [Encoded([n, n], [False, True]) for n in range(20)]
    data: Any = SimpleNamespace(normal=["kept"], normal_probe=["guard"], probe=[], forget=[])
    given = training_data(recipe(), tiny_model(), None, [], data, rehearsed)
    guarding = [rehearsed[0], rehearsed[GUARDING], rehearsed[2 * GUARDING]]
    assert given["normal_probe_dataset"] == ["guard", *guarding]
    assert given["normal_dataset"] == ["kept", *(answer for answer in rehearsed if answer not in guarding)]


def test_the_last_checkpoint_is_the_whole_one_of_most_steps(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(checkpoints=tmp_path)
    assert _last_checkpoint(run) is None
    for step in (8, 10, 12):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if step < 12:
            (tmp_path / f"checkpoint-{step}" / STATE_FILE).touch()
    assert _last_checkpoint(run) == str(tmp_path / "checkpoint-10")


def test_a_log_goes_on_after_a_line_that_was_cut_off(tmp_path: Path) -> None:
    run: Any = SimpleNamespace(training_file=tmp_path / "training.jsonl")
    state = SimpleNamespace(global_step=2)
    torn = ('{"step": 1}\n{"step": 2, "lo', [1]), ('{"st', [])
    for before, kept in (*torn, ('{"step": 1}\n', [1]), ('{"step": 1}', [1]), (None, [])):
        run.training_file.unlink(missing_ok=True)
        if before is not None:
            run.training_file.write_text(before)
        TrainingLog(run, append=True).on_log(None, state, None, {"loss": 0.5})
        lines = [json.loads(line) for line in run.training_file.read_text().splitlines()]
        assert lines == [*({"step": step} for step in kept), {"step": 2, "loss": 0.5}]
    TrainingLog(run, append=False)
    assert not run.training_file.exists()
