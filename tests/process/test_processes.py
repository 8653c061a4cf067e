"""Several worker processes under one command: they share the work, the limits and the exit code."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from batchgen.cli.worker_process import COMMAND
from batchgen.config import load
from batchgen.database_address import PostgresAddress, to_text
from batchgen.errors import MovedError, Remedy
from batchgen.jobs.processes import work_in_processes
from batchgen.jobs.work import spec_of
from batchgen.shutdown import Stop
from batchgen.simulate import Simulator
from batchgen.store import open_store
from batchgen.worker.stats import Stats
from tests.kits.crashes import said, until
from tests.kits.database import change
from tests.kits.processes import Process
from tests.kits.project import Project, ended

ITEMS = 60
SLOTS = 5


async def start(project: Project, *options: str, fresh: bool = False) -> Process:
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    return await project.start("work", "--processes", "2", "-c", str(SLOTS), *options, fresh=fresh)


async def with_calls_in_flight(
    project: Project, simulator: Simulator, *options: str, fresh: bool = False
) -> tuple[Process, dict[int, int]]:
    """The parent, and the workers' pids with their slots; each holds its share of calls."""
    simulator.hold()
    process = await start(project, *options, fresh=fresh)
    await simulator.received(SLOTS)
    children = dict(project.query("select pid, slots from workers"))
    return process, children


def states(project: Project) -> list[Any]:
    return project.query("select state, tries, count(*) from work group by 1, 2 order by 1")


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_they_share_the_slots_and_each_item_is_answered_once(
    project: Project, simulator: Simulator
) -> None:
    process, children = await with_calls_in_flight(project, simulator)
    assert sorted(children.values()) == [2, 3]
    assert process.pid not in children
    simulator.release()
    work = await ended(process)
    assert work.code == 0, work.err
    assert f"{ITEMS} done, 0 failed, 0 left; {ITEMS} calls in this run" in work.err
    assert (simulator.calls, set(simulator.ledger.values())) == (ITEMS, {1})
    assert (await project.batchgen("verify")).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_run_takes_processes_too_and_exports(project: Project, simulator: Simulator) -> None:
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    run = await project.process("run", "pool.jsonl", "--processes", "3", "-c", "6")
    assert run.code == 0, run.err
    assert [line["input"]["word"] for line in project.export()] == [f"w{n}" for n in range(ITEMS)]
    assert simulator.calls == ITEMS


async def test_one_that_is_killed_leaves_its_items_to_the_others(
    project: Project, simulator: Simulator
) -> None:
    process, children = await with_calls_in_flight(project, simulator)
    killed = min(children)
    os.kill(killed, signal.SIGKILL)
    await said(process, f"warning: worker process {killed} was killed (signal 9)")
    simulator.release()
    work = await ended(process)
    assert work.code == 0, work.err
    assert states(project) == [("done", 1, ITEMS)]
    assert simulator.calls == ITEMS + children[killed]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_when_all_are_killed_it_is_an_error(project: Project, simulator: Simulator) -> None:
    process, children = await with_calls_in_flight(project, simulator)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    work = await ended(process)
    assert work.code == 1
    assert "error: all 2 worker processes failed; the lines above say why." in work.err
    simulator.release()
    assert (await project.batchgen("work")).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("to", ["parent", "terminal"])
async def test_a_first_signal_drains_them_all(
    project: Project, simulator: Simulator, to: str
) -> None:
    process, children = await with_calls_in_flight(project, simulator)
    for pid in [process.pid, *(children if to == "terminal" else [])]:
        os.kill(pid, signal.SIGINT)
    await said(process, "stopping: ")
    simulator.release()
    assert (await ended(process)).code == 130
    assert states(project) == [("done", 1, SLOTS), ("pending", 0, ITEMS - SLOTS)]
    assert project.query("select sum(unknown_calls) from totals") == [(0,)]


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_a_sigterm_to_all_processes_at_once_drains_them(
    project: Project, simulator: Simulator
) -> None:
    process, children = await with_calls_in_flight(project, simulator)
    for pid in [process.pid, *children]:
        os.kill(pid, signal.SIGTERM)
    await said(process, "stopping: ")
    simulator.release()
    assert (await ended(process)).code == 143
    assert states(project) == [("done", 1, SLOTS), ("pending", 0, ITEMS - SLOTS)]
    assert project.query("select sum(unknown_calls) from totals") == [(0,)]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_second_signal_leaves_the_calls_in_flight(
    project: Project, simulator: Simulator
) -> None:
    process, _ = await with_calls_in_flight(project, simulator)
    process.send_signal(signal.SIGTERM)
    await said(process, "stopping: ")
    process.send_signal(signal.SIGTERM)
    stopped = await ended(process)
    assert stopped.code == 143
    assert "stopping now; abandoning " in stopped.err
    assert states(project) == [("pending", 0, ITEMS)]
    assert project.query("select sum(unknown_calls) from totals") == [(SLOTS,)]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_when_the_parent_is_killed_the_children_drain_and_go(
    project: Project, simulator: Simulator
) -> None:
    process, children = await with_calls_in_flight(project, simulator, fresh=True)
    process.kill()
    await process.wait()
    simulator.release()
    await until(project.database, "select count(*) = 0 from workers")
    for pid in children:
        await _gone(pid)
    assert states(project) == [("done", 1, SLOTS), ("pending", 0, ITEMS - SLOTS)]
    assert simulator.calls == SLOTS


