"""The tasks of lm-eval (the Language Model Evaluation Harness), by its own task files, in our results format."""

from __future__ import annotations

import dataclasses
import difflib
import logging
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from letheon.console import Console
from letheon.errors import InputError, check_all, require_extra
from letheon.measure import Measured
from letheon.models import check_model, in_short, load_model, load_tokenizer, model_hash
from letheon.records import Estimate, ModelMetrics
from letheon.suites.results import OWN, Examined, SuiteResults, check_output, show
from letheon.text_file import read_text
from letheon.yaml_text import load_yaml

NAME, PACKAGE = "lm-eval", "lm_eval"


def run_tasks(model: str, tasks: list[str], output: Path, limit: int | None, console: Console) -> SuiteResults:
    """Run tasks by name, as lm-eval does by default: without a chat template, with each task's own shots.

    Args:
        model: Folder or hub id.
        tasks: Names of tasks or groups of lm-eval's, or files of tasks in its format.
        output: The results file.
        limit: Most questions of each task.
        console: Where the table goes.

    Raises:
        InputError: No or unknown tasks, or files that hold none; an output that cannot be written; or a task's data
            set cannot be had here.
        MissingExtraError: lm-eval is not installed.
    """
    require_extra(f"the suite {NAME!r}", NAME)
    if not tasks:
        raise InputError(f"--suite {NAME} needs --tasks NAMES, such as --tasks wmdp_bio,arc_easy")
    check_output(output)
    check_model(model)
    # It warns of what is meant here: that the model is loaded already.
    logging.getLogger(PACKAGE).setLevel(logging.ERROR)
    from lm_eval import simple_evaluate
    from lm_eval.api.task import TaskConfig
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    fields = {one.name for one in dataclasses.fields(TaskConfig)}
    asked = check_all([partial(_task, name, manager.all_tasks, fields) for name in tasks])
    with Measured() as cost:
        lm = HFLM(pretrained=load_model(model), tokenizer=load_tokenizer(model), batch_size=16)
        try:
            found = simple_evaluate(model=lm, tasks=asked, limit=limit, log_samples=False, task_manager=manager)
        except (OSError, ValueError) as error:
            # Of what is not in its cache `datasets` says ValueError, as a task says of a field that it cannot use.
            what = "the data set of a task cannot be had" if isinstance(error, OSError) else "a task cannot be run"
            raise InputError(
                f"--tasks {','.join(tasks)}: {what} here ({type(error).__name__}: {in_short(error)}); most data "
                "sets lie on the hub: run it once with a network, or fill the cache of 'datasets' (HF_HOME) from a "
                "machine that has one"
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


def _task(name: str, known: list[str], fields: set[str]) -> str | dict[str, Any]:
    """A task of lm-eval's by its name, or what a file says of one; none of a file's code is run.

    Args:
        name: Of the task, or its file.
        known: Names of lm-eval's tasks.
        fields: Those that a task has.
    """
    if not name.endswith((".yaml", ".yml")):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else "; a task of your own is named by its YAML file"
            raise InputError(f"--tasks {name}: lm-eval has no such task{hint}")
        return name
    try:
        found = load_yaml(read_text(Path(name), "--tasks"))
    except yaml.YAMLError as error:
        raise InputError(f"--tasks {name}: {in_short(error)}") from None
    if not isinstance(found, dict) or "task" not in found:
        raise InputError(f"--tasks {name}: not a task of lm-eval's: it has no field 'task'")
    if "include" in found:
        raise InputError(f"--tasks {name}: include: other files are not read; put their fields into this one")
    if unknown := sorted(map(str, found.keys() - fields)):
        raise InputError(f"--tasks {name}: {', '.join(unknown)}: a task of lm-eval's has no such field")
    return found
