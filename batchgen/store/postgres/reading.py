"""A database as who only reads has it: one connection, on the caller's own thread.

Its `read` has the form of `Database.read`, so that whoever reads is written once, for both; but it
never waits for others, and needs no event loop.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Concatenate, ParamSpec, TypeVar

from batchgen import clock
from batchgen.database_address import PostgresAddress
from batchgen.store.postgres.members import Members
from batchgen.store.postgres.opening import open_connection
from batchgen.store.postgres.session import SNAPSHOT, Session
from batchgen.store.postgres.transaction import PostgresTransaction

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE_S = 5.0  # somebody looks at it


class ReadDatabase:
    """Use `open_to_read`."""

    def __init__(self, address: PostgresAddress, session: Session) -> None:
        self.address = address
        self.name = address.name
        self.members = Members()
        self._session = session

    async def read(
        self,
        query: Callable[Concatenate[PostgresTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return self._session.run(SNAPSHOT, lambda db: query(db, *args, **kwargs))

    def warnings(self) -> list[str]:
        return self._session.server.warnings(self.name)


@contextmanager
def open_to_read(address: PostgresAddress) -> Iterator[ReadDatabase]:
    """Open, and migrate, the database; a replica is read as it is. Raises UsageError when there are
    no tables of ours in it."""
    own = {"this_worker": 0, "this_machine": os.uname().nodename}
    with clock.following(), ExitStack() as until_closed:
        connection, server = open_connection(
            address, create=False, to_write=False, impatient=threading.Event()
        )
        session = Session(address, connection, server, own)
        until_closed.callback(session.close)
        session.patience_s = _PATIENCE_S
        yield ReadDatabase(address, session)
