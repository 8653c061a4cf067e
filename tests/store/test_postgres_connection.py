"""Transactions on PostgreSQL: whole or not at all, alone or beside each other, whatever happens to
the connection."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest

from batchgen.database_address import PostgresAddress, address_of
from batchgen.errors import StoreAwayError, StoreBusyError, StoreRefusedError
from batchgen.store.postgres import opening, session
from batchgen.store.postgres.connection import Database, open_database
from batchgen.store.postgres.locks import MIGRATING, lock_key
from batchgen.store.postgres.moving import open_source
from batchgen.store.postgres.thread import Thread
from batchgen.store.postgres.transaction import PostgresTransaction
from tests.kits.postgres import Cluster, execute


@pytest.fixture
async def database(postgres: PostgresAddress) -> AsyncIterator[Database]:
    async with open_database(postgres, create=False) as opened:
        yield opened


def add_recipe(db: PostgresTransaction, digest: bytes = b"d" * 32, body: str = "{}") -> int:
    rows = db.execute("add_recipe", {"digest": digest, "body": body, "now": 1})
    return int(rows.fetchone()[0])


def recipe(db: PostgresTransaction, number: int) -> Any:
    return db.execute("recipe", {"recipe_id": number}).fetchone()


def backend(db: PostgresTransaction) -> int:
    return db.pipeline.connection.info.backend_pid


async def test_what_was_written_is_there_for_others(database: Database) -> None:
    number = await database.write(add_recipe)
    async with open_database(database.address, create=False) as other:
        assert await other.read(recipe, number) == ("{}",)


async def test_who_is_cancelled_as_it_opens_leaves_no_connection_open(
    postgres: PostgresAddress,
) -> None:
    """One that is dropped and not closed warns, which is an error here."""

    async def opened() -> None:
        async with open_database(postgres, create=False):
            pass

    begun = asyncio.create_task(opened())
    await asyncio.sleep(0)
    begun.cancel()
    with pytest.raises(asyncio.CancelledError):
        await begun


async def test_the_last_of_a_thread_that_was_left_alone_comes_when_it_can() -> None:
    """What it does is to close the connection."""
    thread = Thread("a server that stands still")
    stands, goes_on, closed = threading.Event(), threading.Event(), threading.Event()

    def stand() -> None:
        stands.set()
        goes_on.wait()

    waits = asyncio.create_task(thread.run(stand))
    await asyncio.to_thread(stands.wait)
    waits.cancel()
    for _ in range(9):  # until it waits for what is under way
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as by a second Ctrl-C
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waits
    await thread.close(closed.set)
    assert not closed.is_set()
    goes_on.set()
    assert await asyncio.to_thread(closed.wait, 30)


async def test_a_transaction_that_raises_leaves_nothing(database: Database) -> None:
    def fail(db: PostgresTransaction) -> None:
        add_recipe(db)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.write(fail)
    assert execute(database.address.url, "select count(*) from recipes") == [(0,)]
    assert await database.write(add_recipe)  # and the connection is still of use


async def test_what_the_schema_refuses_is_told_and_leaves_nothing(database: Database) -> None:
    with pytest.raises(StoreRefusedError, match="invalid input syntax for type json"):
        await database.write(add_recipe, body="{")  # nobody waits for this statement's answer
    with pytest.raises(StoreRefusedError, match="recipes_digest_check"):
        await database.write_beside(add_recipe, digest=b"short")
    assert execute(database.address.url, "select count(*) from recipes") == [(0,)]


async def test_a_write_whose_connection_is_killed_is_done_again_once(database: Database) -> None:
    pids = []

    def killed_once(db: PostgresTransaction) -> int:
        pids.append(backend(db))
        number = add_recipe(db)
        if len(pids) == 1:
            execute(database.address.url, f"select pg_terminate_backend({pids[0]}, 5000)")
        return number

    number = await database.write(killed_once)
    assert len(set(pids)) == 2
    assert execute(database.address.url, "select id from recipes") == [(number,)]


async def test_writes_wait_for_each_other_and_beside_ones_do_not(database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hold(db: PostgresTransaction) -> None:
        add_recipe(db)
        begun.set()
        assert may_end.wait(30)

    async with open_database(database.address, create=False) as other:
        holding = asyncio.create_task(database.write_beside(hold))
        await asyncio.to_thread(begun.wait)
        await other.write_beside(add_recipe, digest=b"b" * 32)
        alone = asyncio.create_task(other.write(add_recipe, digest=b"a" * 32))
        waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
        while execute(database.address.url, waiting) == [(0,)]:
            await asyncio.sleep(0.01)
        assert not alone.done()
        may_end.set()
        await holding
        await alone


async def test_a_settled_read_waits_for_what_is_under_way(database: Database) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def hold(db: PostgresTransaction) -> int:
        number = db.first_new("results")
        begun.set()
        assert may_end.wait(30)
        return number

    async with open_database(database.address, create=False) as other:
        holding = asyncio.create_task(database.write_beside(hold))
        await asyncio.to_thread(begun.wait)
        looking = asyncio.create_task(other.settled(lambda db: db.newest("results")))
        done, _ = await asyncio.wait([looking], timeout=0.5)  # longer than it may keep the others
        assert not done
        may_end.set()
        assert await looking == await holding


async def test_a_read_sees_one_snapshot(database: Database) -> None:
    def look(db: PostgresTransaction) -> list[Any]:
        before = recipe(db, 1)
        execute(
            database.address.url,
            "insert into recipes (digest, body, created_at)"
            " values (decode(repeat('00', 32), 'hex'), '{}', 1)",
        )
        return [before, recipe(db, 1)]

    assert await database.read(look) == [None, None]
    assert await database.read(recipe, 1) == ("{}",)


async def test_numbers_are_blocks_that_follow_each_other(database: Database) -> None:
    def take(db: PostgresTransaction) -> list[int]:
        return [
            db.newest("items"), db.first_new("items", 3), db.first_new("items"),
            db.first_new("items", 0), db.newest("items"), db.newest("results"),
        ]  # fmt: skip

    assert await database.write_beside(take) == [0, 1, 4, 0, 4, 0]


async def test_blocks_of_many_at_once_do_not_overlap(
    postgres_server: Cluster, database: Database
) -> None:
    def take(db: PostgresTransaction) -> list[range]:
        return [range(first := db.first_new("results", n), first + n) for n in range(1, 40)]

    async with open_database(database.address, create=False) as other:
        both = await asyncio.gather(database.write_beside(take), other.write_beside(take))
    taken = [number for blocks in both for block in blocks for number in block]
    assert sorted(taken) == list(range(1, len(taken) + 1))


async def test_who_keeps_the_database_locked_is_named(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "_BUSY_S", 0.0)
    begun, may_end = threading.Event(), threading.Event()

    def hold(db: PostgresTransaction) -> int:
        db.newest("items")  # so the lock before it is held
        begun.set()
        assert may_end.wait(30)
        return backend(db)

    async with open_database(database.address, create=False) as other:
        await other.read(lambda db: db.pipeline.send(b"set lock_timeout = '100ms'"))
        holding = asyncio.create_task(database.write(hold))
        await asyncio.to_thread(begun.wait)
        with pytest.raises(StoreBusyError) as caught:
            await other.write(add_recipe)
        may_end.set()
        pid = await holding
        assert "another process has kept the database locked for too long (batchgen " in str(
            caught.value
        )
        assert f", pid {pid}, " in str(caught.value)
        assert await other.write(add_recipe)


@pytest.mark.parametrize(
    ("prepares", "unread"),
    [("", 0), ("&prepare=no", 0), pytest.param("", 20_000, marks=pytest.mark.slow)],
)
async def test_who_stops_in_the_middle_of_a_transaction_is_ended_by_who_waits(
    postgres: PostgresAddress, monkeypatch: pytest.MonkeyPatch, prepares: str, unread: int
) -> None:
    """As a machine that lost its power, also before it had read what it was told. It does again
    what it did, when it goes on."""
    monkeypatch.setattr(session, "STOPPED", "300ms")
    for name in ("_SET_SESSION", "SET_LOCAL"):
        monkeypatch.setattr(opening, name, getattr(opening, name).replace("'15s'", "'100ms'"))
    monkeypatch.setattr(session, "SET_LOCAL", opening.SET_LOCAL)
    begun, may_go_on = threading.Event(), threading.Event()

    def stop(db: PostgresTransaction) -> int:
        number = add_recipe(db, digest=b"s" * 32)
        db.pipeline.send(f"select repeat('x', 1000) from generate_series(1, {unread})".encode())
        db.pipeline.connection.pgconn.flush()
        begun.set()
        assert may_go_on.wait(60)
        return number

    address = address_of(f"{postgres.url}{prepares}")
    async with (
        open_database(address, create=False) as one,
        open_database(address, create=False) as other,
    ):
        stopped = asyncio.create_task(one.write_beside(stop))
        await asyncio.to_thread(begun.wait)
        number = await other.write(add_recipe)
        may_go_on.set()
        assert await other.read(recipe, number) == ("{}",)
        assert await other.read(recipe, await stopped) == ("{}",)


async def test_a_move_that_is_silent_for_long_is_no_process_that_stopped(
    postgres: PostgresAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fills a table, or proves what it has moved. Who waits for it says so in the end."""
    monkeypatch.setattr(session, "STOPPED", "300ms")
    monkeypatch.setattr(session, "_BUSY_S", 1.0)
    for name in ("_SET_SESSION", "SET_LOCAL"):
        monkeypatch.setattr(opening, name, getattr(opening, name).replace("'15s'", "'100ms'"))
    async with open_database(postgres, create=False) as database:
        with open_source(postgres) as source:
            with pytest.raises(StoreBusyError, match=r"kept the database locked .*\(batchgen "):
                await database.write(add_recipe)
            assert source.count("items") == 0
        assert await database.write(add_recipe)


