"""A hundred workers on one server: each has one connection to it, and all of them get work."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from batchgen.database_address import PostgresAddress, address_of
from batchgen.jobs.work import WorkResult
from batchgen.simulate import Simulator
from batchgen.store import Store, open_store
from tests.kits.job import Job
from tests.kits.postgres import execute, running

pytestmark = pytest.mark.slow

WORKERS, SLOTS, ITEMS = 100, 2, 600
CONNECTIONS = (
    "select count(*) from pg_stat_activity where datname = current_database()"
    " and backend_type = 'client backend' and pid <> pg_backend_pid()"
)
AT_WORK = "select count(*), count(distinct worker_id) from work where state = 'running'"


@pytest.fixture
def address(postgres_server: object) -> Iterator[PostgresAddress]:
    """On a server that has ten connections more, some of which are its superusers'."""
    del postgres_server  # which knows whether there is any, and skips
    with running({"max_connections": str(WORKERS + 10)}) as made:
        made.execute("create database work encoding 'UTF8' template template0")
        yield address_of(made.url("work"))


@pytest.fixture
async def stores(address: PostgresAddress) -> AsyncIterator[list[Store]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_store(address, create=True))
            for _ in range(WORKERS)
        ]


async def test_a_hundred_workers_need_a_hundred_connections_and_all_of_them_get_work(
    address: PostgresAddress, stores: list[Store], simulator: Simulator, tmp_path: Path
) -> None:
    job = Job(tmp_path, simulator.base_url)
    await job.enqueue(stores[0], (f"w{n}" for n in range(ITEMS)))

    def begin(store: Store) -> asyncio.Task[WorkResult]:
        return asyncio.create_task(job.work(store, slots=SLOTS))

    working = [begin(stores[0])]  # until somebody was answered all have few calls
    await until(address, "select count(*) from proven_recipes where proven_until is null", (1,))
    simulator.hold()
    working += map(begin, stores[1:])
    await until(address, AT_WORK, (WORKERS * SLOTS, WORKERS))
    assert execute(address.url, CONNECTIONS) == [(WORKERS,)]
    simulator.release()
    results = await asyncio.gather(*working)
    assert {result.exit_code for result in results} == {0}
    assert job.log.bugs == []
    assert await stores[0].verify() == []
    counted = "select count(*), count(distinct item_id), count(distinct worker_id) from attempts"
    assert execute(address.url, counted) == [(ITEMS, ITEMS, WORKERS)]


async def until(address: PostgresAddress, sql: str, wanted: tuple[int, ...]) -> None:
    """Until it is so, seen from outside."""
    async with asyncio.timeout(240):
        while execute(address.url, sql) != [wanted]:
            await asyncio.sleep(0.05)
