"""What the store knows of files: live files, exports, and whose a file is.

A live file holds what is done in finishing order, and the store knows how far it was written.

The sequence of `results` is that order: they are appended by one writer at a time, so none ever
appears before one that was read. A done result that stops being its item's is counted in
`experiments.superseded_results`, which tells that a file has lines out of date.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import asdict

from batchgen.clock import now_ms
from batchgen.store.records import ExportRecord, FileUse, LiveFileRecord, LivePage, ResultRow
from batchgen.store.transaction import Transaction
from batchgen.store.transactions import admin
from batchgen.store.transactions.results import chars_of
from batchgen.store.transactions.rows import bounded, row_of, rows_of

if TYPE_CHECKING:
    from batchgen.store.database import Database


class Files:
    """The side of the store that is about files: each method is one transaction or snapshot."""

    def __init__(self, database: "Database") -> None:
        self._db = database

    async def live_page(
        self, experiment_id: int, after: int, limit: int = 500, *, failed_too: bool = False
    ) -> LivePage | None:
        """What is done, in finishing order, of the next results after result `after`; None when
        there is no such experiment any more."""
        return await self._db.settled(live_page, experiment_id, after, limit, failed_too)

    async def live_file(self, path: Path) -> LiveFileRecord | None:
        """How far the live file at this absolute path was written."""
        return await self._db.read(_live_file, path)

    async def live_files(self) -> list[LiveFileRecord]:
        return await self._db.read(_live_files)

    async def start_live_file(self, record: LiveFileRecord) -> None:
        """The file was written from the start, whatever it was before."""
        await self._db.write(_start_live_file, record)

    async def move_live_file(self, record: LiveFileRecord) -> bool:
        """The file grew. False: it was made another's meanwhile, by an export or for another
        experiment."""
        return await self._db.write_beside(_move_live_file, record)

    async def forget_live_file(self, path: Path) -> None:
        """If there is one at this absolute path, it is a live file no more."""
        if await self.live_file(path):
            await self._db.write(_forget_live_file, path)

    async def note_files(self, paths: Sequence[Path], use: FileUse) -> None:
        """Remember what is done with the files at these absolute paths; what was written stays
        that, though it is read later."""
        known = (None,) if use is FileUse.READ else (None, FileUse.READ)
        new = [path for path in paths if await self.use_of_file(path) in known]
        if new:
            await self._db.write_beside(_note_files, new, use)

    async def use_of_file(self, path: Path) -> FileUse | None:
        """Whether batchgen wrote the file at this absolute path or only read it; None: neither."""
        return await self._db.read(_use_of_file, path)

    async def record_export(
        self, experiment_id: int, path: Path, rows: int, sha256: str, result_seq: int
    ) -> None:
        """Remember what a file held when it was written, for `verify`; `result_seq` is the
        `results_mark` then, or -1 when the file cannot be compared with the table."""
        await self._db.write(
            admin.record_export,
            experiment_id, path, rows, sha256, result_seq, now_ms(),
        )  # fmt: skip

    async def exports(self) -> list[ExportRecord]:
        return await self._db.read(admin.exports)


def live_page(
    db: Transaction, experiment_id: int, after: int, limit: int, failed_too: bool = False
) -> LivePage | None:
    which = {"experiment_id": experiment_id, "after": after, "limit": limit}
    found = db.execute("live_window", which).fetchone()
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


def _live_file(db: Transaction, path: Path) -> LiveFileRecord | None:
    return row_of(db, "live_file", LiveFileRecord, {"path": str(path)})


def _live_files(db: Transaction) -> list[LiveFileRecord]:
    return list(rows_of(db, "live_files", LiveFileRecord))


def _start_live_file(db: Transaction, record: LiveFileRecord) -> None:
    """A file that was written from the start. An export that was at this place is one no more."""
    db.execute("forget_export", {"path": record.path})
    db.execute("start_live_file", asdict(record))


def _forget_live_file(db: Transaction, path: Path) -> None:
    db.execute("forget_live_file", {"path": str(path)})


def _move_live_file(db: Transaction, record: LiveFileRecord) -> bool:
    return db.execute("move_live_file", asdict(record)).rowcount == 1


def _note_files(db: Transaction, paths: Sequence[Path], use: FileUse) -> None:
    db.execute_many("note_file", [{"path": str(path), "use": use} for path in paths])


def _use_of_file(db: Transaction, path: Path) -> FileUse | None:
    found = db.execute("use_of_file", {"path": str(path)}).fetchone()
    return found and FileUse(found[0])
