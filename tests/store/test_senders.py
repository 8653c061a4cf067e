"""Who sends provider batches: one process at a time, which may be killed at any moment, on any of
several machines."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from batchgen.database_address import DatabaseAddress, PostgresAddress
from batchgen.errors import UsageError
from batchgen.items import Done, Item, Outcome
from batchgen.store import (
    BatchState,
    OtherRecipe,
    ProviderBatch,
    Seat,
    Store,
    WorkerKind,
    claim_of,
    open_store,
)
from batchgen.store.postgres import leases
from batchgen.store.transactions import batches
from tests.kits.killed_sender import POINTS
from tests.kits.postgres import execute
from tests.kits.sending import in_batch, kept_answer, new_batch
from tests.kits.table import RECIPE, claims, new_item

ONLY_POSTGRES = pytest.mark.parametrize("engine", ["postgres"], indirect=True)


@pytest.fixture
async def store(database: DatabaseAddress) -> AsyncIterator[Store]:
    """With four rows; in the end it must be free of contradictions."""
    async with open_store(database, create=True) as opened:
        async with opened.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
            await opened.add_items(into, [new_item(one) for one in "abcd"])
        yield opened
        assert await opened.verify() == []


async def claimed(seat: Seat, n: int) -> list[Item]:
    return (await seat.exchange([], claims(n))).items


async def sealed(store: Store, seat: Seat, items: list[Item]) -> ProviderBatch:
    batch = await store.batches.seal(seat.id, new_batch(), [claim_of(one) for one in items])
    assert isinstance(batch, ProviderBatch)
    return batch


def url_of(database: DatabaseAddress) -> str:
    return str(database) if isinstance(database, Path) else database.url


async def test_a_batch_lives_on_when_its_sender_has_gone(store: Store) -> None:
    async with store.seat(4, 60.0, 3, kind=WorkerKind.SENDER) as seat:
        items = await claimed(seat, 4)
        batch = await sealed(store, seat, items[:3])
        (row,) = await store.workers()
        assert (row.id, row.kind, row.calls) == (seat.id, WorkerKind.SENDER, 0)
    assert await store.workers() == []
    async with store.seat(4, 60.0, 3) as worker:
        assert await worker.heartbeat()
        assert worker.live_workers == 1
        assert [item.id for item in await claimed(worker, 4)] == [4]
        await store.batches.created(
            batch.number, "batch_1", status="in_progress", created_at=None, expires_at=None
        )
        outcomes = [Outcome(item, (in_batch(),), Done()) for item in items[:2]]
        assert await store.batches.collect(batch.number, outcomes) == 2
    counts = await store.counts()
    assert (counts.done, counts.running, counts.pending) == (2, 1, 1)
    assert await store.batches.of_item(items[2].id) == await store.batches.batch(batch.number)
    assert [one.id for one in await store.batches.open_claims(batch.number, 0, 9)] == [3]
    assert not await store.batches.close(batch.number)
    assert await store.batches.release(batch.number, "was cancelled") == 1
    assert await store.batches.close(batch.number)
    assert await store.batches.unfinished() == []
    (closed,) = await store.batches.newest(5)
    assert (closed.state, closed.error) == (BatchState.CLOSED, "was cancelled")


async def test_one_process_at_a_time_sends(store: Store, database: DatabaseAddress) -> None:
    async with open_store(database) as other:
        async with store.sending() as first, other.sending() as second:
            assert (first, second) == (True, False)
        async with other.sending() as is_alone:
            assert is_alone


LEFT = {
    "claimed": ([], ["pending"] * 4, (0,)),
    "sealed": ([BatchState.CREATING], ["running"] * 2 + ["pending"] * 2, (0,)),
    "created": ([BatchState.OPEN], ["running"] * 2 + ["pending"] * 2, (0,)),
    "answered": ([BatchState.OPEN], ["running"] * 2 + ["pending"] * 2, (1,)),
    "giving up": ([BatchState.OPEN], ["running"] + ["pending"] * 3, (1, 2)),
    "closed": ([BatchState.CLOSED], ["pending"] * 4, (2,)),
}


@pytest.mark.quick("sqlite", "postgres-sealed", "postgres-answered")
@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_any_moment_it_leaves_what_the_next_one_goes_on_with(
    store: Store, database: DatabaseAddress, point: str
) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kits.killed_sender", url_of(database), point,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert await process.wait() == -signal.SIGKILL
    states, rows, attempts = LEFT[point]
    async with store.sending() as is_alone:
        assert is_alone
        await store.take_over_from_dead()
        assert await store.verify() == []
        assert [one.state for one in await store.batches.newest(9)] == states
        found = [await store.item(n) for n in (1, 2, 3, 4)]
        assert sorted(one.state for one in found if one) == sorted(rows)
        made = [len(await store.attempts_of(n)) for n in (1, 2, 3, 4)]
        assert sum(made[:2]) in attempts
        assert made[2:] == [0, 0]
        for batch in await store.batches.unfinished():
            await store.batches.abandon(batch.number)
        async with store.seat(4, 60.0, 3) as worker:
            again = await claimed(worker, 4)
            answers = [one.id for one in again if one.answer_text is not None]
            assert answers == ([1] if point in POINTS[3:] else [])


async def test_giving_up_very_many_takes_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "_AT_ONCE", 2)
    async with store.seat(4, 60.0, 3, kind=WorkerKind.SENDER) as seat:
        batch = await sealed(store, seat, await claimed(seat, 4))
    assert await store.batches.abandon(batch.number) == 4
    assert await store.batches.abandon(batch.number) == 0
    counts = await store.counts()
    assert (counts.pending, counts.unknown_calls) == (4, 4)


async def test_two_that_read_the_same_lines_write_them_once(
    store: Store, database: DatabaseAddress
) -> None:
    """As where the one before stood still, and goes on."""
    async with store.seat(4, 60.0, 3, kind=WorkerKind.SENDER) as seat:
        items = await claimed(seat, 4)
        batch = await sealed(store, seat, items)
        async with open_store(database) as other, other.seat(1, 60.0, 3):
            written = await asyncio.gather(*[
                one.batches.collect(batch.number, outcomes)
                for outcomes in ([kept_answer(item)] for item in items)
                for one in (store, other)
            ])  # fmt: skip
            assert sum(written) == 4
            done = [Outcome(one, (), Done()) for one in await store.batches.claims(1, [1, 2, 3, 4])]
            ended = await asyncio.gather(
                store.batches.collect(1, done), other.batches.collect(1, done),
                other.batches.abandon(1), store.batches.close(1),
            )  # fmt: skip
            assert sum(ended[:3]) == 4
    assert [len(await store.attempts_of(n)) for n in (1, 2, 3, 4)] == [1] * 4
    assert await store.batches.close(1)
    counts = await store.counts()
    assert (counts.done, counts.pending, counts.calls) in [(4, 0, 4), (0, 4, 4)]


@ONLY_POSTGRES
async def test_who_stood_still_seals_nothing_when_another_sends(
    store: Store, database: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEW_S", 3600.0)
    async with open_store(database) as other, store.seat(4, 60.0, 3) as seat:
        items = await claimed(seat, 1)
        stopped = AsyncExitStack()
        assert await stopped.enter_async_context(store.sending())
        execute(database.url, "update leases set lease_until = 1")
        async with other.sending() as is_alone:
            assert is_alone
            with pytest.raises(UsageError, match="taken over sending"):
                await sealed(store, seat, items)
            assert await store.batches.newest(1) == []
            await stopped.aclose()


@ONLY_POSTGRES
async def test_who_stood_still_writes_nothing_of_a_batch_that_another_has_by_now(
    store: Store, database: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would give rows back that the provider is asked about, or have the batch made again."""
    monkeypatch.setattr(leases, "_RENEW_S", 3600.0)
    async with open_store(database) as other, store.seat(4, 60.0, 3) as seat:
        stopped = AsyncExitStack()
        assert await stopped.enter_async_context(store.sending())
        items = await claimed(seat, 2)
        batch = await sealed(store, seat, items)
        execute(database.url, "update leases set lease_until = 1")
        async with other.sending() as is_alone:
            assert is_alone
            said: dict[str, Any] = {"status": "s", "answered": 0, "failed": 0}
            times, files = {"created_at": 1, "expires_at": 1}, {"output_file": "", "error_file": ""}
            group, number = store.batches, batch.number
            for write in (
                group.mark_absent(number), group.created(number, "b", status="s", **times),
                group.note(number, expires_at=1, **said), group.end(number, **said | files),
                group.collect(number, [kept_answer(items[0])]), group.close(number),
                group.release(number, "was refused"),
            ):  # fmt: skip
                with pytest.raises(UsageError, match="taken over sending"):
                    await write
            assert await store.batches.batch(number) == batch
            await stopped.aclose()
            await other.batches.release(number, "was refused")
