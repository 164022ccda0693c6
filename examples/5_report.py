"""Every stage from Python, and the report: a run folder with report.html in it.

python examples/5_report.py MODEL RUN   (minutes)
python examples/5_report.py --tiny      (a temporary run folder)
"""

import tempfile
from pathlib import Path

from _shared import LOG, arguments, log, tiny_folder

from letheon.console import Console
from letheon.pipeline import run_all
from letheon.recipe import check_recipe
from letheon.records import write_jsonl
from letheon.run import Run

given = arguments(__doc__, model="model folder", run="run folder")

with tempfile.TemporaryDirectory() as scratch:
    recipe = {"model": given.model, "output": given.run, "data": {"dialogues": LOG}, "screen": {"judges": ["labels"]}}
    if given.tiny:
        few = Path(scratch) / "few.jsonl"
        write_jsonl(few, [dialogue for part in log(tiny=True) for dialogue in part])
        recipe |= {
            "model": tiny_folder(Path(scratch) / "model"),
            "output": Path(scratch) / "run",
            "data": {"dialogues": few},
            "objective": {"normal": {"rehearsal": False}},
            "train": {"max_steps": 4, "stop_rule": False},
            "evaluate": {"max_new_tokens": 8},
        }
    run = Run(check_recipe(recipe))
    results = run_all(run, Console())
    print(f"forgotten: {results.verdict.forgotten}")
    print(f"{run.report_file}: {run.report_file.stat().st_size // 1024} kB")
