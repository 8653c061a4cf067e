"""How many calls at once a server takes, as workers that begin later know it from those before."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from pathlib import Path

import pytest

from batchgen.store import AskedServer, ClaimRequest, open_store
from batchgen.store.store import Store
from batchgen.store.transactions.capacities import fair_shares, note_capacities
from batchgen.store.transactions.seat import Seat
from batchgen.worker.report import ServerReport, WorkerReport
from tests.kits.table import START, Table, new_database

A, B = AskedServer("a", "a.example"), AskedServer("b", "b.example")
DAY_MS = 24 * 3_600_000


def report(**takes: int | None) -> str:
    """What a worker reports that has found these servers to take so many calls at once of it."""
    servers = [ServerReport(key, key, takes=calls) for key, calls in takes.items()]
    return WorkerReport(servers=tuple(servers)).to_json()


@asynccontextmanager
async def seat(store: Store, *asked: AskedServer) -> AsyncIterator[Seat]:
    async with store.seat(20, 60.0, 5, asked, "run") as joined:
        yield joined


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


async def test_who_joins_gets_a_fair_share_of_what_the_others_found(path: Path) -> None:
    async with open_store(path, create=True) as store, seat(store, A, B) as first:
        assert first.fair_shares == {}
        await first.exchange([], ClaimRequest(), report(a=6, b=None))
        async with seat(store, A) as second:
            assert second.fair_shares == {"a": 3}
            await second.exchange([], ClaimRequest(), report(a=4))
            async with seat(store, A, B) as third:
                assert third.fair_shares == {"a": 4}


async def test_the_next_run_begins_with_what_all_of_the_last_one_found(path: Path) -> None:
    async with open_store(path, create=True) as store:
        async with seat(store, A) as first, seat(store, A) as second:
            await first.orders(report(a=6))
            await second.orders(report(a=4))
        async with seat(store, A) as later:
            assert later.fair_shares == {"a": 10}


@contextmanager
def table_of(path: Path) -> Iterator[Table]:
    with closing(new_database(path)) as db:
        yield Table(db)


def test_what_was_found_is_believed_for_a_day(path: Path) -> None:
    with table_of(path) as table:
        table.query("insert into servers (key, name) values ('a', '')")
        table.query(
            "insert into workers (host, boot_id, pid, slots, started_at, lease_until, report)"
            " values ('h', 'b', 1, 9, 0, 0, ?)",
            report(a=7),
        )
        note_capacities(table.transaction, report(a=7), START)
        assert fair_shares(table.transaction, [A], [], START + DAY_MS - 1) == {"a": 7}
        assert fair_shares(table.transaction, [A], [], START + DAY_MS) == {}


def test_a_report_of_nothing_found_changes_nothing(path: Path) -> None:
    with table_of(path) as table:
        table.query("insert into servers values (1, 'a', '', 7, 0)")
        note_capacities(table.transaction, report(a=None), START)
        assert table.query("select calls_at_once, found_at from servers") == [(7, 0)]
