"""Limits on PostgreSQL: workers take calls ahead, and no exchange waits for another's. How many may
go out is in tests/unit/test_calls_ahead.py."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.items import Done, Outcome
from batchgen.limits import Limits, ahead
from batchgen.limits.ahead import LONGEST_MS
from batchgen.store import (
    ClaimRequest,
    Seat,
    ServerWant,
    Store,
    Trial,
    open_store,
)
from batchgen.store.postgres.connection import open_database
from batchgen.store.postgres.transaction import PostgresTransaction
from batchgen.store.transactions.shared_rates import read_shared_rate
from tests.kits.postgres import execute
from tests.kits.table import MAX_CRASHES, SERVER, Table, answered, open_table

KNOWN = Trial(proven=frozenset({1}), watches=False)
IN_HAND = "select coalesce(sum(calls), 0)::bigint from calls_ahead"


@pytest.fixture
def table(postgres: PostgresAddress) -> Iterator[Table]:
    with open_table(postgres) as opened:
        yield opened


@pytest.fixture
async def crew(postgres: PostgresAddress, table: Table) -> AsyncIterator[list[Seat]]:
    """Workers, each with a connection of its own."""
    table.enqueue(*range(2000))
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(postgres)) for _ in range(6)]
        yield [await seat_in(stack, store) for store in stores]


async def seat_in(stack: AsyncExitStack, store: Store) -> Seat:
    return await stack.enter_async_context(store.seat(20, 60, max_crashes=MAX_CRASHES))


def want(calls: int, limits: Limits) -> ClaimRequest:
    return ClaimRequest((ServerWant(SERVER, calls, limits, trial=KNOWN),), (1,))


@pytest.mark.parametrize("rpm", [12, 3000])
async def test_workers_beside_each_other_never_pass_the_limit(crew: list[Seat], rpm: int) -> None:
    """However fast they are: by the time that has passed, with what a bucket holds when it is full
    and what may be in hand."""
    per_s = (rpm + 1) / 61.5
    most_at_once = max(1.0, 0.5 * per_s) + max(1.0, 0.4 * per_s)
    limits, sent, began = Limits(rpm), 0, time.monotonic()

    async def work(seat: Seat) -> None:
        nonlocal sent
        for _ in range(25):
            items = (await seat.exchange([], want(4, limits))).items
            sent += len(items)
            assert sent <= most_at_once + per_s * (time.monotonic() - began)
            done = [Outcome(item, (answered(),), Done()) for item in items]
            await seat.exchange(done, want(0, limits))

    await asyncio.gather(*map(work, crew))
    assert sent >= 1


async def test_who_has_calls_in_hand_waits_for_nobody_who_has_the_limits(
    crew: list[Seat], postgres: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "LONGEST_MS", 60_000)  # on a machine however slow
    limits, seat = Limits(10**9), crew[0]
    for _ in range(2):
        await seat.exchange([], want(5, limits))
    begun, may_end = threading.Event(), threading.Event()

    def hold(db: PostgresTransaction) -> None:
        db.lock("rates", [SERVER])
        db.newest("items")  # so it has come to that
        begun.set()
        assert may_end.wait(30)

    async with open_database(postgres, create=False) as other:
        holding = asyncio.create_task(other.write_beside(hold))
        await asyncio.to_thread(begun.wait)
        async with asyncio.timeout(20):
            assert len((await seat.exchange([], want(2, limits))).items) == 2
        may_end.set()
        await holding


async def test_what_there_was_nothing_to_claim_for_goes_back_at_once(
    crew: list[Seat], postgres: PostgresAddress
) -> None:
    limits = Limits(12)
    first, second, *_ = crew
    nothing = ClaimRequest((ServerWant(SERVER, 1, limits, trial=KNOWN),), (9,))
    assert (await first.exchange([], nothing)).items == []
    assert execute(postgres.url, IN_HAND) == [(0,)]
    assert len((await second.exchange([], want(1, limits))).items) == 1


async def test_a_worker_that_dies_with_calls_in_hand_loses_these_and_no_more(
    crew: list[Seat], postgres: PostgresAddress, table: Table
) -> None:
    limits = Limits(60_000)
    first, second, *_ = crew
    for _ in range(5):
        await first.exchange([], want(10, limits))
    ((in_hand,),) = execute(postgres.url, "select calls from calls_ahead")
    before = read_shared_rate(table.transaction, SERVER)
    table.take_over(first.id)
    assert execute(postgres.url, "select * from calls_ahead") == []
    left = read_shared_rate(table.transaction, SERVER)
    assert left.requests == before.requests  # which were taken from it before
    assert in_hand <= 60_000 / 60 * 0.4
    assert (await first.exchange([], want(10, limits))).expelled
    assert execute(postgres.url, "select worker_id from calls_ahead") == []
    assert (await second.exchange([], want(10, limits))).items


async def test_what_a_call_used_is_settled_by_who_made_it(
    crew: list[Seat], postgres: PostgresAddress, table: Table
) -> None:
    first, *_ = crew
    limits = Limits(tpm=60_000)
    (item,) = (await first.exchange([], want(1, limits))).items
    before = read_shared_rate(table.transaction, SERVER).tokens
    await asyncio.sleep(LONGEST_MS / 1000)  # it is about the time that passes
    done = Outcome(item, (answered(),), Done())  # 10 in, 20 out
    await first.exchange([done], want(0, limits))
    after = read_shared_rate(table.transaction, SERVER).tokens
    assert after == pytest.approx(before + item.reserved_tokens - 30)
