"""Signals to a real process: the first drains, the second stops at once, and nothing is lost."""

import signal
import subprocess
import sys
import termios
from signal import SIGINT, SIGTERM
from typing import Any

import pytest

from batchgen.simulate import Behaviour, Simulator
from tests.kits.crashes import said, send
from tests.kits.processes import Process
from tests.kits.project import Project, ended
from tests.kits.terminal import CTRL_C, HIDE_CURSOR, SHOW_CURSOR, Terminal
from tests.kits.typist import Ended

ITEMS = 30
SLOTS = 4


async def with_calls_in_flight(project: Project, simulator: Simulator, *options: str) -> Process:
    """A run whose calls are all held by the server."""
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    simulator.hold()
    process = await project.start("run", "pool.jsonl", "-c", str(SLOTS), *options)
    await simulator.received(SLOTS)
    return process


async def stopping(process: Process, signum: signal.Signals) -> None:
    send(process, signum)
    await said(process, f"stopping: {SLOTS} calls in flight, waiting up to ")


async def resumed(project: Project) -> Ended:
    """The rest of the job, proven."""
    rest = await project.batchgen("run", "pool.jsonl", "-c", str(SLOTS))
    assert rest.code == 0, rest.err
    verified = await project.batchgen("verify")
    assert verified.code == 0, verified.out
    assert [line["input"]["word"] for line in project.export()] == [f"w{n}" for n in range(ITEMS)]
    return rest


def states(project: Project) -> list[Any]:
    return project.query("select state, tries, count(*) from work group by 1, 2 order by 1")


@pytest.mark.quick("15-143")
@pytest.mark.parametrize(("signum", "code"), [(SIGINT, 130), (SIGTERM, 143)])
async def test_the_first_signal_finishes_what_is_in_flight_and_sends_nothing_twice(
    project: Project, simulator: Simulator, signum: signal.Signals, code: int
) -> None:
    process = await with_calls_in_flight(project, simulator)
    await stopping(process, signum)
    simulator.release()
    stopped = await ended(process)
    assert (stopped.code, simulator.calls) == (code, SLOTS)
    assert "Run the same command to go on." in stopped.err
    assert states(project) == [("done", 1, SLOTS), ("pending", 0, ITEMS - SLOTS)]
    await resumed(project)
    assert set(simulator.ledger.values()) == {1}
    assert simulator.calls == ITEMS


async def test_a_stop_in_full_flow_keeps_every_answer(
    project: Project, simulator: Simulator
) -> None:
    project.pool({"word": f"w{number}"} for number in range(300))
    process = await project.start("run", "pool.jsonl", "-c", "20")
    await simulator.received(60)
    send(process, SIGTERM)
    stopped = await ended(process)
    assert stopped.code == 143
    answered = simulator.calls
    assert states(project)[0] == ("done", 1, answered)
    assert project.query("select count(*) from work where state = 'running'") == [(0,)]
    assert (await project.batchgen("run", "pool.jsonl", "-c", "20")).code == 0
    assert (simulator.calls, set(simulator.ledger.values())) == (300, {1})


@pytest.mark.quick("15-2-143")
@pytest.mark.parametrize(
    ("first", "second", "code"), [(SIGINT, SIGINT, 130), (SIGTERM, SIGINT, 143)]
)
async def test_the_second_signal_stops_at_once_and_counts_the_calls_it_left(
    project: Project,
    simulator: Simulator,
    first: signal.Signals,
    second: signal.Signals,
    code: int,
) -> None:
    process = await with_calls_in_flight(project, simulator)
    await stopping(process, first)
    send(process, second)
    stopped = await ended(process)
    assert stopped.code == code
    assert (
        f"stopping now; abandoning {SLOTS} calls in flight, to be sent again by the next run"
        in stopped.err
    )
    assert states(project) == [("pending", 0, ITEMS)]
    assert project.query(
        "select outcome, reason, count(*) from attempts group by 1, 2 order by 1, 2"
    ) == [("unknown", None, SLOTS)]
    total = (await project.batchgen("status", "--json")).json["total"]
    assert (total["unknown_calls"], total["pending"], total["running"]) == (SLOTS, ITEMS, 0)
    simulator.release()
    await resumed(project)
    assert simulator.calls == ITEMS + SLOTS


async def test_a_stop_waits_no_longer_than_the_grace(
    project: Project, simulator: Simulator
) -> None:
    process = await with_calls_in_flight(project, simulator, "--grace", "0.2")
    send(process, SIGINT)
    stopped = await ended(process)
    assert stopped.code == 130
    assert "warning: still in flight after 0.2 s: abandoned" in stopped.err
    assert states(project) == [("pending", 0, ITEMS)]
    assert project.query("select outcome, count(*) from attempts group by 1 order by 1") == [
        ("unknown", SLOTS)
    ]
    simulator.release()
    await resumed(project)
    assert simulator.calls == ITEMS + SLOTS


async def test_retries_that_wait_do_not_hold_up_a_stop(
    project: Project, simulator: Simulator
) -> None:
    tomorrow = Behaviour.error(500, headers={"Retry-After": "7200"})
    simulator.script("Say w", *[tomorrow] * ITEMS)
    # Every other one is answered, as a server that answers none counts as down.
    project.pool({"word": f"{of}{n}"} for n in range(ITEMS) for of in ("good", "w"))
    process = await project.start("run", "pool.jsonl", "-c", str(SLOTS))
    await simulator.received(2 * ITEMS)
    send(process, SIGINT)
    assert (await ended(process)).code == 130
    assert project.query(
        "select state, count(*), count(available_at) from work group by 1 order by 1"
    ) == [
        ("done", ITEMS, 0), ("pending", ITEMS, ITEMS),
    ]  # fmt: skip


