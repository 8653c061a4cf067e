"""A connection that is lost costs nothing that was acknowledged, and does nothing twice."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator

import pytest

from batchgen.database_address import PostgresAddress, address_of
from batchgen.errors import Remedy, StoreAwayError
from batchgen.store.postgres import connection, session, thread
from batchgen.store.postgres.connection import open_database
from batchgen.store.postgres.transaction import PostgresTransaction
from tests.kits.postgres import Server, execute, running
from tests.kits.wire import Cut, Wire, wire_to


@pytest.fixture
def wire(postgres: PostgresAddress) -> Iterator[Wire]:
    with wire_to(postgres) as made:
        yield made


class Writer:
    """Adds a recipe, and counts how often it was run."""

    def __init__(self, digest: bytes = b"d" * 32) -> None:
        self.runs = 0
        self.digest = digest

    def __call__(self, db: PostgresTransaction) -> int:
        self.runs += 1
        row = {"digest": self.digest, "body": "{}", "now": self.runs}
        return int(db.execute("add_recipe", row).fetchone()[0])

    def without_waiting(self, db: PostgresTransaction) -> None:
        """For any answer."""
        self.runs += 1
        db.execute("add_recipe", {"digest": b"d" * 32, "body": "{}", "now": self.runs})


@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize(
    ("cut", "runs"),
    [(Cut.AFTER_COMMIT, 1), (Cut.BEFORE_COMMIT, 2), (Cut.SERVER_UNAWARE, 2)],
)
@pytest.mark.parametrize("alone", [True, False])
async def test_of_a_commit_nobody_heard_it_is_found_out(
    wire: Wire, postgres: PostgresAddress, cut: Cut, runs: int, waits: bool, alone: bool
) -> None:
    writer = Writer()
    async with open_database(wire.address, create=False) as database:
        wire.cut = cut
        write = database.write if alone else database.write_beside
        given = await write(writer if waits else writer.without_waiting)
    assert (wire.cuts, writer.runs) == (1, runs)
    found = execute(postgres.url, "select id, created_at from recipes")
    assert found == [(given if waits else found[0][0], runs)]


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as made:
        made.execute("create database work encoding 'UTF8' template template0")
        yield made


class CrashedWriter(Writer):
    """Its first run ends with a crash of the server, which then gives the number of the transaction
    to another one."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server

    def __call__(self, db: PostgresTransaction) -> int:
        added = super().__call__(db)
        if self.runs == 1:
            row = db.pipeline.send(b"select pg_current_xact_id()::text::bigint").fetchone()
            assert row is not None
            self.server.crash()
            self.server.start()
            number = 0
            while number < row[0]:
                text = "select pg_current_xact_id()::text::bigint"
                [(number,)] = self.server.execute(text, "work")
            assert number == row[0]
        return added


async def test_a_number_that_is_given_out_again_after_a_crash_is_not_one_s_own() -> None:
    """The server's, of a transaction of which nothing had come to the disk."""
    with running({"wal_writer_delay": "10s"}) as server:
        server.execute("create database work encoding 'UTF8' template template0")
        async with open_database(address_of(server.url("work")), create=True) as database:
            writer = CrashedWriter(server)
            added = await database.write(writer)
        assert writer.runs == 2
        assert server.execute("select id from recipes", "work") == [(added,)]
        assert server.execute("select count(*) from commits", "work") == [(0,)]


async def test_a_server_that_starts_anew_or_crashes_is_waited_for(server: Server) -> None:
    writer = Writer()
    async with open_database(address_of(server.url("work")), create=True) as database:
        server.restart()
        first = await database.write(writer)
        server.crash()
        starting = asyncio.create_task(asyncio.to_thread(server.start))
        assert await database.read(lambda db: db.execute("recipe", {"recipe_id": first}).fetchone())
        await starting
    assert server.execute("select count(*) from recipes", "work") == [(1,)]


@pytest.mark.slow
async def test_who_waits_for_a_server_is_told_and_may_give_up(server: Server) -> None:
    said: list[str] = []
    address = address_of(server.url("work"))
    async with open_database(address, create=True) as database:
        database.wait_for_server(3.0, said.append)
        server.stop()
        with pytest.raises(StoreAwayError, match="no PostgreSQL listens on this socket"):
            await database.write(Writer())
        assert len(said) == 1
        assert said[0].endswith("Trying again for 3 s.")
        server.start()
        assert await database.write(Writer())  # it is not given up for ever


@pytest.mark.slow
async def test_of_a_server_that_was_there_the_port_is_not_doubted(server: Server) -> None:
    server.execute("create role by_tcp superuser login password 'abcd'")
    address = address_of(server.url("work", tcp=True, user="by_tcp", password="abcd"))
    async with open_database(address, create=True) as database:
        database.wait_for_server(0.1, lambda _: None)
        server.stop()
        with pytest.raises(StoreAwayError) as caught:
            await database.write(Writer())
    assert caught.value.remedy is Remedy.RUN_AGAIN
    assert str(caught.value).endswith(
        ": nobody listens there any more: does PostgreSQL still run? Gave up after 0.1 s "
        "(work.patience_s). See that it runs again."
    )


