"""The log that a crash left beside a database: whether it is that file's own.

Whoever restores a copy of the database, and leaves the log of the file that was there, has two that
do not belong together. SQLite knows nothing of that: it writes the one into the other, and goes on
until it finds both damaged, with all that was answered meanwhile.
"""

import sqlite3
from pathlib import Path

from batchgen.errors import SchemaError

# It takes up to a second, once after a crash. A larger file is looked at where its time tells that
# it was written after its log, as only a checkpoint does otherwise.
_MOST_CHECKED_BYTES = 1 << 28


def check_leftover_log(path: Path) -> None:
    """To be called while nobody uses the database. Raises SchemaError, and changes nothing."""
    log = path.with_name(f"{path.name}-wal")
    try:
        found, of_log = path.stat(), log.stat()
    except FileNotFoundError:
        return
    is_newer = found.st_mtime_ns > of_log.st_mtime_ns
    is_checked = of_log.st_size and (is_newer or found.st_size <= _MOST_CHECKED_BYTES)
    if is_checked and not _belong_together(path):
        raise SchemaError(
            f"{path}: it and its log ({log.name}) do not belong together. If it was replaced by a "
            "copy after a crash: put the file back that was there; or, to go on from the copy "
            f"without what was answered since, remove {log.name} and {path.name}-shm."
        )


def _belong_together(path: Path) -> bool:
    """A connection that can only read leaves the log as it is when it is closed."""
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
    try:
        return bool(connection.execute("pragma quick_check(1)").fetchone() == ("ok",))
    except sqlite3.DatabaseError as exc:
        return "malformed" not in str(exc)  # whatever else is wrong is told when it is opened
    finally:
        connection.close()
