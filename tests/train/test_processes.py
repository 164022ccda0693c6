"""A training that several processes share: they come to one model, and say the same of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_two_processes_agree(talk_source: Path, tmp_path: Path) -> None:
    script = Path(__file__).with_name("in_two_processes.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    given = [str(talk_source / "model"), str(talk_source / "log.jsonl"), str(tmp_path)]
    done = subprocess.run([*launch, *given], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"found-{n}.json").read_text()) for n in (0, 1))
    assert first == second
    assert first["stop"]["step"] == 4
    assert len(set(first["probes"])) == 3
    # The best state is in the checkpoints, and else nowhere any more.
    assert (tmp_path / "checkpoint-4/best.safetensors").is_file()
    assert not list(tmp_path.glob("process-*/*"))
