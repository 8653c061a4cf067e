"""`status --watch` on a real terminal: it shows the work, and ends well."""

import signal
from collections.abc import Callable, Iterator
from typing import Any

from batchgen.simulate import Simulator
from tests.kits.project import Project, ended
from tests.kits.terminal import COLOUR, Terminal

Words = Callable[[int], Iterator[dict[str, Any]]]


async def test_it_shows_the_work_and_leaves_the_terminal_as_it_was(
    project: Project, simulator: Simulator, words: Words, terminal: Terminal
) -> None:
    before = terminal.settings()
    project.pool(words(30))
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    work = await project.start("work")
    await simulator.received(4)
    watching = await terminal.start(project, "status", "--watch")
    await terminal.shows(r"default ╍+─+ +0/30   0%")
    await terminal.shows(r"done  0   failed  0   running ( 4   pending 26|20   pending 10)")
    simulator.release()
    assert (await ended(work)).code == 0
    await terminal.shows(r"default ━+ 30/30 100%")
    assert COLOUR.search(terminal.raw)
    watching.send_signal(signal.SIGINT)
    await terminal.last_lines(watching)
    assert watching.returncode == 130
    assert terminal.raw.rindex("\x1b[?1049l") > terminal.raw.rindex("\x1b[?1049h")
    assert terminal.raw.rindex("\x1b[?25h") > terminal.raw.rindex("\x1b[?25l")
    assert terminal.settings() == before


async def test_no_color_means_no_colour_codes_and_sigterm_ends_it_as_well(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    watching = await terminal.start(project, "status", "--watch", NO_COLOR="1")
    await terminal.shows(r"default ─+ 0/3   0%")
    watching.send_signal(signal.SIGTERM)
    await terminal.last_lines(watching)
    assert watching.returncode == 143
    assert not COLOUR.search(terminal.raw)
    assert "\x1b[?1049l" in terminal.raw


async def test_a_dumb_terminal_gets_the_text(
    project: Project, words: Words, terminal: Terminal
) -> None:
    project.pool(words(3))
    await project.batchgen("enqueue", "pool.jsonl")
    watching = await terminal.start(project, "status", "--watch", TERM="dumb")
    await terminal.shows(r"default +3 +3 +0 +0 +0")
    watching.send_signal(signal.SIGINT)
    await terminal.last_lines(watching)
    assert watching.returncode == 130
    assert "\x1b[?1049h" not in terminal.raw