@pytest.mark.slow
async def test_a_replica_that_has_not_taken_over_yet_is_waited_for(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As whoever comes back sooner than a standby is made the primary."""
    monkeypatch.setattr(session, "_DIAL_AGAIN_S", (1.01, 1.01))  # so that it is told at once
    said: asyncio.Queue[str] = asyncio.Queue()
    async with open_database(address_of(server.url("work")), create=True) as database:
        database.wait_for_server(600.0, said.put_nowait)
        await database.write(Writer())
        server.execute("alter database work set default_transaction_read_only = on")
        server.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity"
                       " where application_name like 'batchgen %'")  # fmt: skip
        waiting = asyncio.create_task(database.write(Writer(b"5" * 32)))
        assert "takes no writes any more: it is a replica" in await said.get()
        server.execute("alter database work set default_transaction_read_only = off")
        assert await waiting


@pytest.mark.slow
async def test_a_server_that_stands_still_is_told_of_once_each_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its network is there, so that nothing ends the connection."""

    def of_nothing(db: PostgresTransaction) -> object:
        return db.execute("recipe", {"recipe_id": 0}).fetchone()

    monkeypatch.setattr(connection, "SILENT_S", 0.1)
    said: asyncio.Queue[str] = asyncio.Queue()
    address = address_of(server.url("work"))
    async with open_database(address, create=True) as database:
        database.wait_for_server(600.0, said.put_nowait)
        await database.write(Writer())
        ((backend,),) = server.execute(
            "select pid from pg_stat_activity where application_name like 'batchgen %'", "work"
        )
        for _ in range(2):
            os.kill(backend, signal.SIGSTOP)
            waiting = [asyncio.create_task(database.read(of_nothing)) for _ in range(3)]
            assert "no answer from the database for 0.1 s. Waiting for it" in await said.get()
            os.kill(backend, signal.SIGCONT)
            await asyncio.gather(*waiting)
            assert said.empty()


@pytest.mark.slow
async def test_who_is_cancelled_waits_for_no_server(server: Server) -> None:
    async with open_database(address_of(server.url("work")), create=True) as database:
        database.wait_for_server(600.0, lambda _: None)
        server.stop()
        waiting = asyncio.create_task(database.write(Writer()))
        await asyncio.sleep(0)
        waiting.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert time.monotonic() - began < 60


@pytest.fixture
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thread, "HURRIED_S", 0.1)


@pytest.mark.usefixtures("in_no_time")
async def test_who_is_cancelled_does_not_wait_for_a_server_that_stands_still(
    server: Server,
) -> None:
    address = address_of(f"{server.url('work')}&connect_timeout=2")
    async with open_database(address, create=True) as database:
        database.wait_for_server(600.0, lambda _: None)
        await database.write(Writer())
        with server.standing_still():
            waiting = asyncio.create_task(database.write(Writer(b"1" * 32)))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await database.write(Writer(b"3" * 32))


@pytest.mark.quick("settled")
@pytest.mark.usefixtures("in_no_time")
@pytest.mark.parametrize("ask", ["write", "settled", "compare_clocks"])
async def test_who_was_told_to_stop_at_once_does_not_either(server: Server, ask: str) -> None:
    """Whatever it waits for by then, and whatever it asks for afterwards."""

    def of_nothing(db: PostgresTransaction) -> object:
        return db.execute("recipe", {"recipe_id": 0}).fetchone()

    async with open_database(address_of(server.url("work")), create=True) as database:
        database.wait_for_server(600.0, lambda _: None)
        asked = getattr(database, ask), () if ask == "compare_clocks" else (of_nothing,)
        with server.standing_still():
            waiting = asyncio.create_task(asked[0](*asked[1]))
            await asyncio.sleep(0)
            database.hurry()
            if ask != "compare_clocks":  # where the connection is lost, the next one does it
                with pytest.raises(StoreAwayError, match="no time to wait"):
                    await waiting
            await asyncio.wait([waiting])
            with pytest.raises(StoreAwayError, match="no time to wait"):
                await database.write(Writer(b"1" * 32))


@pytest.mark.slow
async def test_who_has_no_time_is_answered_by_a_server_that_is_there(server: Server) -> None:
    async with open_database(address_of(server.url("work")), create=True) as database:
        database.hurry()
        number = await database.write(Writer(b"4" * 32))
        assert server.execute(f"select count(*) from recipes where id = {number}", "work") == [(1,)]


@pytest.mark.usefixtures("in_no_time")
async def test_a_server_that_stands_still_keeps_nobody_from_closing(server: Server) -> None:
    async with open_database(address_of(server.url("work")), create=True):
        still = server.standing_still()
        still.__enter__()
    still.__exit__(None, None, None)
