"""Workers at a database of PostgreSQL: their places in it, and who takes over from whom."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from batchgen import clock
from batchgen.clock import now_ms
from batchgen.database_address import PostgresAddress
from batchgen.items import Done, Item, Outcome
from batchgen.store import ClaimRequest, Seat, open_store
from batchgen.store.postgres.connection import open_database
from batchgen.store.postgres.processes import has_ended, this_machine
from batchgen.store.postgres.transaction import PostgresTransaction
from tests.kits.postgres import execute
from tests.kits.table import Table, answered, claims, open_table


@pytest.fixture
def table(postgres: PostgresAddress) -> Iterator[Table]:
    with open_table(postgres) as opened:
        opened.now = now_ms()
        yield opened


async def claim(seat: Seat, n: int) -> list[Item]:
    return (await seat.exchange([], claims(n))).items


def done(item: Item) -> Outcome:
    return Outcome(item, (answered(),), Done())


NOTHING: ClaimRequest = claims(0)


async def test_a_worker_comes_works_and_goes(table: Table, postgres: PostgresAddress) -> None:
    table.enqueue(*"abcd")
    async with open_store(postgres) as store:
        async with store.seat(slots=3, lease_s=60, max_crashes=3) as seat:
            one, two, three = await claim(seat, 3)
            exchanged = await seat.exchange([done(one), done(two)], claims(1))
            assert [item.id for item in exchanged.items] == [4]
            assert await seat.begin_second_calls([three], {}) == {3}
            assert await seat.heartbeat()
            (row,) = await store.workers()
            assert (row.id, row.calls, row.alive) == (seat.id, 3, True)
        counts = await store.counts()
        assert (counts.done, counts.pending, counts.running) == (2, 2, 0)
        assert await store.workers() == []
    assert [item.id for item in (three, exchanged.items[0])] == [3, 4]


async def test_what_it_counts_stands_in_its_own_rows_and_is_nobodys_when_it_is_gone(
    table: Table, postgres: PostgresAddress
) -> None:
    table.enqueue(*"abcd")
    before = table.counters()
    async with (
        open_store(postgres) as store,
        store.seat(slots=3, lease_s=60, max_crashes=3) as seat,
    ):
        one, two, _ = await claim(seat, 3)
        failing = Outcome(two, (answered(),), Done())
        await seat.exchange([done(one), failing], NOTHING)
        own = "select state, n from counters_by_worker where worker_id = ? and n <> 0"
        assert sorted(table.query(own, seat.id)) == [("done", 2), ("pending", -3), ("running", 1)]
        assert table.one("select calls from totals_by_worker where worker_id = ?", seat.id) == 2
    assert before == {(1, "pending", ""): 4}
    for counters in (
        "counters", "parser_counters", "step_counters", "totals", "failed_calls", "minutes"
    ):  # fmt: skip
        assert table.query(f"select 1 from {counters}_by_worker where worker_id <> 0") == []
    assert table.one("select calls from totals") == 2
    assert table.counters() == {(1, "pending", ""): 2, (1, "done", ""): 2}


async def test_whose_process_has_ended_on_this_machine_is_dead_at_once(
    table: Table, postgres: PostgresAddress, ended_process: "subprocess.Popen[bytes]"
) -> None:
    table.enqueue(*"ab")
    process = ended_process
    gone = table.join(2)
    table.claim(gone, 2)
    seen = "update workers set boot_id = ?, pid = ?, lease_until = ? where id = ? returning id"
    table.query(seen, this_machine()[1], process.pid, now_ms() + 60_000, gone)
    async with open_store(postgres) as store:
        (row,) = await store.workers()
        assert not row.alive
        async with store.seat(slots=2, lease_s=60, max_crashes=3) as seat:
            assert [(item.id, item.epoch) for item in await claim(seat, 2)] == [(1, 3), (2, 3)]
    process.wait()
    assert has_ended(this_machine()[1], process.pid)
    assert not has_ended("another machine", process.pid)
    assert table.attempts(1) == [(gone, 1, "unknown", None)]


async def test_a_worker_elsewhere_is_dead_when_its_lease_is_over(
    table: Table, postgres: PostgresAddress
) -> None:
    table.enqueue("a")
    other = table.join(1)
    (item,) = table.claim(other, 1)
    async with (
        open_store(postgres) as store,
        store.seat(slots=1, lease_s=60, max_crashes=3) as seat,
    ):
        assert await claim(seat, 1) == []
        lease = "update workers set lease_until = ? where id = ? returning id"
        table.query(lease, now_ms() - 1, other)
        seat._leases_count_at_s = 0.0  # long enough ago that it came
        assert await seat.heartbeat()
        assert seat.live_workers == 1
        (again,) = await claim(seat, 1)
        assert (again.id, again.epoch) == (item.id, item.epoch + 2)
        late = table.finish(other, item, Done(), answered("late"))
        assert late.expelled


_END_ALL_BUT = (
    "select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name like "
    "'batchgen %' and datname = current_database() and pid <> {}"
)


async def test_while_a_server_was_away_nobody_could_renew_a_lease(
    table: Table, postgres: PostgresAddress
) -> None:
    other = table.join(1)
    async with (
        open_store(postgres) as store,
        store.seat(slots=1, lease_s=60, max_crashes=3) as seat,
    ):
        table.query("update workers set lease_until = 1 where id = ? returning id", other)
        seat._leases_count_at_s = 0.0
        execute(postgres.url, _END_ALL_BUT.format(table.one("select pg_backend_pid()")))
        assert await seat.heartbeat()  # with a new connection
        assert seat.live_workers == 2
        seat._leases_count_at_s = 0.0
        assert await seat.heartbeat()
        assert seat.live_workers == 1


async def test_who_waits_to_be_alone_takes_nobody_for_dead_who_waits_behind_it(
    table: Table, postgres: PostgresAddress
) -> None:
    """Somebody is slow with a transaction, and meanwhile the leases of all run out."""
    gone = table.join(1)
    begun, may_end = threading.Event(), threading.Event()

    def be_slow(db: PostgresTransaction) -> None:
        db.newest("items")
        begun.set()
        assert may_end.wait(60)

    async def wait_until(condition: str) -> None:
        while not table.one(f"select {condition}"):
            await asyncio.sleep(0.01)

    async with (
        open_store(postgres) as store,
        open_store(postgres) as other_store,
        open_database(postgres, create=False) as slow,
        store.seat(slots=1, lease_s=1, max_crashes=3) as seat,
        other_store.seat(slots=1, lease_s=1, max_crashes=3) as other,
    ):
        table.query("update workers set lease_until = 1 where id = ? returning id", gone)
        seat._leases_count_at_s = 0.0
        slowly = asyncio.create_task(slow.write_beside(be_slow))
        await asyncio.to_thread(begun.wait)
        beats = [asyncio.create_task(seat.heartbeat())]
        await wait_until("count(*) = 1 from pg_locks where not granted")
        beats.append(asyncio.create_task(other.heartbeat()))
        await wait_until("count(*) = 2 from pg_locks where not granted")
        now = "extract(epoch from clock_timestamp()) * 1000"
        await wait_until(f"bool_and(lease_until < {now}) from workers")
        may_end.set()
        await slowly
        assert await asyncio.gather(*beats) == [True, True]
        assert {row.id for row in await store.workers()} >= {seat.id, other.id}


async def test_leases_go_by_the_clock_of_the_server(
    table: Table, postgres: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = time.time_ns
    async with (
        open_store(postgres) as store,
        store.seat(slots=1, lease_s=30, max_crashes=3) as seat,
    ):
        # Somebody sets this machine's clock forward by an hour: nobody is dead for it.
        monkeypatch.setattr(time, "time_ns", lambda: real() + 3600 * 10**9)
        assert await seat.heartbeat()
        until = table.one("select lease_until from workers")
        assert abs(until - 30_000 - server_ms(postgres)) < 10_000
        assert abs(now_ms() - server_ms(postgres)) < 10_000
        (row,) = await store.workers()
        assert row.alive
        monkeypatch.undo()


def server_ms(postgres: PostgresAddress) -> int:
    text = "select (extract(epoch from clock_timestamp()) * 1000)::bigint"
    ((now,),) = execute(postgres.url, text)
    return int(now)


async def test_the_clock_of_a_server_is_followed_until_the_last_has_closed_it(
    postgres: PostgresAddress,
) -> None:
    async with open_store(postgres):
        async with open_store(postgres):
            ahead = clock.own_ms() + 5000
            clock.follow(ahead, clock.own_ms(), clock.own_ms())
        assert now_ms() - clock.own_ms() > 4000
        async with open_store(postgres):  # looks at it again
            assert abs(now_ms() - server_ms(postgres)) < 1000
        clock.follow(ahead, clock.own_ms(), clock.own_ms())
    assert abs(now_ms() - clock.own_ms()) < 100
