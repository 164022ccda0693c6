"""Judge on the workers of a Ray cluster: Ray Data takes batches of turns, and gives their verdicts in order.

The log is read, deduplicated and written by the process that started the screening, as without a cluster. Each worker
has a copy of the fitted screener and is given whole batches, so that it computes what one process would.
"""

from __future__ import annotations

import asyncio
import math
import os
import pickle
import re
import secrets
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow

from letheon import recipe
from letheon.errors import InputError, LetheonError, require_extra
from letheon.models import in_short
from letheon.records import Turn, Verdict
from letheon.screen.kept import kept_open
from letheon.screen.stream import JudgeStream

Judge = Callable[[list[Turn]], list[Verdict]]

TOKEN = secrets.token_hex(32)
"""Without it nobody else on this machine has a say in a cluster of ours; Ray reads it once a process."""
PATIENCE = 10.0
"""Seconds that a cluster has to answer; Ray itself would wait for many minutes."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_LOG_LEVEL": "CRITICAL",
}
AHEAD = 2
"""Batches a worker that are on their way: one is judged, the next one waits."""
TRIES = 3
"""How often a batch is judged on which workers die; Ray itself would go on for ever."""


@contextmanager
def on_workers(judge: Judge, settings: recipe.Ray) -> Iterator[JudgeStream]:
    """Copies of a judge on the workers of a cluster, for a block.

    Args:
        judge: Gives turns their verdicts; it must survive pickling.
        settings: The recipe's `screen.ray`.

    Yields:
        A judge of batches, to be called once. It takes two batches a worker, and two more, before it gives the first
        verdicts, so that the rest of a long log is not held anywhere.

    Raises:
        InputError: No cluster answers at the address, or a worker cannot judge.
        MissingExtraError: Ray is not installed.
    """
    require_extra("the engine 'ray'", "ray")
    with _joined(settings) as ray:
        yield _Workers(ray, judge, settings.workers)


@contextmanager
def _joined(settings: recipe.Ray) -> Iterator[Any]:
    """Ray, connected to the cluster, or to one of this machine's own that ends with the block."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    address = settings.address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address} if address else {}
    with ExitStack() as ends:
        if not address:
            # Ray's name for "listen on loopback alone".
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN)
            # Its logs, and batches that memory had no room for, end with it.
            folder = Path(tempfile.mkdtemp(prefix="letheon-ray-"))
            ends.callback(_delete, folder)
            options = {"num_cpus": settings.workers, "include_dashboard": False, "_temp_dir": str(folder)}
        import ray
        import ray.data

        try:
            if address and (place := re.fullmatch(r"(?:ray://)?(.+):(\d+)", address)):
                socket.create_connection((place[1], int(place[2])), PATIENCE).close()
            with _no_stderr():
                ray.init(**options, log_to_driver=False, logging_level="ERROR")
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{address or 'this machine'}: no Ray cluster to judge on ({in_short(error)}); start one with "
                "'ray start --head', mend the address (--ray-address, RAY_ADDRESS), or leave both out for workers on "
                "this machine"
            ) from None
        ends.callback(ray.shutdown)
        yield ray


