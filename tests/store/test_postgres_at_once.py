"""Several processes at once at a database of PostgreSQL: what is done at the desk while workers
write, and what is read of it."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.items import Done, Fail, Item, Outcome, Reason
from batchgen.store import FileUse, LiveFileRecord, OtherRecipe, Store, open_store
from batchgen.store.postgres.connection import open_database
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import admin, files, queue
from tests.kits.engines import postgres_engine
from tests.kits.table import RECIPE, Table, answered, broken, claims, new_item, open_table


@pytest.fixture
def table(postgres: PostgresAddress) -> Iterator[Table]:
    with open_table(postgres) as opened:
        yield opened


async def work(postgres: PostgresAddress, number: int) -> None:
    """Until nothing is open; every third answer fails."""
    async with (
        open_store(postgres) as store,
        store.seat(slots=4, lease_s=60, max_crashes=3) as seat,
    ):
        outcomes: list[Outcome] = []
        while (got := await seat.exchange(outcomes, claims(4, (1,)))).items:
            outcomes = [
                Outcome(item, (broken(),), Fail(Reason.SERVER, "no"))
                if (item.id + number) % 3 == 0
                else Outcome(item, (answered(f"{number}"),), Done())
                for item in got.items
            ]


async def follow(postgres: PostgresAddress, ended: asyncio.Event) -> list[int]:
    """The results in the order in which a live file has them."""
    async with open_store(postgres) as store:
        after, seen = 0, list[int]()
        while True:
            is_last = ended.is_set()
            page = await store.files.live_page(1, after, 7, failed_too=True)
            assert page is not None
            seen += [row.result_seq for row in page.rows]
            is_end = after == page.result_seq
            after = page.result_seq
            if is_last and is_end:
                return seen


async def retry(store: Store) -> None:
    after = 0
    while page := await store.failed_page(1, None, None, after, 5):
        await store.reopen(page)
        after = page[-1].item_id


async def desk(postgres: PostgresAddress, tmp_path: Path) -> None:
    """What people do meanwhile."""
    async with open_store(postgres) as store:
        for n in range(6):
            name = f"e{n}"
            await store.rename_experiment(1, name)
            async with store.enqueueing(name, RECIPE, OtherRecipe.STOP) as into:
                for chunk in range(3):
                    rows = [new_item(f"{n} {chunk} {k}") for k in range(5)]
                    assert (await store.add_items(into, rows)).new == 5
            await retry(store)
            async with store.selecting(1, [1, 2, 3]):
                await store.files.record_export(1, tmp_path / "out.jsonl", n, "ab", n)
            async with store.enqueueing("other", RECIPE, OtherRecipe.STOP) as into:
                await store.add_items(into, [new_item("x", into.experiment_id)])
            await store.delete_experiment(into.experiment_id)


async def test_the_desk_and_workers_and_readers_at_once_agree(
    table: Table, postgres: PostgresAddress, tmp_path: Path
) -> None:
    table.enqueue(*range(60))
    ended = asyncio.Event()
    reading = [asyncio.create_task(follow(postgres, ended)) for _ in range(2)]
    async with asyncio.TaskGroup() as group:
        group.create_task(desk(postgres, tmp_path))
        for number in range(3):
            group.create_task(work(postgres, number))
    await work(postgres, 0)  # what was enqueued after the workers had left
    ended.set()
    async with open_store(postgres) as store:
        assert await store.verify() == []
    counts = table.counters()
    assert sum(counts.values()) == 60 + 6 * 15
    assert set(counts) <= {(1, "done", ""), (1, "failed", "server")}
    present = [seq for (seq,) in table.query("select result_seq from work order by result_seq")]
    for task in reading:
        seen = await task
        assert sorted(set(seen)) == seen  # none twice, and in their order
        assert set(present) <= set(seen)  # none is missing that is one's newest result


async def test_a_live_page_has_no_gap_where_an_earlier_result_comes_later(
    table: Table, postgres: PostgresAddress
) -> None:
    """One worker has the lower numbers and commits last."""
    table.enqueue("a", "b")
    slow, quick = table.join(), table.join()
    (one,) = table.claim(slow, 1)
    (two,) = table.claim(quick, 1)
    is_written, may_commit = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def end(db: Transaction, worker: int, item: Item, text: str) -> None:
        queue.exchange(db, worker, [Outcome(item, (answered(text),), Done())], claims(0), table.now)

    def dawdle(db: Transaction) -> None:
        end(db, slow, one, "1")
        loop.call_soon_threadsafe(is_written.set)
        may_commit.wait()

    async with (
        open_database(postgres, create=False) as first,
        open_database(postgres, create=False) as second,
        open_store(postgres) as reader,
    ):
        first.counts_for(slow)
        second.counts_for(quick)
        writing = asyncio.create_task(first.write_beside(dawdle))
        await is_written.wait()
        await second.write_beside(end, quick, two, "2")
        assert table.query("select item_id from work where state = 'done'") == [(two.id,)]
        reading = asyncio.create_task(reader.files.live_page(1, 0))
        while not waits_for_a_lock(table):
            await asyncio.sleep(0.001)
        may_commit.set()
        page = await reading
        await writing
        assert page is not None
        assert ([row.response for row in page.rows], page.result_seq) == (['"1"', '"2"'], 2)
        assert await reader.newest_result() == 2


def waits_for_a_lock(table: Table) -> bool:
    return bool(table.one("select exists (select 1 from pg_locks where not granted)"))


def test_a_path_is_one_of_its_machine(postgres: PostgresAddress, tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with (
        postgres_engine(postgres, machine="here") as here,
        postgres_engine(postgres, machine="there") as there,
    ):
        one, other = Table(here), Table(there)
        one.enqueue("a")
        record = LiveFileRecord(str(path), 1, 0, 0, 0, "0" * 64, 0)
        for each in (one, other):
            each.run(files._start_live_file, record)
            each.run(files._note_files, [path], FileUse.WRITTEN)
        moved = LiveFileRecord(str(path), 1, 1, 1, 9, "1" * 64, 0)
        assert one.run(files._move_live_file, moved)
        assert files._live_file(one.transaction, path) == moved
        assert files._live_file(other.transaction, path) == record
        # An export in its place ends that of its machine alone.
        one.run(admin.record_export, 1, path, 1, "ab", 1, one.now)
        assert files._live_files(one.transaction) == []
        assert files._live_files(other.transaction) == [record]
        assert [each.path for each in admin.exports(one.transaction)] == [str(path)]
        assert admin.exports(other.transaction) == []
        assert files._use_of_file(one.transaction, path) is FileUse.WRITTEN
        assert files._use_of_file(one.transaction, Path("/other")) is None
        other.run(files._forget_live_file, path)
        assert files._live_files(other.transaction) == []
        assert [each.path for each in admin.exports(one.transaction)] == [str(path)]
