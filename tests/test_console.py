"""Lines, tables, and progress on a terminal and elsewhere."""

from __future__ import annotations

import io

import pytest

from letheon.console import Console


class Clock:
    """Time that passes only when told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


def test_plain_progress_has_a_start_an_estimate_and_an_end() -> None:
    err, clock = io.StringIO(), Clock()
    with Console(err, clock=clock).progress("Score") as update:
        for done in range(1, 41):
            clock.now += 3
            update(done, 40)
    lines = err.getvalue().splitlines()
    assert lines[0] == "Score …"
    assert lines[1] == "Score: 4/40 (10%), about 108 s left"
    assert lines[2] == "Score: 8/40 (20%), about 96 s left"
    assert lines[-1] == "Score: done in 2 min 00 s"
    assert len(lines) == 11
    assert "\x1b" not in err.getvalue()


def test_fast_steps_are_two_lines() -> None:
    err = io.StringIO()
    with Console(err, clock=Clock()).progress("Read") as update:
        update(3, 3)
    assert err.getvalue() == "Read …\nRead: done in 0.0 s\n"


def test_callback_for_libraries_may_learn_the_total_late() -> None:
    err, clock = io.StringIO(), Clock()
    with Console(err, clock=clock).progress("Train") as update:
        update(0, 0)
        clock.now = 50
        update(1, 10)
    assert err.getvalue().splitlines() == [
        "Train …",
        "Train: 1/10 (10%), about 7 min 30 s left",
        "Train: done in 50 s",
    ]


def test_what_came_before_the_first_part_is_not_in_the_estimate() -> None:
    err, clock = io.StringIO(), Clock()
    with Console(err, clock=clock).progress("Train") as update:
        clock.now = 40
        update(0, 10)
        clock.now = 42
        update(1, 10)
    assert err.getvalue().splitlines()[1] == "Train: 1/10 (10%), about 18 s left"


def test_what_was_done_before_is_not_in_the_estimate() -> None:
    err, clock = io.StringIO(), Clock()
    with Console(err, clock=clock).progress("Screen", 100_000, speed=True) as update:
        for done, at in ((0, 0), (45_000, 2), (90_000, 5), (91_000, 605)):
            clock.now = at
            update(done, 100_000)
    assert err.getvalue().splitlines()[1] == ("Screen: 91000/100000 (91%), 1.67 a second, about 90 min 00 s left")


def test_a_step_that_fails_is_not_said_to_be_done() -> None:
    err = io.StringIO()
    with pytest.raises(RuntimeError), Console(err).progress("Train"):
        raise RuntimeError
    assert err.getvalue() == "Train …\n"


def test_terminal_gets_a_bar() -> None:
    err = Terminal()
    with Console(err).progress("Score [all]", 2) as update:
        update(2, 2)
    with Console(err).progress("Train") as update:
        update(3, 4)
    assert "Score [all]" in err.getvalue()
    assert "100%" in err.getvalue()
    assert "2/2" in err.getvalue()
    assert "3/4" in err.getvalue()
    assert "/s" not in err.getvalue()
    with Console(err).progress("Screen", 4, speed=True) as update:
        update(1, 4)
        update(2, 4)
    assert "/s" in err.getvalue()


def test_only_rank_0_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    err, out = io.StringIO(), io.StringIO()
    console = Console(err, out)
    console.say("a")
    console.warn("b")
    console.table("c", ["d"], [["e"]])
    with console.progress("f") as update:
        update(1, 2)
    assert err.getvalue() + out.getvalue() == ""


def test_lines_are_printed_as_they_are() -> None:
    err, out = io.StringIO(), io.StringIO()
    console = Console(err, out)
    console.say("[bold]not markup[/bold] :smile: " + "x" * 300)
    console.warn("[/]")
    assert err.getvalue() == "[bold]not markup[/bold] :smile: " + "x" * 300 + "\nwarning: [/]\n"
    assert out.getvalue() == ""


def test_table_goes_to_stdout() -> None:
    err, out = io.StringIO(), io.StringIO()
    Console(err, out).table("Kept", ["set", "before", "after"], [["[forget]", 0.85, "0.06 ± 0.02"], ["n", 1, 2]])
    assert [line.rstrip() for line in out.getvalue().splitlines()] == [
        "Kept",
        "set       before        after",
        "[forget]    0.85  0.06 ± 0.02",
        "n              1            2",
    ]
    assert err.getvalue() == ""
