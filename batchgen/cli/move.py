"""move: bring the whole database to another place."""

from pathlib import Path

import click

from batchgen.cli import completion
from batchgen.cli.group import epilog, global_options
from batchgen.cli.hints import quoted
from batchgen.cli.progress import Latest, Pace, showing_progress
from batchgen.cli.session import Session, counted, run_async
from batchgen.cli.terminal import print_text
from batchgen.database_address import DatabaseAddress, from_text
from batchgen.errors import Remedy, UsageError
from batchgen.jobs import move as jobs


@click.command(
    epilog=epilog(
        "batchgen move batchgen.db postgresql://me@db.example.com/runs",
        "batchgen move postgresql://me@db.example.com/runs batchgen.db",
    )
)
@click.argument("from_", metavar="FROM", shell_complete=completion.files)
@click.argument("to", metavar="TO", shell_complete=completion.files)
@click.pass_context
def move(ctx: click.Context, from_: str, to: str) -> int:
    """Move the database to PostgreSQL, for many machines, or back.

    FROM and TO are each a file or postgresql://USER@HOST/NAME. TO is empty, or not there yet. All
    that is stored is copied and proven in one go; then FROM takes no more work, and is kept as it
    was: what it has can still be looked at, and exported. If it is cut off, begin the same move
    again. Workers are to be stopped first.
    """
    session: Session = ctx.obj
    global_options(ctx)["database"] = from_  # so that what is to be typed next is about that one
    source, target = _address(from_), _address(to)
    if str(source) == str(target):
        raise UsageError(f"{source}: is where it is already.")
    if code := run_async(_make_ready(source)):
        return code
    so_far, pace = Latest(("", 0)), _Paces()
    with showing_progress(session, lambda: pace.words(*so_far.value)):
        moved = jobs.move_tables(source, target, lambda table, n: so_far.put((table, n)))
    _tell(session, source, target, moved)
    return 0


async def _make_ready(source: DatabaseAddress) -> int:
    await jobs.make_ready(source)
    return 0


def _address(text: str) -> DatabaseAddress:
    try:
        return from_text(text)
    except ValueError as exc:
        raise UsageError(f"{exc}.", Remedy.NAME_DATABASE) from None


class _Paces:
    """How fast each table goes."""

    def __init__(self) -> None:
        self._table = ""
        self._pace = Pace()

    def words(self, table: str, rows: int) -> str:
        if table != self._table:
            self._table, self._pace = table, Pace()
        if not table:
            return "proving the copy"
        return f"moving {table.replace('_', ' ')}: {rows:,} rows, {self._pace.of(rows)}"


def _tell(
    session: Session, source: DatabaseAddress, target: DatabaseAddress, moved: jobs.Moved
) -> None:
    if moved.replaced_nuls:
        session.warn(
            f"{counted(moved.replaced_nuls, 'text')} had the character U+0000, which PostgreSQL "
            "cannot hold: each such character is U+FFFD now."
        )
    if moved.left_files:
        session.warn(
            f"{counted(moved.left_files, 'record')} of files on other machines stayed behind: a "
            "SQLite file knows of one machine."
        )
    if moved.already:
        print_text(f"{source} has been moved to {target} already.")
    else:
        counts = moved.counts
        print_text(
            f"Moved {counted(counts.total, 'row')} from {source} to {target}, "
            f"{counts.done} of them done; the copy is proven."
        )
    print_text(
        f"Go on there: batchgen --db {quoted(_typed(target))} work\n"
        f"{source} is as it was, and takes no more work; remove it when you like."
    )


def _typed(address: DatabaseAddress) -> str:
    return str(address) if isinstance(address, Path) else address.without_password()[0]
