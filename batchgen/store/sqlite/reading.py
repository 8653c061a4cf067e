"""A database as who only reads has it: one connection, on the caller's own thread.

Its `read` has the form of `Database.read`, so that whoever reads is written once, for both; but it
never waits, and needs no event loop, whose import alone takes as long as all that `status` does.
"""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from batchgen.store.sqlite.gate import Gate, Members
from batchgen.store.sqlite.opening import (
    CONNECTION,
    check_same_file,
    in_snapshot,
    opened,
    prepare_reader,
    prepare_writer,
    warnings_of_sqlite,
)
from batchgen.store.sqlite.place import NameLock
from batchgen.store.sqlite.problems import store_errors
from batchgen.store.sqlite.transaction import SqliteTransaction

P = ParamSpec("P")
T = TypeVar("T")


class ReadDatabase:
    """Use `open_to_read`."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.name = str(path)
        self.members = Members(path)
        self._connection = connection
        self._inode = path.stat().st_ino

    async def read(
        self,
        query: Callable[Concatenate[SqliteTransaction, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        with store_errors(self.path):
            check_same_file(self.path, self._inode)
            return in_snapshot(self._connection, query, *args, **kwargs)

    def warnings(self) -> list[str]:
        return warnings_of_sqlite()


@contextmanager
def open_to_read(path: Path) -> Iterator[ReadDatabase]:
    """Open, and migrate, the database. Raises UsageError when there is none."""
    with opened(path, create=False) as (place, gate, name):
        try:
            with store_errors(place):
                connection = _connect(place, gate, name)
        except BaseException:
            gate.abandon()
            raise
        try:
            yield ReadDatabase(place, connection)
        finally:
            with store_errors(place), gate.hold():  # the last one to close checkpoints
                connection.close()


def _connect(path: Path, gate: Gate, name: NameLock) -> sqlite3.Connection:
    """Made ready under the gate: opening may recover, migrate or checkpoint."""
    connection: sqlite3.Connection = sqlite3.connect(path, **CONNECTION)
    with ExitStack() as unless_ready:
        unless_ready.callback(connection.close)
        with gate.hold():
            prepare_writer(connection, path, name)
        prepare_reader(connection)
        unless_ready.pop_all()
    return connection
