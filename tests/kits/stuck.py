"""A transaction that is not done, for as long as a test likes: so a process can be ended in the
middle of just that one, when all that came before is durable, and nothing of it is."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.kits.database import change, look

if TYPE_CHECKING:
    from batchgen.database_address import DatabaseAddress, PostgresAddress

Reached = Callable[[int], Awaitable[None]]
"""Wait until the process with this pid stands there."""

_LOOK_EVERY_S = 0.01
_CPU_S = 0.3  # more than any transaction of the tests takes
_ENDLESS = """
create view endless as
  with recursive n (i) as (select 1 union all select i + 1 from n) select i from n
"""
_LOCK = 4_242_424_242
_FUNCTION = f"""
create function stands_still() returns trigger language plpgsql as
$$ begin perform pg_advisory_xact_lock({_LOCK}); return null; end $$
"""
_THERE = f"""
select pid, application_name from pg_stat_activity where pid in (
  select pid from pg_locks
   where locktype = 'advisory' and not granted
     and (classid::bigint << 32 | objid::bigint) = {_LOCK}
     and database = (select oid from pg_database where datname = current_database()))
"""


@contextmanager
def stuck(database: "DatabaseAddress", event: str, when: str) -> Iterator[Reached]:
    """While inside, a statement that is such an `event` (update of state on work) of a row that is
    as `when` says (in words of SQL, with `old` and `new`) is not done, and nor is its transaction.
    Whoever stands there must be killed before the end."""
    if not isinstance(database, Path):
        with _stuck_on_server(database, event, when) as there:
            yield there
        return
    change(database, _ENDLESS)
    change(database, f"create trigger stuck after {event} when {when}"
                     " begin select count(*) from endless; end")  # fmt: skip
    try:
        yield lambda pid: _is_busy(database, pid)
    finally:
        change(database, "drop trigger stuck")
        change(database, "drop view endless")


async def _is_busy(database: Path, pid: int) -> None:
    """It has worked for so long at one turn at the gate."""
    turn, since_s = b"", 0.0
    async with asyncio.timeout(60):
        while not turn or _cpu_s(pid) < since_s + _CPU_S:
            now = Path(f"{database}-gate").read_bytes()
            if not now.startswith(b"pid %d " % pid):
                turn = b""
            elif now != turn:
                turn, since_s = now, _cpu_s(pid)
            await asyncio.sleep(_LOOK_EVERY_S)


def _cpu_s(pid: int) -> float:
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _stuck_on_server(database: "PostgresAddress", event: str, when: str) -> Iterator[Reached]:
    """In the end the process that stood there is gone, and its session is ended, as nobody tells it
    that."""
    from batchgen.store.postgres.opening import connect  # here: most tests need no driver

    change(database, _FUNCTION)
    change(database, f"create trigger stuck after {event} for each row when ({when})"
                     " execute function stands_still()")  # fmt: skip
    with closing(connect(database)[0]) as holder:
        holder.execute(f"select pg_advisory_lock({_LOCK})".encode())
        try:
            yield lambda pid: _waits(database, pid)
        finally:
            holder.execute(f"select pg_terminate_backend(pid) from ({_THERE}) there".encode())
            holder.execute(f"select pg_advisory_unlock({_LOCK})".encode())
            change(database, "drop function stands_still cascade")


async def _waits(database: "PostgresAddress", pid: int) -> None:
    async with asyncio.timeout(60):
        while not any(name.endswith(f" pid {pid}") for _, name in look(database, _THERE)):
            await asyncio.sleep(_LOOK_EVERY_S)
