"""A move that is killed at an exact point: `python -m tests.kits.killed_move FROM TO POINT`."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from batchgen.database_address import from_text
from batchgen.store import move_tables
from batchgen.store.postgres.moving import PostgresTarget
from batchgen.store.sqlite.moving import SqliteTarget

POINTS = ("copying", "proving", "between the commits", "at the end")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _dies(commit: Callable[[Any], None], *, before: bool) -> Callable[[Any], None]:
    def end(self: Any) -> None:
        if not before:
            commit(self)
        die()

    return end


def main(source: str, target: str, point: str) -> None:
    kind: Any = PostgresTarget if target.startswith("postgres") else SqliteTarget
    if point in POINTS[2:]:
        kind.commit = _dies(kind.commit, before=point == POINTS[2])

    def tell(table: str, _: int) -> None:
        if (point == "copying" and table == "results") or (point == "proving" and not table):
            die()

    move_tables(from_text(source), from_text(target), tell)


if __name__ == "__main__":
    main(*sys.argv[1:])
