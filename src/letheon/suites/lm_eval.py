"""The tasks of lm-eval (the Language Model Evaluation Harness), by its own task files, in our results format."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import Any

from letheon.console import Console
from letheon.errors import InputError, require_extra
from letheon.measure import Measured
from letheon.models import check_model, in_short, load_model, load_tokenizer, model_hash
from letheon.records import Estimate, ModelMetrics
from letheon.suites.results import OWN, Examined, SuiteResults, show

NAME, PACKAGE = "lm-eval", "lm_eval"


def run_tasks(model: str, tasks: list[str], output: Path, limit: int | None, console: Console) -> SuiteResults:
    """Run tasks by name, as lm-eval does by default: without a chat template, with each task's own shots.

    Args:
        model: Folder or hub id.
        tasks: Names of tasks or groups.
        output: The results file.
        limit: Most questions of each task.
        console: Where the table goes.

    Raises:
        InputError: No or unknown tasks; or a task's data set, which lies on the hub, cannot be had here.
        MissingExtraError: lm-eval is not installed.
    """
    require_extra(f"the suite {NAME!r}", NAME)
    if not tasks:
        raise InputError(f"--suite {NAME} needs --tasks NAMES, such as --tasks wmdp_bio,arc_easy")
    check_model(model)
    # It warns of what is meant here: that the model is loaded already.
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    if faults := [_unknown(name, manager.all_tasks) for name in tasks if name not in manager.all_tasks]:
        raise InputError(faults)
    with Measured() as cost:
        lm = HFLM(pretrained=load_model(model), tokenizer=load_tokenizer(model), batch_size=16)
        try:
            found = simple_evaluate(model=lm, tasks=tasks, limit=limit, log_samples=False, task_manager=manager)
        except (OSError, ValueError) as error:
            raise InputError(
                f"--tasks {','.join(tasks)}: the data set of a task lies on the hub and cannot be had here "
                f"({type(error).__name__}: {in_short(error)}); run it once with a network, or fill the cache of "
                "'datasets' (HF_HOME) from a machine that has one"
            ) from None
    results = SuiteResults(
        suite=NAME,
        models={OWN: Examined(name=model, hash=model_hash(model), seconds=round(cost.seconds, 2))},
        data={},
        limit=limit,
        samples=0,
        notes=[] if limit is None else [f"of each task at most {limit} questions were asked"],
        metrics={OWN: _values(found)},
    )
    results.save(output)
    show(results, console)
    console.say(f"written: {output}")
    return results


def _values(found: Any) -> ModelMetrics:
    """lm-eval has "acc,none" and "acc_stderr,none" side by side."""
    values: ModelMetrics = {}
    for task, metrics in found["results"].items():
        n = found.get("n-samples", {}).get(task, {}).get("effective", 0)
        own = values.setdefault(task, {})
        for key, value in metrics.items():
            name, _, kind = key.partition(",")
            if isinstance(value, int | float) and kind and not name.endswith("_stderr"):
                stderr = metrics.get(f"{name}_stderr,{kind}")
                label = name if kind == "none" else f"{name} ({kind})"
                own[label] = Estimate(mean=value, stderr=stderr if isinstance(stderr, float) else None, n=n)
    return values


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3)
    return f"--tasks {name}: lm-eval has no such task" + (f"; did you mean {', '.join(near)}?" if near else "")
