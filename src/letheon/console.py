"""What the command line says while it works: lines, tables, and the progress of long steps.

On a terminal progress is a bar with an estimate; elsewhere (a log, CI) it is a plain line now and then. Everything
goes to stderr but tables, which are results. Of several processes only rank 0 speaks.
"""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

OnProgress = Callable[[int, int], None]
"""How a library tells how far it is: (done, total). It may correct the total as it goes."""
PLAIN_WIDTH = 118
"""Width of tables that are written to a file or a pipe."""
WINDOW = 60.0
"""Seconds that an estimate goes by at least, once so many have passed."""


class Console:
    """Speaks to the user.

    Args:
        err: Where lines and progress go; sys.stderr by default.
        out: Where tables go; sys.stdout by default.
        every: Seconds between two plain lines of one step.
        clock: Gives the time in seconds.
        quiet: Say nothing; by default on every rank but 0.
    """

    def __init__(
        self,
        err: TextIO | None = None,
        out: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        quiet: bool | None = None,
    ):
        self.quiet = int(os.environ.get("RANK") or 0) != 0 if quiet is None else quiet
        self.every = every
        self.clock = clock
        self._err = _rich(err or sys.stderr, self.quiet)
        self._out = _rich(out or sys.stdout, self.quiet)

    def say(self, line: str = "") -> None:
        """Print a line as it is: no part of it is taken for markup."""
        self._err.print(Text(line), soft_wrap=True)

    def warn(self, line: str) -> None:
        """Print a line that should not be overlooked."""
        self._err.print(Text.assemble(("warning: ", "bold yellow"), line), soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table; all columns but the first stand to the right."""
        table = Table(
            title=Text(title, style="bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0)
        )
        for number, column in enumerate(columns):
            table.add_column(Text(column), justify="right" if number else "left")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        self._out.print(table)

    @contextmanager
    def progress(self, what: str, total: int = 0, *, speed: bool = False) -> Iterator[OnProgress]:
        """Show how far a step is while the block runs.

        Args:
            what: What is being done, in a word or two.
            total: How many parts there are; 0 where the step itself will tell.
            speed: Also say how many parts there are a second.

        Yields:
            The callback to hand to the step: `update(done, total)`.
        """
        if self.quiet:
            yield lambda done, total: None
        elif self._err.is_terminal:
            with _bar(self._err, speed=speed) as bar:
                task = bar.add_task(what, total=total or None)
                yield lambda done, total: bar.update(task, completed=done, total=total or None)
        else:
            lines = _PlainProgress(self, what, speed=speed)
            yield lines.update
            lines.finish()


class _PlainProgress:
    """Progress as lines: at the start, now and then, and at the end."""

    def __init__(self, console: Console, what: str, *, speed: bool):
        self.console, self.what, self.speed = console, what, speed
        self.start = self.last = console.clock()
        self.points = deque([(self.start, 0)])
        console.say(f"{what} …")

    def update(self, done: int, total: int) -> None:
        """Say how far it is, if it has been a while."""
        now = self.console.clock()
        if not done:
            # What came before the first part says nothing about how long the parts take.
            self.points.clear()
        # Nor does what was found done already, and passed in no time.
        while len(self.points) > 1 and now - self.points[1][0] >= WINDOW:
            self.points.popleft()
        self.points.append((now, done))
        begun, before = self.points[0]
        if now - self.last < self.console.every or done >= total or done <= before:
            return
        self.last = now
        left = (now - begun) * (total - done) / (done - before)
        speed = f"{(done - before) / (now - begun):.3g} a second, " if self.speed else ""
        self.console.say(f"{self.what}: {done}/{total} ({done / total:.0%}), {speed}about {span(left)} left")

    def finish(self) -> None:
        """Say how long it took."""
        self.console.say(f"{self.what}: done in {span(self.console.clock() - self.start)}")


def span(seconds: float) -> str:
    """Seconds, or minutes and seconds from two minutes on."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60):02d} s"


class _Speed(ProgressColumn):
    """How many parts there are a second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


def _bar(console: RichConsole, *, speed: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        *([_Speed()] if speed else []),
        TimeElapsedColumn(),
        TextColumn("left:"),
        TimeRemainingColumn(),
        console=console,
    )


def _rich(file: TextIO, quiet: bool) -> RichConsole:
    return RichConsole(
        file=file,
        quiet=quiet,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if file.isatty() else PLAIN_WIDTH,
    )