async def _gone(pid: int) -> None:
    async with asyncio.timeout(20):
        while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes():
            await asyncio.sleep(0.01)


@pytest.mark.on_both_engines
@pytest.mark.slow
@pytest.mark.parametrize("to_server", [False, True])
async def test_a_move_while_they_begin_is_what_the_end_says(
    project: Project, simulator: Simulator, postgres: PostgresAddress, to_server: bool
) -> None:
    """A worker that has not joined stops no move; then none of them does any item here."""
    new = project.path / "new.db"
    if to_server:
        project.server = postgres
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    there = ("--db", str(project.server.url)) if project.server else ()
    assert (await project.batchgen(*there, "enqueue", "pool.jsonl")).code == 0
    overrides = {"database": project.server.url} if project.server else {}
    config = load(project.path / "config.yaml", env=os.environ, overrides=overrides,
                  cwd=project.path)  # fmt: skip
    said: list[str] = []
    async with open_store(config.database) as store:
        moves = ("sh", "-c", '"$2" -m batchgen move "$0" "$1" </dev/null >&2; shift; exec "$@"',
                 to_text(config.database), str(new), *COMMAND)  # fmt: skip
        with pytest.raises(MovedError) as caught:
            await work_in_processes(
                store, config, spec_of(config, concurrency=SLOTS).split(2), moves,
                stop=Stop(), stats=Stats(), say=said.append,
            )  # fmt: skip
    where = f"was moved to {new} on {os.uname().nodename}, and takes no more work."
    assert str(caught.value) == f"{store.name}: {where}"
    assert caught.value.remedy is Remedy.NAME_NEW_DATABASE
    assert not any("the others do its items" in line for line in said), said
    assert simulator.calls == 0
    assert (await project.batchgen("--db", str(new), "work")).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_caller_that_is_cancelled_however_often_drains_them_and_waits_for_their_end(
    project: Project, simulator: Simulator
) -> None:
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    config = load(project.path / "config.yaml", env=os.environ, overrides={}, cwd=project.path)
    async with open_store(config.database) as store:
        working = asyncio.create_task(
            work_in_processes(
                store, config, spec_of(config, concurrency=SLOTS).split(2), COMMAND,
                stop=Stop(), stats=Stats(), say=print,
            )
        )  # fmt: skip
        await simulator.received(SLOTS)
        children = [pid for (pid,) in project.query("select pid from workers")]
        for _ in range(3):
            working.cancel()
            await asyncio.wait([working], timeout=0.2)
        assert not working.done()
        simulator.release()
        with pytest.raises(asyncio.CancelledError):
            await working
    for pid in children:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert states(project) == [("done", 1, SLOTS), ("pending", 0, ITEMS - SLOTS)]
    assert project.query("select sum(unknown_calls) from totals") == [(0,)]


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_bug_in_the_parent_ends_the_run_and_is_said(
    project: Project, simulator: Simulator
) -> None:
    simulator.hold()
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    process = await project.start(
        "-q", "work", "--processes", "2", "-c", str(SLOTS), "--grace", "0.1"
    )
    await simulator.received(SLOTS)
    await until(project.database, "select count(report) from workers", 2)
    change(project.database, "update workers set report = '1'")  # which is no report
    async with asyncio.timeout(60):
        work = await ended(process)
    assert work.code == 1, work.err
    assert "ValidationError" in work.err
    assert work.err.endswith("error: internal error, please report it with the lines above.\n")
    assert project.query("select sum(unknown_calls) from totals") == [(SLOTS,)]
    assert project.query("select * from workers") == []


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_wrong_key_halts_them_all_for_a_handful_of_calls(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say", *["401"] * ITEMS)
    process = await start(project)
    work = await ended(process)
    assert work.code == 4, work.err
    assert work.err.count("halted: ") == 1
    assert states(project) == [("pending", 0, ITEMS)]
    assert simulator.calls <= 2 * 4


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_one_that_is_served_nothing_beside_others_stops_nobody(project: Project) -> None:
    answer = {"message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    workers: list[Any] = []  # the connections: each worker has one slot

    async def serve(request: web.Request) -> web.Response:
        await request.read()
        if request.transport not in workers:
            workers.append(request.transport)
        await asyncio.sleep(0.05)
        if request.transport is not workers[0] and len(workers) == 2:
            return web.json_response({"error": {"message": "slow down"}}, status=429)
        return web.json_response({"choices": [answer]})

    app = web.Application()
    app.router.add_post("/{path:.*}", serve)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    project.config("work: {stall_s: 2, retry_wait_s: 0.1}\n", base_url=url)
    project.pool({"word": f"w{number}"} for number in range(120))
    await project.batchgen("enqueue", "pool.jsonl")
    work = await project.process("work", "--processes", "2", "-c", "2")
    await runner.cleanup()
    assert work.code == 0, work.err
    assert states(project) == [("done", 1, 120)]
    assert ("the others do its work" in work.err) == (len(workers) == 2)


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_max_items_and_failures_are_those_of_all(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w0", "400")
    work = await ended(await start(project, "--max-items", "7"))
    assert (work.code, simulator.calls) == (3, 7)
    assert "6 done, 1 failed, 53 left" in work.err


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_the_share_of_one_that_is_killed_is_left_and_said_to_be(
    project: Project, simulator: Simulator
) -> None:
    process, children = await with_calls_in_flight(project, simulator, "--max-items", "9")
    os.kill(min(children), signal.SIGKILL)
    await said(process, "the rest of its share of the items is left; run it again for that many")
    simulator.release()
    work = await ended(process)
    assert work.code == 0, work.err
    ((done,),) = project.query("select count(*) from work where state = 'done'")
    assert done in (4, 5)  # the other's share


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_the_rate_limit_is_one_for_all(project: Project, simulator: Simulator) -> None:
    process = await start(project, "--rpm", "8")
    await simulator.received(1)
    await until(project.database, "select count(*) from work where state = 'done'", 1)
    process.send_signal(signal.SIGINT)
    assert (await ended(process)).code == 130
    assert simulator.calls == 1


async def test_more_processes_than_slots_are_refused(project: Project) -> None:
    work = await ended(await start(project, "--processes", "6"))
    assert work.code == 2
    assert "--processes 6: there are only 5 slots (-c) to share." in work.err


async def test_the_key_is_in_no_process_list(project: Project, simulator: Simulator) -> None:
    process, children = await with_calls_in_flight(project, simulator, fresh=True)
    for pid in [process.pid, *children]:
        assert b"sk-secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    simulator.release()
    assert (await ended(process)).code == 0


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_what_a_child_logs_is_said_once_by_the_parent(
    project: Project, simulator: Simulator
) -> None:
    simulator.script("Say w3", "500")
    project.pool({"word": f"w{number}"} for number in range(5))
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    work = await project.process("-v", "work", "--processes", "2", "-c", "4")
    assert work.code == 0
    assert work.err.count("item 4") == 1, work.err
    assert len(list((project.path / "logs").iterdir())) == 2


@pytest.mark.on_both_engines
@pytest.mark.slow
async def test_a_parser_that_prints_and_reads_does_not_get_in_between(
    project: Project, simulator: Simulator
) -> None:
    project.write(
        "noisy.py",
        "import sys\n\ndef parse(text):\n    print('{\"stats\": 1}', flush=True)\n"
        "    return sys.stdin.read()\n",
    )
    project.config("parser: noisy.py:parse\n")
    work = await ended(await start(project))
    assert work.code == 0, work.err
    assert work.err.count('{"stats": 1}') == ITEMS
    assert states(project) == [("done", 1, ITEMS)]
    assert simulator.calls == ITEMS


async def test_fewer_items_than_processes_are_no_error(
    project: Project, simulator: Simulator
) -> None:
    work = await ended(await start(project, "--max-items", "1"))
    assert (work.code, simulator.calls) == (0, 1), work.err