async def test_a_pause_for_a_rate_limit_does_not_hold_up_a_stop(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w", *[Behaviour.error(429, headers={"Retry-After": "7200"})] * ITEMS)
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    process = await project.start("run", "pool.jsonl", "-c", "1")
    await simulator.received(1)
    send(process, SIGINT)
    assert (await ended(process)).code == 130
    assert (states(project), simulator.calls) == ([("pending", 0, ITEMS)], 1)


async def test_a_worker_that_waits_for_more_stops_by_a_signal(
    project: Project, simulator: Simulator
) -> None:
    project.pool([{"word": "a"}])
    await project.batchgen("enqueue", "pool.jsonl")
    process = await project.start("work", "--watch")
    await simulator.received(1)
    send(process, SIGTERM)
    assert (await ended(process)).code == 143
    assert states(project) == [("done", 1, 1)]


SLOW_PARSER = """
import pathlib, sys, time

def parse_response(response):
    print("PARSING", file=sys.stderr, flush=True)
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return response.upper()
"""


async def test_an_answer_whose_parser_is_left_running_is_parsed_later_and_not_asked_again(
    project: Project, simulator: Simulator
) -> None:
    project.write("slow.py", SLOW_PARSER)
    project.config("parser: slow.py\n")
    project.pool([{"word": "a"}])
    process = await project.start("run", "pool.jsonl")
    await said(process, "PARSING")
    send(process, SIGINT)
    await said(process, "stopping: 1 call")
    send(process, SIGINT)
    assert (await ended(process)).code == 130
    assert states(project) == [("pending", 0, 1)]
    assert project.query("select outcome, count(*) from attempts group by 1 order by 1") == [
        ("answered", 1)
    ]
    project.write("go", "")
    assert (await project.batchgen("run", "pool.jsonl")).code == 0
    (line,) = project.export()
    assert line["parsed"] == line["response"].upper()
    assert (simulator.calls, states(project)) == (1, [("done", 1, 1)])


async def test_a_parser_that_hangs_does_not_keep_the_process_from_ending(
    project: Project,
) -> None:
    project.write("slow.py", SLOW_PARSER)
    project.config("parser: slow.py\nwork: {parse_timeout_s: 0.3}\n")
    project.pool([{"word": "a"}])
    assert (await project.process("run", "pool.jsonl")).code == 3
    assert project.query("select reason, error from results") == [
        ("parse", "took longer than 0.3 s")
    ]


# --- on a terminal ------------------------------------------------------------------------------


@pytest.mark.quick("1")
@pytest.mark.parametrize("times", [0, 1, 2, 3])
async def test_ctrl_c_leaves_the_terminal_as_it_was(
    project: Project, simulator: Simulator, terminal: Terminal, times: int
) -> None:
    """While the live display is on, which hides the cursor. The third one is out of impatience."""
    before = terminal.settings()
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    simulator.hold()
    process = await terminal.start(project, "run", "pool.jsonl", "-c", str(SLOTS), foreground=True)
    await simulator.received(SLOTS)
    await terminal.shows(r"in flight +4")
    if times:
        terminal.type(CTRL_C)
        await terminal.shows("stopping: 4 calls in flight, waiting up to 30 s. Ctrl-C again")
    if times > 1:
        terminal.type(CTRL_C * (times - 1))
    else:
        simulator.release()
    lines = await terminal.last_lines(process)
    assert process.returncode in ({0} if times == 0 else {130} if times < 3 else {130, -SIGINT})
    assert terminal.settings() == before
    assert before[3] & termios.ECHO
    assert before[3] & termios.ICANON
    assert HIDE_CURSOR in terminal.raw
    assert terminal.raw.rfind(SHOW_CURSOR) > terminal.raw.rfind(HIDE_CURSOR)
    assert terminal.raw.endswith("\n")  # the prompt starts on a line of its own
    if times == 2:
        assert any("stopping now; abandoning 4 calls in flight" in line for line in lines)
    assert "Traceback" not in terminal.raw
    simulator.release()
    await resumed(project)


def test_ctrl_c_while_the_command_line_is_imported_ends_without_a_traceback() -> None:
    """A meta path that gets the signal where the first module of the command line is looked for."""
    interrupted = """
import os, signal, sys
class AtTheCommandLine:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "batchgen.cli":
            os.kill(os.getpid(), signal.SIGINT)
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, AtTheCommandLine)
from batchgen.__main__ import main
main()
"""
    ended = subprocess.run([sys.executable, "-c", interrupted], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, b"", b"")


_LATE_THREADS = """
import asyncio, sys, threading
from batchgen.cli.process import run_process
may_end, threads = threading.Event(), []

def late(loop):
    may_end.wait()
    loop.call_soon_threadsafe(int)

def broken(loop):
    may_end.wait()
    raise ValueError("a bug")

async def job():
    for function in (late, broken):
        threads.append(threading.Thread(target=function, args=[asyncio.get_running_loop()]))
        threads[-1].start()
    raise KeyboardInterrupt

def command():
    try:
        asyncio.run(job())
    finally:
        may_end.set()
        for thread in threads:
            thread.join()

run_process(command)
"""


def test_of_a_thread_that_comes_to_an_event_loop_that_has_ended_nothing_is_said() -> None:
    """As one of the database's may after a second Ctrl-C."""
    done = subprocess.run(
        [sys.executable, "-c", _LATE_THREADS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr.count("Traceback") == 1
    assert done.stderr.endswith("ValueError: a bug\n")
