"""One database of PostgreSQL, opened by one process: one connection, on a thread of its own.

Every transaction is one plain function that runs on that thread from BEGIN to COMMIT. So a
cancelled task cannot leave a transaction open, and no other task's statement can slip into it.
Reads take the same connection: a server has a hundred of them, and a run may have as many workers.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from batchgen import clock
from batchgen.database_address import PostgresAddress
from batchgen.store.postgres.leases import ENQUEUEING, REPARSING, SENDING, Lease
from batchgen.store.postgres.members import Members
from batchgen.store.postgres.opening import open_connection
from batchgen.store.postgres.session import ALONE, BESIDE, SETTLED, SNAPSHOT, Mode, Session
from batchgen.store.postgres.thread import Thread
from batchgen.store.postgres.transaction import PostgresTransaction
from batchgen.store.transaction import Transaction

if TYPE_CHECKING:
    from batchgen.store.postgres.additions import Additions

SILENT_S = 20.0  # a server that is there, and does not answer for so long, is told of

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """Use `open_database`. `write` and `read` run one function as one transaction. A function may
    run more than once, when others or a lost connection have undone what it did."""

    is_served = True
    takes_turns = False

    def __init__(self, address: PostgresAddress, session: Session, own: dict[str, object],
                 thread: Thread) -> None:  # fmt: skip
        self.address = address
        self.name = address.name
        self.members = Members()
        self._session = session
        self._own = own
        self._thread = thread
        self._enqueueing = Lease(self, ENQUEUEING)
        self._sending = Lease(self, SENDING)
        self._say: Callable[[str], None] = lambda _: None
        self._is_silent = False

    @cached_property
    def additions(self) -> "Additions":
        from batchgen.store.postgres.additions import Additions  # here: workers add no items

        return Additions(self, self._enqueueing)

    def held_up_s(self) -> float:
        return self._session.held_up_s()

    @property
    def danger(self) -> str | None:
        """Nobody can do harm to it from beside."""
        return None

    def warnings(self) -> list[str]:
        """Words about settings with which a server loses what it has promised to keep."""
        return self._session.server.warnings(self.name)

    def owns(self, path: Path) -> bool:  # noqa: ARG002  as of every engine
        """Its files are the server's."""
        return False

    @asynccontextmanager
    async def only_enqueueing(
        self, patience_s: float, say: Callable[[str], None]
    ) -> AsyncIterator[None]:
        """One process at a time enqueues into a database; others wait for it. `say` gets why.
        Raises UsageError after `patience_s`."""
        from batchgen.store.turns import wait_to_enqueue  # here: workers add no items

        await wait_to_enqueue(self.name, self._enqueueing.holder, patience_s, say)
        async with self._enqueueing.kept():
            yield

    @asynccontextmanager
    async def only_parsing_again(self) -> AsyncIterator[bool]:
        """Whether no other process parses stored answers again, for as long as one is inside."""
        async with self._only(Lease(self, REPARSING)) as is_only:
            yield is_only

    @asynccontextmanager
    async def only_sending(self) -> AsyncIterator[bool]:
        """Whether no other process sends provider batches, for as long as one is inside."""
        async with self._only(self._sending) as is_only:
            yield is_only

    def check_sending(self, db: Transaction) -> None:
        """In a transaction: raises UsageError when another process has taken that over, as this one
        stood still."""
        self._sending.check(db)

    @asynccontextmanager
    async def _only(self, lease: Lease) -> AsyncIterator[bool]:
        if await lease.holder() is not None:
            yield False
            return
        async with lease.kept():
            yield True

    async def compare_clocks(self) -> None:
        """Times are those of the server's clock, which is looked at when a connection is made, and
        now once more: one of the two may have been set, or goes slowly."""
        await self._thread.run(self._session.compare_clocks)

    def counts_for(self, worker_id: int) -> None:
        """From now on what transactions count is counted by this worker; 0: by none."""
        self._own["this_worker"] = worker_id

    def wait_for_server(self, patience_s: float, say: Callable[[str], None]) -> None:
        """For how long a server that went away is waited for; `say` gets why, when it takes
        long, and is told when a server that is there does not answer."""
        loop = asyncio.get_running_loop()
        self._say = say
        self._session.patience_s, self._session.patience_from = patience_s, "work.patience_s"
        self._session.say_away = lambda words: _tell(loop, say, words)

    def hurry(self) -> None:
        """Nobody has time any more: a server that went away is not waited for, and one that stands
        still for a moment only."""
        self._thread.hurry()

    async def write(
        self,
        transaction: Callable[Concatenate[PostgresTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `transaction` while nobody else writes: all of it is durable on return, or none of it
        is there. A caller that is cancelled meanwhile gets its CancelledError after the commit."""
        return await self._run(ALONE, lambda db: transaction(db, *args, **kwargs))

    async def write_beside(
        self,
        transaction: Callable[Concatenate[PostgresTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `write`, but others of these may be under way, whose commits its statements see."""
        return await self._run(BESIDE, lambda db: transaction(db, *args, **kwargs))

    async def write_once(self, transaction: Callable[[PostgresTransaction], object]) -> None:
        """As `write_beside`, for what need not be: nobody is told what goes wrong, and a connection
        that was lost is not made again for it."""
        await self._thread.run(lambda: self._session.run_once(BESIDE, transaction))

    def write_soon(self, transaction: Callable[[PostgresTransaction], object]) -> None:
        """As `write_once`, on whatever thread one is, and nobody waits for it."""
        self._thread.call_soon(lambda: self._session.run_once(BESIDE, transaction))

    async def read(
        self,
        query: Callable[Concatenate[PostgresTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Run `query` on one snapshot. Keep it short: what is deleted meanwhile cannot be cleared
        up."""
        return await self._run(SNAPSHOT, lambda db: query(db, *args, **kwargs))

    async def settled(
        self,
        query: Callable[Concatenate[PostgresTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """As `read`, while nobody writes: no lower number can be committed later than one that it
        sees. Keep it very short."""
        return await self._run(SETTLED, lambda db: query(db, *args, **kwargs))

    async def close(self) -> None:
        await self._thread.close(self._session.close)

    async def _run(self, mode: Mode, transaction: Callable[[PostgresTransaction], T]) -> T:
        silence = asyncio.get_running_loop().call_later(SILENT_S, self._tell_of_silence)
        try:
            return await self._thread.run(lambda: self._session.run(mode, transaction))
        finally:
            silence.cancel()
            self._is_silent = False

    def _tell_of_silence(self) -> None:
        """Once, however many wait. Nobody ends the connection of a server that stands still (a
        machine that was suspended, a disk that hangs), as its network is there."""
        if not self._is_silent:
            self._is_silent = True
            self._say(f"{self.name}: no answer from the database for {SILENT_S:g} s. Waiting for "
                      "it; what the model answers meanwhile is kept in memory.")  # fmt: skip


@asynccontextmanager
async def open_database(address: PostgresAddress, *, create: bool) -> AsyncIterator[Database]:
    """Open, and migrate, the database. Raises UsageError when there are no tables of ours in it and
    not `create`."""
    own: dict[str, object] = {"this_worker": 0, "this_machine": os.uname().nodename}
    thread = Thread(address.name)
    made: list[Session] = []

    def open_session() -> Session:
        opened = open_connection(address, create=create, to_write=True, impatient=thread.impatient)
        session = Session(address, *opened, own)
        session.impatient, thread.cut = thread.impatient, session.cut
        made.append(session)
        return session

    def close_session() -> None:
        for session in made:  # of a caller that was cancelled while it waited for it
            session.close()

    with clock.following():
        try:
            session = await thread.run(open_session)
        except BaseException:
            await thread.close(close_session)
            raise
        database = Database(address, session, own, thread)
        try:
            yield database
        finally:
            await database.close()


def _tell(loop: asyncio.AbstractEventLoop, say: Callable[[str], None], words: str) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(say, words)
