"""What one process at a time may do in a database of PostgreSQL: enqueue, and parse again."""

import asyncio
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.errors import StoreRefusedError, UsageError
from batchgen.store import Added, OtherRecipe, open_store
from batchgen.store.postgres import leases
from batchgen.store.postgres.connection import open_database
from batchgen.store.postgres.processes import this_machine
from tests.kits.table import RECIPE, Table, new_item, open_table

ELSEWHERE = "update leases set host = 'far', boot_id = 'another', pid = 17, lease_until = ?"
HOUR_MS = 3_600_000


@pytest.fixture
def table(postgres: PostgresAddress) -> Iterator[Table]:
    with open_table(postgres) as opened:
        yield opened


def server_ms(table: Table) -> int:
    return int(table.one("select (extract(epoch from clock_timestamp()) * 1000)::bigint"))


def left_ms(table: Table) -> int:
    return int(table.one("select lease_until from leases")) - server_ms(table)


async def test_two_processes_enqueue_one_after_the_other(postgres: PostgresAddress) -> None:
    async with open_store(postgres) as one, open_store(postgres) as other:
        waits = asyncio.Event()

        async def second() -> Added:
            opened = other.enqueueing("f", RECIPE, OtherRecipe.STOP, say=lambda _: waits.set())
            async with opened as into:
                return await other.add_items(into, [new_item("b", into.experiment_id)])

        async with one.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
            waiting = asyncio.create_task(second())
            await waits.wait()
            assert await one.add_items(into, [new_item("a")]) == Added([1], 1)
            assert not waiting.done()
        assert await waiting == Added([2], 1)


async def test_the_holder_here_is_named_with_its_machine(postgres: PostgresAddress) -> None:
    here = rf"\(pid {os.getpid()} on {re.escape(os.uname().nodename)}\)"
    async with (
        open_store(postgres) as one,
        open_store(postgres) as other,
        one.enqueueing("e", RECIPE, OtherRecipe.STOP),
    ):
        with pytest.raises(UsageError, match=here):
            async with other.enqueueing("e", RECIPE, OtherRecipe.STOP, patience_s=0):
                pass


async def test_the_holder_elsewhere_is_named_with_its_machine(
    table: Table, postgres: PostgresAddress
) -> None:
    async with open_store(postgres) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP):
            pass
        table.query(ELSEWHERE, server_ms(table) + HOUR_MS)
        with pytest.raises(UsageError) as caught:
            async with store.enqueueing("e", RECIPE, OtherRecipe.STOP, patience_s=0):
                pass
        assert str(caught.value) == (
            f"{store.name}: another batchgen is enqueueing into it (pid 17 on far), for more than "
            "0 s. Wait until it is done."
        )
        table.query(ELSEWHERE, server_ms(table) - 1)
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP, patience_s=0) as into:
            assert into.first == 1


async def test_of_a_process_that_was_killed_on_this_machine_it_is_taken_at_once(
    table: Table, postgres: PostgresAddress, ended_process: "subprocess.Popen[bytes]"
) -> None:
    async with open_store(postgres) as store:
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP):
            pass
        held = "update leases set boot_id = ?, pid = ?, lease_until = ?"
        table.query(held, this_machine()[1], ended_process.pid, server_ms(table) + HOUR_MS)
        async with store.enqueueing("e", RECIPE, OtherRecipe.STOP, patience_s=0):
            pass


async def test_who_stood_still_is_refused_when_another_has_taken_over(
    table: Table, postgres: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEW_S", 3600.0)
    pool = [new_item(each) for each in "aab"]
    async with open_store(postgres) as one, open_store(postgres) as other:
        stopped = AsyncExitStack()
        into = await stopped.enter_async_context(one.enqueueing("e", RECIPE, OtherRecipe.STOP))
        assert (await one.add_items(into, pool[:1])).ids == [1]
        table.query("update leases set lease_until = 1")
        async with other.enqueueing("e", RECIPE, OtherRecipe.STOP) as taken:
            assert (await other.add_items(taken, pool)).new == 2
            with pytest.raises(UsageError, match="taken over enqueueing") as caught:
                await one.add_items(into, pool[1:])
            assert await stopped.__aexit__(UsageError, caught.value, None) is False
            # What it gave back was no longer its own.
            assert left_ms(table) > 0
        assert await other.verify() == []
    assert table.inputs() == ["a", "a", "b"]


async def test_a_lease_that_ran_out_and_that_nobody_took_is_still_ones_own(
    table: Table, postgres: PostgresAddress
) -> None:
    async with (
        open_store(postgres) as store,
        store.enqueueing("e", RECIPE, OtherRecipe.STOP) as into,
    ):
        table.query("update leases set lease_until = 1")
        assert (await store.add_items(into, [new_item("a")])).ids == [1]
        assert left_ms(table) > 20_000


async def test_it_is_renewed_while_a_pool_is_read_slowly(
    table: Table, postgres: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_RENEW_S", 0.001)
    async with (
        open_store(postgres) as store,
        store.enqueueing("e", RECIPE, OtherRecipe.STOP),
    ):
        table.query("update leases set lease_until = 1")
        while left_ms(table) < 0:
            await asyncio.sleep(0.001)
    assert table.one("select lease_until from leases") == 0


async def test_an_experiment_that_is_deleted_meanwhile_gets_no_rows(
    table: Table, postgres: PostgresAddress
) -> None:
    async with open_store(postgres) as one, open_store(postgres) as other:
        async with one.enqueueing("e", RECIPE, OtherRecipe.STOP) as into:
            await one.add_items(into, [new_item("a")])
            await other.delete_experiment(1)
            with pytest.raises(StoreRefusedError, match="deleted while a pool was enqueued"):
                await one.add_items(into, [new_item("b")])
        assert await one.verify() == []
    assert table.one("select count(*) from items") == 0


async def test_one_at_a_time_parses_again(postgres: PostgresAddress) -> None:
    async with (
        open_database(postgres, create=False) as one,
        open_database(postgres, create=False) as other,
    ):
        async with one.only_parsing_again() as is_only:
            async with other.only_parsing_again() as is_second:
                assert (is_only, is_second) == (True, False)
            async with one.only_enqueueing(0, lambda _: None):  # that is another thing
                pass
        async with other.only_parsing_again() as is_only:
            assert is_only
