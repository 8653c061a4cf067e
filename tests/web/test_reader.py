"""The thread that reads: answers in order, errors where they belong, and no waiting for its end."""

import asyncio
import threading
import time
from pathlib import Path

import pytest

from batchgen.errors import UsageError
from batchgen.store import ReadStore
from batchgen.web.reader import open_reader
from tests.kits.project import Project


async def named(store: ReadStore) -> list[str]:
    return [one.name for one in await store.experiments()]


async def fails(_: ReadStore) -> None:
    raise UsageError("none")


async def test_it_reads_in_a_thread_of_its_own_and_raises_what_a_job_raises(
    answered: Project,
) -> None:
    async def thread(_: ReadStore) -> int:
        return threading.get_ident()

    async with open_reader(answered.database, "reads") as reader:
        assert await reader.read(named) == ["default"]
        with pytest.raises(UsageError, match="none"):
            await reader.read(fails)
        ids = await asyncio.gather(reader.read(thread), reader.read(thread))
        assert len({*ids, threading.get_ident()}) == 2


async def test_its_mark_changes_with_what_others_write(answered: Project) -> None:
    async with open_reader(answered.database, "reads") as reader:
        before = await reader.read(lambda store: store.change_mark())
        assert await reader.read(named) == ["default"]
        if answered.server is None:  # a server may have done something of its own
            assert await reader.read(lambda store: store.change_mark()) == before
        answered.pool([{"word": "new"}])
        assert (await answered.batchgen("enqueue", "pool.jsonl")).code == 0
        assert await reader.read(lambda store: store.change_mark()) != before


async def test_one_that_is_cancelled_before_its_turn_is_not_run(answered: Project) -> None:
    go_on, ran = threading.Event(), []

    async def waits(_: ReadStore) -> bool:
        return go_on.wait(30)

    async def runs(_: ReadStore) -> None:
        ran.append(True)

    async with open_reader(answered.database, "reads") as reader:
        first = asyncio.create_task(reader.read(waits))
        second = asyncio.create_task(reader.read(runs))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        go_on.set()
        assert await first
    assert ran == []


async def test_its_end_does_not_wait_for_a_long_read(answered: Project) -> None:
    go_on = threading.Event()

    async def waits(_: ReadStore) -> bool:
        return go_on.wait(60)

    try:
        async with open_reader(answered.database, "reads") as reader:
            under_way = asyncio.create_task(reader.read(waits))
            await asyncio.sleep(0)
            began_at = time.monotonic()
        assert time.monotonic() - began_at < 30
        assert not under_way.done()
    finally:
        go_on.set()
    assert await under_way


async def test_without_a_database_it_does_not_open(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such database"):
        async with open_reader(tmp_path / "none.db", "reads"):
            pass