def _delete(folder: Path) -> None:
    """Delete a folder that Ray's processes may still write to for a moment."""
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.25)


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Keep out a line that Ray writes past Python: that it has read how much it may say."""
    sys.stderr.flush()
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Workers:
    """A judge of batches, by Ray Data: a read task takes batches off a shelf, a pool of actors judges them."""

    def __init__(self, ray: Any, judge: Judge, workers: int | None):
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0))
        self._ray = ray
        self._number = workers or gpus or max(1, int(there.get("CPU", 1)))
        # Several may share a GPU, but none can have parts of two.
        share = 1 / math.ceil(self._number / gpus) if gpus else 0
        self._judge = ray.put(judge)
        self._shelf = ray.remote(num_cpus=0)(_Shelf).remote()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.execution_options.preserve_order = True
        # A batch is handed on at once, and alone: those behind it come when its verdicts are there.
        context.target_max_block_size = context.target_min_block_size = 1
        log = ray.data.read_datasource(_log_from(self._shelf), override_num_blocks=1, num_cpus=0)
        self._verdicts = log.map_batches(
            _Worker,
            fn_constructor_args=[self._judge, self._shelf],
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=self._number),
            num_cpus=1,
            num_gpus=share,
        )

    def __call__(self, batches: Iterator[list[Turn]]) -> Iterator[list[Verdict]]:
        given, taken, judged = self._given(), 0, 0
        for taken, turns in enumerate(batches, start=1):
            self._put(taken - 1, pickle.dumps(turns), judged)
            if taken - judged > AHEAD * self._number + 1:
                yield next(given)
                judged += 1
        self._put(taken, None, judged)
        yield from given

    def _given(self) -> Iterator[list[Verdict]]:
        tables = self._verdicts.iter_batches(batch_size=None, prefetch_batches=0, batch_format="pyarrow")
        try:
            for table in tables:
                yield from (_opened(cell.as_py()) for cell in table["verdicts"])
        except self._ray.exceptions.RayActorError as error:
            raise InputError(
                f"a worker cannot work ({str(error).strip().splitlines()[-1][:200]}); each machine of the cluster "
                "needs Letheon, its extras and the judges' models; run again to go on from there"
            ) from None

    def _put(self, number: int, batch: bytes | None, judged: int) -> None:
        self._ray.get(self._shelf.put.remote(number, batch, judged))


class _Shelf:
    """An actor that holds batches for whoever reads them; those whose verdicts are known are gone."""

    def __init__(self) -> None:
        self._batches: dict[int, bytes | None] = {}
        self._begun = Counter[int]()
        self._judged = 0
        self._changed = asyncio.Condition()

    async def put(self, number: int, batch: bytes | None, judged: int) -> None:
        """Put a batch there, or None behind the last; so many have been judged."""
        async with self._changed:
            self._batches[number] = batch
            for done in range(self._judged, judged):
                del self._batches[done], self._begun[done]
            self._judged = judged
            self._changed.notify_all()

    async def take(self, number: int) -> bytes | None:
        """A batch, when it is there; an empty one where a worker died and Ray reads from the beginning again."""
        async with self._changed:
            await self._changed.wait_for(lambda: number < self._judged or number in self._batches)
            return self._batches.get(number, pickle.dumps([]))

    async def begin(self, number: int) -> int:
        """Whoever begins to judge a batch says so, and is told how often that has been."""
        self._begun[number] += 1
        return self._begun[number]


def _log_from(shelf: Any) -> Any:
    """What is on the shelf, as a source of Ray Data: a table of one batch after another."""
    from ray.data.block import BlockMetadata
    from ray.data.datasource import Datasource, ReadTask

    class Log(Datasource):  # type: ignore[misc]
        def estimate_inmemory_data_size(self) -> None:
            return None

        def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[Any]:
            return [ReadTask(lambda: _read(shelf), BlockMetadata(None, None, None, None))]

    return Log()


def _read(shelf: Any) -> Iterator[pyarrow.Table]:
    import ray

    number = 0
    while (batch := ray.get(shelf.take.remote(number))) is not None:
        yield pyarrow.table({"number": [number], "turns": [batch]})
        number += 1


class _Worker:
    """An actor that judges batches."""

    def __init__(self, judge: Any, shelf: Any):
        import ray

        self._ray = ray
        self._judge: Judge = ray.get(judge)
        self._shelf = shelf
        # Models stay until the process ends.
        self._kept = kept_open()
        self._kept.__enter__()

    def __call__(self, batches: pyarrow.Table) -> pyarrow.Table:
        return pyarrow.table({"verdicts": [pickle.dumps(self._said(**row)) for row in batches.to_pylist()]})

    def _said(self, number: int, turns: bytes) -> list[Verdict] | list[str]:
        if self._ray.get(self._shelf.begin.remote(number)) > TRIES:
            return [f"died {TRIES} times at the same dialogues; for want of memory? give it more, or fewer --workers"]
        try:
            return self._judge(pickle.loads(turns))
        except LetheonError as error:
            return str(error).splitlines()


def _opened(said: bytes) -> list[Verdict]:
    """The verdicts that a worker gives; its faults are the user's to know."""
    found = pickle.loads(said)
    if faults := [f"on a worker: {one}" for one in found if isinstance(one, str)]:
        raise InputError(faults)
    return list(found)