async def test_who_waits_for_tables_that_another_process_makes_is_told_whom_it_waits_for(
    postgres_server: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when that one was stopped in the middle."""
    monkeypatch.setattr(
        opening, "_SET_SESSION", opening._SET_SESSION.replace("'15s'", "'100ms'", 2)
    )
    monkeypatch.setattr(opening, "_OPENING_S", 0.0)
    empty = postgres_server.new_database("template0")
    with psycopg.connect(empty.url, application_name="a maker") as maker:
        key = lock_key("public", MIGRATING)
        maker.execute("select pg_advisory_xact_lock(%s::int, %s::int)", key)
        with pytest.raises(StoreAwayError, match=r"another process makes its tables, .*a maker"):
            async with open_database(empty, create=True):
                pass
        maker.rollback()
        async with open_database(empty, create=True) as database:
            assert await database.write(add_recipe)
    postgres_server.drop(empty)


async def test_the_server_sees_by_itself_that_a_machine_is_gone(
    postgres_server: Cluster, postgres: PostgresAddress
) -> None:
    """Not after two hours, as it does by its own settings."""

    def settings(db: PostgresTransaction) -> list[Any]:
        text = "select setting from pg_settings where name ~ '^tcp_' order by name"
        return [row[0] for row in db.pipeline.send(text.encode())]

    by_tcp = postgres_server.asking_for_a_password(postgres, "secret")
    async with open_database(by_tcp, create=False) as database:
        assert await database.read(settings) == ["3", "10", "5", "25000"]


def settings_of(db: PostgresTransaction) -> list[Any]:
    names = "('enable_seqscan', 'idle_in_transaction_session_timeout', 'plan_cache_mode')"
    text = f"select setting from pg_settings where name in {names} order by name"
    return [row[0] for row in db.pipeline.send(text.encode())]


@pytest.mark.parametrize("more", ["", "&prepare=no"])
async def test_our_settings_hold_in_every_transaction(postgres: PostgresAddress, more: str) -> None:
    """Behind a pooler a session is another's before and after."""
    async with open_database(address_of(f"{postgres.url}{more}"), create=False) as database:
        for run in (database.read, database.write, database.write_beside, database.settled):
            assert await run(settings_of) == ["off", "15000", "force_generic_plan"]


async def test_statements_that_are_gone_from_the_session_are_prepared_no_more(
    database: Database,
) -> None:
    number = await database.write(add_recipe)

    def deallocate(db: PostgresTransaction) -> None:
        """Unseen by the driver, as what a pooler does."""
        text = b"do $$ begin execute 'deallocate all'; end $$"
        db.pipeline.send(text)

    await database.read(recipe, number)
    await database.read(deallocate)
    for _ in range(3):
        assert await database.read(recipe, number) == ("{}",)
    assert await database.write(add_recipe, digest=b"e" * 32) == number + 1
