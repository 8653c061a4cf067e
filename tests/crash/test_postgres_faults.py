"""What may happen between workers and their server: each costs at most calls that were in flight,
and nothing that was acknowledged."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGINT, SIGKILL, SIGSTOP, SIGTERM, Signals

import psycopg
import pytest

from batchgen.simulate import Simulator
from tests.kits.crashes import exported, said, send
from tests.kits.machines import Network, NoMachinesError, network
from tests.kits.pgbouncer import pooler
from tests.kits.pipelines import KINDS, Pipeline, asked, asked_again, calm_run, exported_text
from tests.kits.pipelines import pool as pool_of
from tests.kits.postgres import Server, execute, running
from tests.kits.processes import Process
from tests.kits.project import Project, ended
from tests.kits.server_facts import contradictions_of
from tests.kits.standby import standby_of, take_over
from tests.kits.typist import Ended
from tests.kits.wire import LossyWire

ITEMS = 60
SLOTS = 4
LEASE_S = 1.5
CHAINS = 14
EVERY = 5  # commits
MOST_TOKENS = 60  # of an answer
WORK = ("-q", "work", "-c", str(SLOTS))
PASSWORD = "s3cret-of-a-test"


@pytest.fixture(scope="module")
def server(postgres_server: object) -> Iterator[Server]:
    """One that may be stopped, and has roles and databases of its own."""
    del postgres_server  # which knows whether there is any, and skips
    with running({"max_connections": "40"}) as made:
        made.execute("create role worker login")
        yield made


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    """A new database, of a user that has no more rights than it needs."""
    server.execute("create database work owner worker encoding 'UTF8' template template0")
    yield server.url("work", user="worker")
    server.execute("drop database work with (force)")


@pytest.fixture
def project(project: Project, url: str) -> Project:
    """With items to answer."""
    project.env["BATCHGEN_DATABASE"] = url
    project.config(
        f"work: {{lease_s: {LEASE_S}, retry_wait_s: 0.05, max_attempts: 100}}\nparser: raw\n"
    )
    project.pool({"word": f"w{number}"} for number in range(ITEMS))
    return project


@pytest.fixture
async def enqueued(project: Project) -> Project:
    done = await project.process("enqueue", "pool.jsonl")
    assert done.code == 0, done.err
    return project


async def at_work(project: Project, simulator: Simulator, workers: int) -> list[Process]:
    """Workers that have all their slots in use, and go on from there."""
    done = await project.process("enqueue", "pool.jsonl")
    assert done.code == 0, done.err
    simulator.hold()
    started = [await project.start(*WORK) for _ in range(workers)]
    await simulator.received(workers * SLOTS)
    simulator.release()
    return started


def was_done(told: Ended) -> bool:
    """Without a word, but that a server which went away, or is slow, was waited for."""
    waiting = ("Trying again for", "Waiting for it; ")
    words = [line for line in told.err.splitlines() if not any(one in line for one in waiting)]
    return told.code == 0 and not words


async def is_whole(project: Project, url: str, items: int = ITEMS) -> None:
    """All is done, and exported as any other run would."""
    await leases_are_over(url)
    rest = await project.process("-q", "work")  # who joins sorts in what the dead have left
    assert rest.code == 0, rest.err
    assert contradictions_of(url, await project.process("verify")) == []
    done = await project.process("export")
    assert done.code == 0, done.err
    assert [line["input"]["word"] for line in exported(project)] == [f"w{n}" for n in range(items)]


async def leases_are_over(url: str) -> None:
    living = (
        "select count(*) from workers"
        " where lease_until >= (extract(epoch from clock_timestamp()) * 1000)::bigint"
    )
    await until(url, living, 0)


async def until(url: str, sql: str, wanted: int) -> None:
    """Until a count, seen from outside, is this."""
    async with asyncio.timeout(60):
        while execute(url, sql) != [(wanted,)]:
            await asyncio.sleep(0.02)


ON_RECORD = "select count(*) from attempts where outcome = 'answered'"
USED = """
select 'Say ' || (i.input::json ->> 'word'), a.prompt_tokens + a.completion_tokens
  from attempts a join items i on i.id = a.item_id where a.outcome = 'answered'
