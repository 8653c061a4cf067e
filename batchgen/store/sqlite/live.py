"""Live files: what is done in finishing order, and how far a file that holds it was written.

The sequence of `results` is that order: they are appended by one writer at a time, so none ever
appears before one that was read. A done result that stops being its item's is counted in
`experiments.superseded_results`, which tells that a file has lines out of date.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from batchgen.store.records import FileUse, LiveFileRecord, LivePage, ResultRow
from batchgen.store.sqlite.results import chars_of
from batchgen.store.sqlite.rows import bounded, row_of, rows_of
from batchgen.store.sqlite.sql import QUERIES


def live_page(
    db: sqlite3.Connection, experiment_id: int, after: int, limit: int, failed_too: bool = False
) -> LivePage | None:
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    found = db.execute(QUERIES["live_window"], which).fetchone()
    if found is None:
        return None
    superseded, results, newest = found
    if not results:
        return LivePage([], after, True, superseded)
    query = "ended_rows" if failed_too else "live_rows"
    ended = rows_of(db, query, ResultRow, {**which, "upto": newest})
    rows, is_all = bounded(ended, chars_of)
    if not is_all:
        return LivePage(rows, rows[-1].result_seq, False, superseded)
    return LivePage(rows, newest, results < limit, superseded)


def live_file(db: sqlite3.Connection, path: Path) -> LiveFileRecord | None:
    return row_of(db, "live_file", LiveFileRecord, {"path": str(path)})


def live_files(db: sqlite3.Connection) -> list[LiveFileRecord]:
    return list(rows_of(db, "live_files", LiveFileRecord))


def start_live_file(db: sqlite3.Connection, record: LiveFileRecord) -> None:
    """A file that was written from the start. An export that was at this place is one no more."""
    db.execute(QUERIES["forget_export"], {"path": record.path})
    db.execute(QUERIES["start_live_file"], asdict(record))


def forget_live_file(db: sqlite3.Connection, path: Path) -> None:
    db.execute(QUERIES["forget_live_file"], {"path": str(path)})


def move_live_file(db: sqlite3.Connection, record: LiveFileRecord) -> bool:
    return db.execute(QUERIES["move_live_file"], asdict(record)).rowcount == 1


def note_files(db: sqlite3.Connection, paths: Sequence[Path], use: FileUse) -> None:
    db.executemany(QUERIES["note_file"], [{"path": str(path), "use": use} for path in paths])


def use_of_file(db: sqlite3.Connection, path: Path) -> FileUse | None:
    found = db.execute(QUERIES["use_of_file"], {"path": str(path)}).fetchone()
    return found and FileUse(found[0])
