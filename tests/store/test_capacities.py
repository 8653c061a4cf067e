"""How many calls at once a server takes, as the workers of a table share it, and those that begin
later know it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from batchgen.database_address import DatabaseAddress
from batchgen.limits import Share, Told
from batchgen.store import AskedServer, ClaimRequest, ServerWant, open_store
from batchgen.store.store import Store
from batchgen.store.transactions import queue
from batchgen.store.transactions.capacities import first_shares, tell
from batchgen.store.transactions.seat import Seat
from tests.kits.engines import SqliteEngine
from tests.kits.table import LEASE_MS, MACHINE, START, Table

A, B = AskedServer("a", "a.example"), AskedServer("b", "b.example")
DAY_MS = 24 * 3_600_000


@asynccontextmanager
async def seat(store: Store, *asked: AskedServer) -> AsyncIterator[Seat]:
    async with store.seat(20, 60.0, 5, asked, "run") as joined:
        yield joined


async def exchange(worker: Seat, takes: int | None, server: str = "a") -> Share | None:
    """What a worker is told that has found the server to take so many calls at once of it, all of
    which are under way."""
    want = ServerWant(server, told=Told(takes, takes or 0, 20))
    done = await worker.exchange([], ClaimRequest((want,)))
    return done.shares.get(server)


async def test_of_a_server_that_refuses_nobody_nothing_is_told(database: DatabaseAddress) -> None:
    async with open_store(database, create=True) as store, seat(store, A) as worker:
        assert await exchange(worker, None) is None
        assert await worker.orders(None, {"a": Told(None, 5, 20)}) == (worker.first_orders, {})


async def test_what_one_finds_is_everybodys(database: DatabaseAddress) -> None:
    async with (
        open_store(database, create=True) as store,
        seat(store, A, B) as first,
        seat(store, A) as second,
    ):
        assert second.first_shares == {}
        share = await exchange(first, 6)
        assert share is not None
        assert (share.calls, share.all_calls) == (3, 6)
        assert (await exchange(first, 6, "b")) is not None
        _, shares = await second.orders(None, {"a": Told(None, 0, 20)})
        assert shares["a"].calls == 0
        await exchange(first, 3)
        _, shares = await second.orders(None, {"a": Told(0, 0, 20)})
        assert shares["a"].calls == 3


async def test_who_joins_gets_what_the_others_do_not_hold(database: DatabaseAddress) -> None:
    async with open_store(database, create=True) as store, seat(store, A) as first:
        await exchange(first, 6)
        async with seat(store, A) as second:
            assert second.first_shares == {"a": 0}
            await exchange(first, 6)
            await exchange(first, 3)
            async with seat(store, A, B) as third:
                assert third.first_shares == {"a": 2}
                assert await exchange(second, 0) is not None


async def test_who_leaves_gives_back(database: DatabaseAddress) -> None:
    async with open_store(database, create=True) as store, seat(store, A) as first:
        await exchange(first, 6)
        async with seat(store, A) as second:
            await exchange(first, 6)
            await exchange(first, 3)
            share = await exchange(second, 0)
            assert share is not None
            assert share.calls == 3
        share = await exchange(first, 3)
        assert share is not None
        assert share.calls == 6


async def test_the_next_run_begins_with_what_all_of_the_last_one_found(
    database: DatabaseAddress,
) -> None:
    async with open_store(database, create=True) as store:
        async with seat(store, A) as first:
            await exchange(first, 6)
            await exchange(first, 10)
        async with seat(store, A) as later:
            assert later.first_shares == {"a": 10}


def join(table: Table, slots: int = 9) -> int:
    return table.run(queue.join, MACHINE, 1, slots, START, LEASE_MS, [A])


def test_the_dead_hold_nothing_once_they_are_found(table: Table) -> None:
    dead, alive = join(table), join(table)
    table.run(tell, dead, {"a": Told(4, 4, 9)}, START)
    assert table.run(tell, alive, {"a": Told(None, 0, 9)}, START)["a"].calls == 0
    table.take_over(dead)
    assert table.run(tell, alive, {"a": Told(0, 0, 9)}, START)["a"].calls == 4


def test_what_was_found_is_believed_for_a_day(table: Table) -> None:
    worker = join(table)
    table.run(tell, worker, {"a": Told(7, 7, 9)}, START)
    table.take_over(worker)
    for at, shares in ((START + DAY_MS - 1, {"a": 7}), (START + 2 * DAY_MS, {})):
        later = join(table)
        assert table.run(first_shares, later, 9, [A], [], at) == shares
        table.take_over(later)


def changes(table: Table) -> object:
    """Something else after each row that was written, whatever is in it."""
    if isinstance(table.engine, SqliteEngine):
        return table.db.total_changes
    return table.query("select ctid::text, server from shares order by server")


def test_nothing_is_written_where_nothing_has_changed(table: Table) -> None:
    worker = join(table)
    table.run(tell, worker, {"a": Told(4, 4, 9, served_ms=0)}, START)
    before = changes(table)
    for later_ms in (100, 900):
        table.run(tell, worker, {"a": Told(4, 3, 9, served_ms=0)}, START + later_ms)
    assert changes(table) == before
