"""A whole work table brought from one database into another one, of whatever engine.

All is copied, and proven, in one transaction of the target. Before that is committed, the source
is made to take no more work, durably. So whenever a move is cut off, the source works and the
target is empty, or the target has all and the source refuses; in the moment between the two commits
the source refuses, and the target is empty, until the same move is begun again. They never both
work.
"""

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, field

from batchgen.errors import Remedy, StoreError, UsageError
from batchgen.installed import load_psycopg
from batchgen.store.records import Counts
from batchgen.store.tables import OF_THE_LIVING, TABLES, Move, Row, Source, Target
from batchgen.store.transactions import look
from batchgen.store.transactions.living import workers
from batchgen.store.transactions.verify import verify_tables

if TYPE_CHECKING:
    from batchgen.database_address import DatabaseAddress

Told = Callable[[str, int], object]


class Moved(Struct, frozen=True):
    """What was moved. `already`: by an earlier time, which was cut off or has come to its end."""

    counts: Counts = field(default_factory=Counts)  # of its rows, by their states
    replaced_nuls: int = 0  # texts in which U+0000 became U+FFFD
    left_files: int = 0  # what was known of files on other machines
    already: bool = False


def move_tables(
    source_address: "DatabaseAddress", target_address: "DatabaseAddress", tell: Told
) -> Moved:
    """Bring all of a database into another one, which is empty or not there yet. From then on the
    first one takes no more work. Blocks, with nothing else done to either; `tell` gets the table,
    and how many of its rows are written; in the end no table, while the copy is proven.

    Raises UsageError where somebody is at work there, or the target is not empty, and StoreError
    where the copy does not agree with itself: then all is as it was.
    """
    moved = None
    with _source(source_address) as source:
        before = source.moved_to()
        if before is not None and before.other != _known_as(target_address):
            raise UsageError(
                f"{source.name}: was moved to {before.other}.", Remedy.NAME_NEW_DATABASE
            )
        if before is None:  # else it may have got there, whoever works here
            _refuse_the_busy(source)  # before the target is made
        move_id = secrets.token_hex(8)
        try:
            with _target(target_address) as target:
                if before is not None and target.has_come(before.id):
                    return Moved(already=True)
                _refuse_unless_ready(source, target, before)
                moved = _copy_and_prove(source, target, tell)
                target.finish(Move(move_id, _known_as(source_address)))
                source.give_up(Move(move_id, _known_as(target_address)))
                target.commit()
        except BaseException:
            if moved is None:
                raise
            if not _has_come(target_address, move_id):
                source.take_back()
                raise
    return moved


def _known_as(address: "DatabaseAddress") -> str:
    """As it can be named, from any machine, to find it again; without the password."""
    if isinstance(address, Path):
        return f"{address.resolve()} on {os.uname().nodename}"
    return address.without_password()[0]


def _source(address: "DatabaseAddress") -> AbstractContextManager[Source]:
    if isinstance(address, Path):
        from batchgen.store.sqlite.moving import open_source  # here: engines are on demand

        return open_source(address)
    load_psycopg()
    from batchgen.store.postgres.moving import open_source as open_on_server

    return open_on_server(address)


def _target(address: "DatabaseAddress") -> AbstractContextManager[Target]:
    if isinstance(address, Path):
        from batchgen.store.sqlite.moving import open_target  # here: engines are on demand

        return open_target(address)
    load_psycopg()
    from batchgen.store.postgres.moving import open_target as open_on_server

    return open_on_server(address)


def _refuse_unless_ready(source: Source, target: Target, before: Move | None) -> None:
    try:
        _refuse_the_busy(source)
        _refuse_the_filled(target)
    except UsageError:
        if before is not None:  # of an earlier time, which never got there
            source.take_back()
        raise


def _refuse_the_busy(source: Source) -> None:
    _refuse_unless_idle(source)
    if workers(source.transaction) or any(source.count(table) for table in OF_THE_LIVING):
        raise UsageError(f"{source.name}: a worker has joined meanwhile.", Remedy.STOP_WORKERS)


def _refuse_unless_idle(end: Source | Target) -> None:
    if busy := end.busy():
        raise UsageError(f"{end.name}: {busy}. Wait until it is done.", Remedy.RUN_AGAIN)


def _refuse_the_filled(target: Target) -> None:
    _refuse_unless_idle(target)
    if filled := [table for table in (*TABLES, *OF_THE_LIVING, "moves") if target.count(table)]:
        if gone := target.moved_to():
            raise UsageError(
                f"{target.name}: is not empty: it was moved to {gone.other}, and still has what it "
                "had then. When you have seen that all is there, remove it (a file, or of a server "
                "its schema: drop schema NAME cascade; create schema NAME), or name another one."
            )
        raise UsageError(
            f"{target.name}: is not empty (its table {filled[0]} has rows). A work table is moved "
            "into a new database, or a new schema: name another one, or remove this one first."
        )


def _copy_and_prove(source: Source, target: Target, tell: Told) -> Moved:
    _copy(source, target, tell)
    target.fill_up(source.numbers())
    _prove(source, target, tell)
    counts = look.counts(target.transaction, None, None)
    return Moved(counts, target.replaced_nuls, target.left_files)


def _copy(source: Source, target: Target, tell: Told) -> None:
    for table in TABLES:
        known = target.columns(table)
        columns = [name for name in source.columns(table) if name in known]
        target.add(table, columns, _told(table, source.pages(table, columns), tell))


def _told(table: str, pages: Iterator[Sequence[Row]], tell: Told) -> Iterator[Sequence[Row]]:
    rows = 0
    for page in pages:
        tell(table, rows)
        yield page
        rows += len(page)


def _prove(source: Source, target: Target, tell: Told) -> None:
    """That the copy has as many rows in each table and state, and no contradictions."""
    tell("", 0)
    problems = [
        f"{table} has {there} rows, and its copy {here}"
        for table in TABLES
        if (there := source.count(table)) != (here := target.count(table))
    ]
    states = [sorted(end.transaction.execute("recount").fetchall()) for end in (source, target)]
    if states[0] != states[1]:
        problems.append("its items are in other states than those of its copy")
    problems = problems or verify_tables(target.transaction)
    if problems:
        raise StoreError(
            f"{source.name}: not moved, as the copy would not be whole: {problems[0]}"
            f"{f' (and {len(problems) - 1} more)' if problems[1:] else ''}. Both are as they were."
        )


def _has_come(address: "DatabaseAddress", move_id: str) -> bool:
    """Whether the commit has landed, of whose end nobody heard."""
    try:
        with _target(address) as found:
            return found.has_come(move_id)
    except StoreError as away:
        raise StoreError(
            f"{away} Whether the copy has got there is not known; until then neither of the two "
            "takes work.", Remedy.MOVE_AGAIN,
        ) from away  # fmt: skip