"""
UNKNOWN = "select count(*) from attempts where outcome = 'unknown'"


@pytest.mark.slow
async def test_a_server_away_for_longer_than_leases_costs_no_call(
    enqueued: Project, simulator: Simulator, server: Server, url: str
) -> None:
    """The answers wait, and nobody who comes back takes the others for dead."""
    simulator.hold()
    workers = [await enqueued.start(*WORK) for _ in range(2)]
    await simulator.received(2 * SLOTS)
    server.stop()
    simulator.release()
    await asyncio.sleep(2 * LEASE_S)  # it is about the time that passes
    server.start()
    for worker in workers:
        told = await ended(worker)
        assert was_done(told), told.err
    assert simulator.calls == ITEMS
    assert execute(url, UNKNOWN) == [(0,)]
    await is_whole(enqueued, url)


@pytest.mark.slow
async def test_a_server_away_for_longer_than_the_patience_ends_the_work_which_then_goes_on(
    project: Project, simulator: Simulator, server: Server, url: str
) -> None:
    project.config("work: {patience_s: 0.5}\nparser: raw\n")
    done = await project.process("enqueue", "pool.jsonl")
    assert done.code == 0, done.err
    simulator.hold()
    worker = await project.start(*WORK)
    await simulator.received(SLOTS)
    before = execute(url, "select state, count(*) from work group by 1 order by 1")
    server.stop()
    simulator.release()
    told = await ended(worker)
    server.start()
    assert told.code == 1, told.err
    assert f"{SLOTS} calls have ended that could not be written" in told.err
    assert "Gave up after 0.5 s (work.patience_s). See that it runs again." in told.err
    assert "Then run the same command again." in told.err.splitlines()[-1]
    assert "Traceback" not in told.err
    assert execute(url, "select state, count(*) from work group by 1 order by 1") == before
    await is_whole(project, url)
    assert simulator.calls == ITEMS + SLOTS
    assert execute(url, UNKNOWN) == [(SLOTS,)]


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param("stop", marks=pytest.mark.slow), "crash"])
async def test_a_server_that_starts_anew_again_and_again_costs_no_call(
    enqueued: Project, simulator: Simulator, server: Server, url: str, how: str
) -> None:
    enqueued.config("work: {lease_s: 60}\nparser: raw\n")  # who waits for a server is not dead
    simulator.hold()  # until both are there: who cannot begin ends at once
    workers = [await enqueued.start(*WORK) for _ in range(2)]
    await simulator.received(2 * SLOTS)
    simulator.release()
    for times in range(1, 4):
        await simulator.received(10 * times)
        await asyncio.to_thread(getattr(server, how))
        await asyncio.to_thread(server.start)
    for worker in workers:
        told = await ended(worker)
        assert was_done(told), told.err
    assert simulator.calls == ITEMS
    await is_whole(enqueued, url)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_a_crash_after_every_few_commits_leaves_whole_chains(
    project: Project, simulator: Simulator, server: Server, url: str, kind: Pipeline
) -> None:
    """Each time the tables are without contradiction, and in the end all is as if there had been
    none: what was not acknowledged is done again, and nothing is asked twice."""
    calm = await calm_run(kind, project.path / "calm", CHAINS)
    kind.set_up(project)
    project.pool(pool_of(CHAINS))
    enqueued = await project.batchgen("enqueue", "pool.jsonl", "--samples", str(kind.samples))
    assert enqueued.code == 0, enqueued.err
    wire = LossyWire(server.folder / f".s.PGSQL.{server.port}")
    counted = f"postgresql://worker@127.0.0.1:{wire.port}/work?sslmode=disable"
    worker = await project.start("--db", counted, *WORK)
    telling, crashes = asyncio.create_task(ended(worker)), 0
    while not telling.done():
        commits = wire.commits + EVERY
        while wire.commits < commits and not telling.done():
            await asyncio.sleep(0.005)
        await asyncio.to_thread(server.crash)
        await asyncio.to_thread(server.start)
        crashes += 1
        verified = await project.batchgen("verify")
        assert verified.code == 0, verified.out
    wire.close()
    told = await telling
    assert was_done(told), told.err
    print(f"{crashes} crashes, {wire.commits} commits")
    assert crashes > 2
    done = await project.batchgen("export")
    assert done.code == 0, done.err
    assert exported_text(project) == calm.export
    assert asked_again(asked(simulator), calm.calls) == 0
    assert contradictions_of(url, await project.batchgen("verify")) == []


@pytest.mark.slow
async def test_connections_ended_all_the_time_cost_no_call(
    enqueued: Project, simulator: Simulator, server: Server, url: str
) -> None:
    enqueued.config("work: {lease_s: 60}\nparser: raw\n")  # a busy machine is not dead
    simulator.hold()
    workers = [await enqueued.start(*WORK) for _ in range(2)]
    await simulator.received(2 * SLOTS)
    simulator.release()
    ended_connections = 0
    while any(worker.returncode is None for worker in workers):
        [(n,)] = server.execute(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = 'work'"
        )
        ended_connections += n
        await asyncio.sleep(0.1)
    for worker in workers:
        told = await ended(worker)
        assert was_done(told), told.err
    print(f"{ended_connections} connections ended")
    assert ended_connections
    assert simulator.calls == ITEMS
    await is_whole(enqueued, url)


@pytest.mark.slow
@pytest.mark.parametrize("processes", ["1", "2"])
@pytest.mark.parametrize("signum", [SIGINT, SIGTERM])
async def test_two_signals_end_a_worker_whose_server_stands_still(
    enqueued: Project,
    simulator: Simulator,
    server: Server,
    url: str,
    signum: Signals,
    processes: str,
) -> None:
    """Within seconds, and what it could not write it tells of."""
    simulator.hold()
    worker = await enqueued.start("work", "-c", str(SLOTS), "--processes", processes)
    await simulator.received(SLOTS)
    with server.standing_still():
        simulator.release()
        send(worker, signum)
        await said(worker, "stopping: ")
        send(worker, signum)
        async with asyncio.timeout(40):  # seconds, of a machine with other work
            told = await ended(worker)
    assert told.code == 1
    assert "no answer from the database, and no time to wait" in told.err
    assert "that could not be written" in told.err
    assert "Traceback" not in told.err
    await is_whole(enqueued, url)
    assert simulator.calls == ITEMS + SLOTS


@pytest.mark.slow
@pytest.mark.parametrize("command", ["enqueue", "export", "status", "retry"])
async def test_two_ctrl_c_end_a_command_whose_server_stands_still(
    enqueued: Project, server: Server, command: str
) -> None:
    """In the middle of what it does, or before it has begun."""
    given = ("enqueue", "-") if command == "enqueue" else (command,)
    with server.standing_still():
        process = await enqueued.start(*given, stdin=b"" if command == "enqueue" else None)
        await asyncio.sleep(1)  # it imports, and waits for a connection, or to have begun to
        async with asyncio.timeout(40):
            while process.returncode is None:
                send(process, SIGINT)
                await asyncio.sleep(1)
    told = await ended(process)
    assert told.code in (130, -2), told.err
    assert "Traceback" not in told.err


@pytest.mark.slow
async def test_commits_that_nobody_hears_of_are_neither_lost_nor_done_twice(
    enqueued: Project, simulator: Simulator, server: Server, url: str
) -> None:
    wire = LossyWire(server.folder / f".s.PGSQL.{server.port}", seed=7)
    wire.chance = 0.3
    lossy = f"postgresql://worker@127.0.0.1:{wire.port}/work?sslmode=disable"
    workers = [await enqueued.start("--db", lossy, *WORK) for _ in range(2)]
    for worker in workers:
        told = await ended(worker)
        assert was_done(told), told.err
    wire.close()
    print(f"{wire.swallowed} of {wire.commits} commits")
    assert wire.swallowed
    assert simulator.calls == ITEMS
    assert execute(url, UNKNOWN) == [(0,)]
    await is_whole(enqueued, url)


@pytest.mark.slow
@pytest.mark.parametrize("signum", [SIGKILL, SIGSTOP])
async def test_a_worker_that_is_gone_or_stands_still_is_taken_over_from(
    enqueued: Project, simulator: Simulator, url: str, signum: int
) -> None:
    """And what one that wakes up again has to tell is kept."""
    simulator.hold()
    first = await enqueued.start(*WORK)
    await simulator.received(SLOTS)
    send(first, signum)  # type: ignore[arg-type]
    second = await enqueued.start(*WORK)
    await simulator.received(2 * SLOTS)
    simulator.release()
    await until(url, UNKNOWN, SLOTS)
    send(first, SIGCONT)
    assert [await second.wait(), await first.wait()] == [0, -9 if signum == SIGKILL else 0]
    assert simulator.calls == ITEMS + SLOTS
    await is_whole(enqueued, url)
    late = 0 if signum == SIGKILL else SLOTS
    assert execute(url, ON_RECORD) == [(ITEMS + late,)]
    assert execute(url, UNKNOWN) == [(SLOTS - late,)]


@pytest.mark.slow
async def test_workers_without_a_connection_say_so_and_the_others_go_on(
    enqueued: Project, simulator: Simulator, server: Server, url: str
) -> None:
    """A connection a worker, no more."""
    server.execute("alter role worker connection limit 4")
    simulator.hold()
    able = [await enqueued.start("-q", "work", "-c", "1") for _ in range(4)]
    await simulator.received(4)
    too_many = await enqueued.process("work", "-c", "1")
    server.execute("alter role worker connection limit -1")
    assert too_many.code == 1
    assert "connection" in too_many.err
    assert "pgbouncer" in too_many.err
    assert "Traceback" not in too_many.err
    simulator.release()
    assert {await worker.wait() for worker in able} == {0}
    await is_whole(enqueued, url)


@pytest.mark.slow
async def test_a_snapshot_that_is_held_does_no_harm(
    enqueued: Project, simulator: Simulator, url: str
) -> None:
    with psycopg.connect(url) as other:
        other.execute("set transaction isolation level repeatable read")
        before = other.execute("select state, count(*) from work group by 1").fetchall()
        workers = [await enqueued.start(*WORK) for _ in range(2)]
        assert {await worker.wait() for worker in workers} == {0}
        assert other.execute("select state, count(*) from work group by 1").fetchall() == before
    assert simulator.calls == ITEMS
    await is_whole(enqueued, url)


async def test_a_pooler_in_transaction_mode_stands_between(
    project: Project, simulator: Simulator, server: Server, url: str
) -> None:
    """Four workers take turns at two connections, and no address says that one is there."""
    with pooler(server, connections=2) as pooled:
        project.env["BATCHGEN_DATABASE"] = pooled.url("work", "worker")
        done = await project.process("enqueue", "pool.jsonl")
        assert done.code == 0, done.err
        workers = [await project.start(*WORK) for _ in range(4)]
        for worker in workers:
            told = await ended(worker)
            assert was_done(told), told.err
        assert simulator.calls == ITEMS
        await is_whole(project, url)


@pytest.mark.slow
async def test_what_happens_to_a_pooler_and_behind_it_costs_calls_in_flight_at_most(
    project: Project, simulator: Simulator, server: Server, url: str
) -> None:
    """A worker is killed, the pooler is, and the server starts anew and crashes behind it."""
    project.config("work: {lease_s: 60}\nparser: raw\n")  # who waits for a server is not dead
    with pooler(server, connections=2) as pooled:
        project.env["BATCHGEN_DATABASE"] = pooled.url("work", "worker")
        workers = await at_work(project, simulator, 3)
        send(workers[0], SIGKILL)
        for times, happens in enumerate((pooled.kill, server.restart, server.crash), start=4):
            await simulator.received(times * SLOTS)
            await asyncio.to_thread(happens)
            if happens == pooled.kill:
                await asyncio.to_thread(pooled.start)
            if happens == server.crash:
                await asyncio.to_thread(server.start)
        for worker in workers[1:]:
            told = await ended(worker)
            assert was_done(told), told.err
        assert simulator.calls <= ITEMS + SLOTS
        await is_whole(project, url)


@pytest.mark.slow
@pytest.mark.parametrize("only", ["&target_session_attrs=read-write", ""])
async def test_a_standby_that_takes_over_has_all_that_was_committed(
    project: Project, simulator: Simulator, postgres_server: object, only: str
) -> None:
    """A synchronous one; the address names both, and the wait for the second is one for a server
    that is away."""
    del postgres_server
    with running() as primary, standby_of(primary) as standby:
        primary.execute("create database work encoding 'UTF8' template template0")
        hosts = f"host={primary.folder},{standby.folder}&port={primary.port},{standby.port}"
        project.env["BATCHGEN_DATABASE"] = f"postgresql://batchgen@/work?{hosts}{only}"
        workers = await at_work(project, simulator, 2)
        await simulator.received(ITEMS // 2)
        await asyncio.to_thread(primary.crash)
        for worker in workers:  # there is no server that takes writes
            await said(worker, "Trying again for")
        take_over(standby)
        for worker in workers:
            told = await ended(worker)
            assert was_done(told), told.err
        assert simulator.calls == ITEMS
        await is_whole(project, standby.url("work"))


async def test_a_budget_is_not_passed_by_workers_that_are_killed_and_cut_off(
    project: Project, simulator: Simulator, server: Server, url: str
) -> None:
    """Each call has its most reserved before it goes out, and one that is unknown has used it."""
    budget = 1600  # less than the pool takes
    project.config(f"work: {{lease_s: {LEASE_S}}}\nparser: raw\n", max_tokens=MOST_TOKENS)
    done = await project.process("enqueue", "pool.jsonl")
    assert done.code == 0, done.err
    command = ("-q", "work", "-c", str(SLOTS), "--max-tokens-total", str(budget))
    simulator.hold()
    workers = [await project.start(*command) for _ in range(3)]
    await simulator.received(SLOTS + 1)
    send(workers[0], SIGKILL)
    simulator.release()
    while any(worker.returncode is None for worker in workers[1:]):
        server.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = 'work'"
        )
        await asyncio.sleep(0.3)
    codes = [await worker.wait() for worker in workers]
    used = dict(execute(url, USED))
    spent = sum(calls * used.get(prompt, MOST_TOKENS + 10)
                for prompt, calls in simulator.ledger.items())  # fmt: skip
    print(f"{spent} tokens of {budget}, {simulator.calls} calls, exit codes {codes}")
    assert budget / 3 < spent <= budget
    assert codes[0] == -9
    assert 0 not in codes[1:]


@pytest.fixture
def net() -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(network())
        except NoMachinesError as exc:
            pytest.skip(str(exc))
        yield made


@pytest.fixture
async def model(net: Network) -> AsyncIterator[Simulator]:
    """Where machines find it."""
    made = Simulator(host=net.model)
    async with made.running():
        yield made


@pytest.mark.slow
async def test_a_machine_cut_off_for_longer_than_a_lease_tells_late_what_it_was_answered(
    net: Network, model: Simulator, tmp_path: Path, postgres_server: object
) -> None:
    del postgres_server
    with running({"listen_addresses": f"127.0.0.1,{net.database}"}) as server:
        server.execute(f"alter user batchgen password '{PASSWORD}'")
        server.execute("create database work encoding 'UTF8' template template0")
        url = f"postgresql://batchgen@{net.database}:{server.port}/work"
        env = {"BATCHGEN_DATABASE": url, "PGPASSWORD": PASSWORD}
        project = Project(tmp_path, model.base_url, env)
        project.config(f"work: {{lease_s: {LEASE_S}}}\nparser: raw\n")
        project.write("prompts/user_prompts/default.txt", "Say {word}\n")
        project.pool({"word": f"w{number}"} for number in range(ITEMS))
        done = await project.process("enqueue", "pool.jsonl")
        assert done.code == 0, done.err
        one, two = net.machine("one"), net.machine("two")
        model.hold()
        first = await one.start(project, *WORK)
        await model.received(SLOTS)
        one.cut()
        second = await two.start(project, *WORK)
        await model.received(2 * SLOTS, timeout_s=90)  # what the first had begun to write is ended
        model.release()
        await until(server.url("work"), UNKNOWN, SLOTS)
        assert await second.wait() == 0
        one.mend()
        told = await ended(first)
        assert told.code == 0, told.err
        assert model.calls == ITEMS + SLOTS
        await is_whole(project, server.url("work"))
        on_record = execute(server.url("work"), ON_RECORD)
        assert on_record == [(ITEMS + SLOTS,)]  # the late ones too
        for process in project.running:
            await process.communicate()
