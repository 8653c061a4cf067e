"""Two machines that would send the batches of one database: one of them does. When it is gone, or
was cut off for longer than its lease, the other one goes on with its batches; and when it comes
back, it does nothing that was done.

The machines are namespaces of Linux; see tests/kits/machines.py.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import pytest
import pytest_asyncio

from batchgen.database_address import address_of
from batchgen.store import open_store
from tests.kits.batch_jobs import FEW, MOST, Job, Line, calm_run, job_in
from tests.kits.machines import Machine, Network, NoMachinesError, network, signal_to
from tests.kits.postgres import Server, execute, running
from tests.kits.processes import Process
from tests.kits.project import ended
from tests.kits.typist import Ended

pytestmark = pytest.mark.slow

LEASE_S = 1.5
PASSWORD = "s3cret-of-a-test"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def calm(tmp_path_factory: pytest.TempPathFactory) -> list[Line]:
    return await calm_run(tmp_path_factory.mktemp("online"))


@pytest.fixture
def net() -> Iterator[Network]:
    with ExitStack() as stack:
        try:
            made = stack.enter_context(network())
        except NoMachinesError as exc:
            pytest.skip(str(exc))
        yield made


@pytest.fixture
def own_server(net: Network, postgres_server: object) -> Iterator[Server]:
    del postgres_server  # which knows whether there is any, and skips
    with running({"listen_addresses": f"127.0.0.1,{net.database}"}) as made:
        made.execute(f"alter user batchgen password '{PASSWORD}'")
        made.execute("create database work encoding 'UTF8' template template0")
        yield made


class Places:
    """A job whose senders are on two machines."""

    def __init__(self, job: Job, net: Network, server: Server) -> None:
        self.job = job
        self.one, self.two = net.machine("one"), net.machine("two")
        self._server = server

    async def begin(self, rows: int = FEW, **batch: Any) -> None:
        await self.job.begin(rows, f"parser: raw\nwork: {{lease_s: {LEASE_S}}}", **batch)

    async def sender(self, machine: Machine) -> Process:
        return await machine.start(self.job.project, *self.job.command)

    def lose(self, first: Process, how: str) -> None:
        """For a while: it is cut off the database, or suspended."""
        if how == "cut":
            self.one.cut()
        else:
            signal_to(first, SIGSTOP)

    def find(self, first: Process, how: str) -> None:
        if how == "cut":
            self.one.mend()
        else:
            signal_to(first, SIGCONT)

    async def assert_whole(self, calm: list[Line]) -> None:
        """When somebody has looked, after a lease, who is dead."""
        await self.leases_are_over()
        async with open_store(self.job.project.database) as store:
            await store.take_over_from_dead()
        await self.job.assert_whole(calm)

    async def leases_are_over(self) -> None:
        """That of the sender among the workers, and, for which nobody waits here, that by which it
        alone sends."""
        living = (
            "select count(*) = 0 from workers where kind = 'sender'"
            " and lease_until >= (extract(epoch from clock_timestamp()) * 1000)::bigint"
        )
        assert self.job.project.server is not None
        async with asyncio.timeout(60):
            while execute(self.job.project.server.url, living) != [(True,)]:
                await asyncio.sleep(0.05)
        self._server.execute("update leases set lease_until = 1", "work")


@pytest.fixture
async def places(net: Network, own_server: Server, tmp_path: Path) -> AsyncIterator[Places]:
    async with job_in(tmp_path, address_of(own_server.url("work")), net.model) as job:
        url = f"postgresql://batchgen@{net.database}:{own_server.port}/work"
        job.project.env |= {"BATCHGEN_DATABASE": url, "PGPASSWORD": PASSWORD}
        yield Places(job, net, own_server)


async def its_end(process: Process) -> Ended:
    async with asyncio.timeout(90):
        return await ended(process)


async def test_the_second_one_says_that_another_sends(places: Places, calm: list[Line]) -> None:
    job = places.job
    await places.begin()
    job.provider.hold()
    first = await places.sender(places.one)
    await job.provider.asked(2, "POST /batches")
    told = await its_end(await places.sender(places.two))
    assert told.code == 2
    assert "another process sends and collects the provider batches" in told.err
    job.provider.release()
    assert (await its_end(first)).code == 0
    await places.assert_whole(calm)


@pytest.mark.parametrize("route", ["POST /files", "POST /batches", "GET /files/ID/content"])
@pytest.mark.parametrize("how", ["kill", "power"])
async def test_when_the_first_is_gone_the_second_goes_on_with_its_batches(
    places: Places, calm: list[Line], route: str, how: str
) -> None:
    job = places.job
    await places.begin()
    job.provider.hold(route, times=1)
    first = await places.sender(places.one)
    await job.provider.asked(1, route)
    if how == "kill":
        signal_to(first, SIGKILL)
    else:
        places.one.lose_power()
    await places.leases_are_over()
    job.provider.release()
    told = await its_end(await places.sender(places.two))
    assert told.code == 0, told.err
    await places.assert_whole(calm)


@pytest.mark.parametrize("route", ["POST /files", "POST /batches", "GET /files/ID/content"])
@pytest.mark.parametrize("how", ["cut", "suspended"])
async def test_who_was_away_for_longer_than_its_lease_does_nothing_twice(
    places: Places, calm: list[Line], route: str, how: str
) -> None:
    job = places.job
    await places.begin()
    job.provider.hold(route, times=1)
    first = await places.sender(places.one)
    await job.provider.asked(1, route)
    places.lose(first, how)
    await places.leases_are_over()
    second = await places.sender(places.two)
    told = await its_end(second)
    assert told.code == 0, told.err
    job.provider.release()
    places.find(first, how)
    told = await its_end(first)
    assert told.code in (0, 2), told.err
    await places.assert_whole(calm)


@pytest.mark.parametrize("how", ["cut", "suspended"])
async def test_who_was_away_while_it_looked_for_a_batch_does_not_have_it_made_again(
    places: Places, calm: list[Line], how: str
) -> None:
    """It was about to, by what it was told before."""
    job = places.job
    job.faults = "dropped_create=1"
    await places.begin(MOST)
    job.provider.hold("GET /batches", times=1)
    first = await places.sender(places.one)
    for look in (1, 2):
        await job.provider.asked(look, "GET /batches")
        job.provider.release()
        job.provider.hold("GET /batches", times=1)
    await job.provider.asked(3, "GET /batches")
    places.lose(first, how)
    await places.leases_are_over()
    told = await its_end(await places.sender(places.two))
    assert told.code == 0, told.err
    asked = job.provider.times_asked("POST /batches")
    job.provider.release()
    places.find(first, how)
    told = await its_end(first)
    assert told.code == 2, told.err
    assert "has taken over sending" in told.err
    assert job.provider.times_asked("POST /batches") == asked == 2
    await places.assert_whole(calm)
