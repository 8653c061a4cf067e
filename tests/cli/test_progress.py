"""How a run goes, as one sees it: plain lines, and the live display on a real terminal."""

import asyncio
import io
import os
import pty
import re
import signal
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from rich.console import Console

from batchgen.cli.hints import commands
from batchgen.display.run import RunDisplay
from batchgen.jobs.status import watch_run
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import open_store
from tests.kits.project import Project
from tests.kits.terminal import COLOUR, SHOW_CURSOR, Terminal

Words = Callable[[int], Iterator[dict[str, Any]]]


# --- plain lines ------------------------------------------------------------------------------


class Lines(io.StringIO):
    """A file in which one can wait for a line."""

    def __init__(self) -> None:
        super().__init__()
        self.written = asyncio.Event()

    def write(self, text: str) -> int:
        if text.strip():
            self.written.set()
        return super().write(text)


@pytest.mark.parametrize(("until", "total"), [(None, 3), (2, 2)])
async def test_plain_lines_come_at_their_interval(
    project: Project, words: Words, until: int | None, total: int
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    lines = Lines()
    console = Console(file=lines, width=20)
    async with open_store(project.database) as store:
        display = RunDisplay(commands(), console, plain_every_s=0.01)
        async with display.showing(await watch_run(store, None, until)), asyncio.timeout(10):
            await lines.written.wait()
    assert lines.getvalue().splitlines()[0] == (
        f"0/{total} (0%) | done 0 | failed 0 | in flight 0 | 0.0 items/s | 0 tokens/s | "
        "tokens 0 in, 0 out | 0 s so far"
    )


async def test_without_a_terminal_a_short_run_ends_with_its_summary_on_stderr(
    project: Project, words: Words
) -> None:
    project.pool(words(3))
    run = await project.batchgen("run", "pool.jsonl")
    assert run.out == ""
    assert "3 done, 0 failed, 0 left; 3 calls in this run" in run.err
    assert "\x1b" not in run.err


async def test_quiet_is_quiet(project: Project, words: Words) -> None:
    project.pool(words(3))
    run = await project.batchgen("-q", "run", "pool.jsonl")
    assert (run.code, run.out, run.err) == (0, "", "")


async def test_the_display_has_drawn_its_last_frame_however_often_the_run_is_cancelled(
    project: Project, words: Words, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    drawn = Lines()
    monkeypatch.setattr(sys, "stderr", drawn)
    monkeypatch.setenv("FORCE_COLOR", "1")  # it takes the file for a terminal
    monkeypatch.setenv("TERM", "xterm")

    async def run() -> None:
        async with RunDisplay(commands()).showing(await watch_run(store, None)):
            await asyncio.Event().wait()

    async with open_store(project.database) as store:
        running = asyncio.create_task(run())
        async with asyncio.timeout(10):
            await drawn.written.wait()
        for _ in range(3):
            running.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([running])
        assert running.cancelled()
        assert "display" not in {task.get_name() for task in asyncio.all_tasks()}
    assert drawn.getvalue().rstrip().endswith(SHOW_CURSOR)


# --- a real terminal --------------------------------------------------------------------------


async def test_the_live_display_shows_the_run_and_leaves_the_terminal_as_it_was(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    before = terminal.settings()
    project.pool(words(30))
    simulator.hold()
    run = await terminal.start(project, "run", "pool.jsonl")
    await terminal.shows(r" 0/30 +0%")
    await terminal.shows(r"in flight +4")
    simulator.release()
    lines = await terminal.last_lines(run)
    assert run.returncode == 0
    assert any(re.fullmatch(r"━+ 30/30 100% +in \d+ s", line) for line in lines)
    assert "done 30   failed  0   in flight   0" in lines
    assert "30 done, 0 failed, 0 left; 30 calls in this run" in lines
    assert COLOUR.search(terminal.raw)
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert terminal.settings() == before


async def test_no_color_means_no_colour_codes(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    run = await terminal.start(project, "run", "pool.jsonl", NO_COLOR="1")
    assert "done 3   failed 0   in flight   0" in await terminal.last_lines(run)
    assert not COLOUR.search(terminal.raw)


async def test_a_dumb_terminal_gets_plain_lines(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    run = await terminal.start(project, "run", "pool.jsonl", TERM="dumb")
    lines = await terminal.last_lines(run)
    assert "3 done, 0 failed, 0 left; 3 calls in this run" in lines
    assert "\x1b" not in terminal.raw
    assert "━" not in terminal.raw


async def test_the_display_says_that_and_why_the_worker_pauses(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    simulator.script("Say", Behaviour.error(429, headers={"Retry-After": "2"}))
    project.pool(words(1))
    run = await terminal.start(project, "run", "pool.jsonl")
    await terminal.shows(r"paused for 2 s: .*429")
    shown = "done 1   failed 0   in flight   0   retried 1 (failed calls: 429 rate_limit x 1)"
    assert shown in await terminal.last_lines(run)
    assert run.returncode == 0


async def test_messages_and_what_a_parser_prints_stand_above_the_display(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    project.write("loud.py", "def parse_response(text):\n    print('LOUD')\n    return 1\n")
    project.config("parser: loud.py\n")
    project.pool(words(9))
    simulator.script("Say w8", "500")
    simulator.hold()
    run = await terminal.start(project, "-v", "run", "pool.jsonl")
    await terminal.shows(r"in flight +4")
    run.send_signal(signal.SIGINT)
    await terminal.shows("stopping: ")
    simulator.release()
    lines = await terminal.last_lines(run)
    assert run.returncode == 130
    assert lines.count("LOUD") == 4
    assert "4 done, 0 failed, 5 left; 4 calls in this run" in lines
    assert terminal.settings()[3] & termios.ECHO
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_stdout_that_is_no_terminal_gets_what_a_parser_prints(
    project: Project, words: Words
) -> None:
    project.write("loud.py", "def parse_response(text):\n    print('LOUD')\n    return 1\n")
    project.config("parser: loud.py\n")
    project.pool(words(3))
    main, tty = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "batchgen", "run", "pool.jsonl",
        cwd=project.path, stderr=tty, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    project.running.append(process)
    out, _ = await process.communicate()
    os.close(main)
    os.close(tty)
    assert sorted(out) == sorted(b"LOUD\n" * 3)  # three threads print at once


# --- long commands ----------------------------------------------------------------------------

SLOW_POOL = """
import pathlib
import time


def items():
    for number in range(500):  # more than are looked at before there is a database
        yield {"word": str(number)}
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    yield {"word": "c"}
"""


async def test_a_long_enqueueing_says_how_far_it_is(project: Project, terminal: Terminal) -> None:
    project.write("slow.py", SLOW_POOL)
    enqueueing = await terminal.start(project, "enqueue", "slow.py:items")
    await terminal.shows(r"default: 500 items read, 0 rows new, [\d,]+ a second")
    project.write("go", "")
    lines = await terminal.last_lines(enqueueing)
    assert [line for line in lines if line][-1] == "default: 501 items read, 501 new"
    assert "\x1b[K" in terminal.raw
