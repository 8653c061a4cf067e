"""What the tests of crashes share: how to hold a process at an exact point, and what must be true
after any end of it.

The points are places where batchgen has to wait for somebody else: the model (`Simulator.hold`), a
pool that comes by a pipe, and SQLite's write lock, which a `Stranger` keeps. A process that waits
for that lock holds the gate, so `at_the_write_lock` can see from outside that it got there.
"""

import asyncio
import fcntl
import os
import signal
import sqlite3
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from batchgen.database_address import DatabaseAddress
from tests.kits.database import look
from tests.kits.processes import Process
from tests.kits.project import Project, without_times
from tests.kits.typist import Ended

_LOOK_EVERY_S = 0.005
# Looks in a row at which the gate must have the same holder: longer than any transaction of ours.
_LOOKS = 40
_WAITING = """
select a.application_name from pg_locks l join pg_stat_activity a on a.pid = l.pid
 where not l.granted order by a.pid
"""


def send(process: Process, signum: signal.Signals) -> None:
    """To one that may have ended. `Process.send_signal` would take the exit code from asyncio."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signum)


async def said(process: Process, text: str) -> None:
    """Wait until the process says it on stderr."""
    assert process.stderr is not None
    heard = []
    while line := await process.stderr.readline():
        heard.append(line.decode())
        if text in heard[-1]:
            return
    pytest.fail(f"it never said {text!r}, but: {''.join(heard)}")


def gate_holder(database: Path) -> int | None:
    """The pid of the process that holds the write gate at this moment."""
    gate = Path(f"{database}-gate")
    if not gate.exists():
        return None
    with gate.open("r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = file.read(14).split()
            return int(words[1]) if len(words) == 2 else None
    return None


async def at_the_write_lock(database: DatabaseAddress, pids: Collection[int]) -> int:
    """Until one of the processes waits for the lock that a `Stranger` keeps; which one."""
    same, last = 0, None
    async with asyncio.timeout(30):
        while same < _LOOKS:
            holder = _at_the_lock(database, pids)
            same = same + 1 if holder is not None and holder == last and holder in pids else 0
            last = holder
            await asyncio.sleep(_LOOK_EVERY_S)
    assert last is not None
    return last


def _at_the_lock(database: DatabaseAddress, pids: Collection[int]) -> int | None:
    if isinstance(database, Path):
        return gate_holder(database)
    names = [name for (name,) in look(database, _WAITING)]
    return next((pid for pid in pids for name in names if name.endswith(f" pid {pid}")), None)


async def gate_is_stuck(database: DatabaseAddress) -> bool:
    """Whether one process keeps the gate, longer than any transaction of ours takes. A server has
    none, and who waits for one that stopped ends it there."""
    last = None
    if not isinstance(database, Path):
        return False
    for _ in range(_LOOKS):
        holder = gate_holder(database)
        if holder is None or last not in (None, holder):
            return False
        last = holder
        await asyncio.sleep(_LOOK_EVERY_S)
    return True


async def until(database: DatabaseAddress, sql: str, least: int = 1) -> None:
    """Until a count in the database, seen from outside, is at least so high."""
    async with asyncio.timeout(30):
        while not _is_at_least(database, sql, least):
            await asyncio.sleep(_LOOK_EVERY_S)


def _is_at_least(database: DatabaseAddress, sql: str, least: int) -> bool:
    if isinstance(database, Path) and not database.exists():
        return False
    try:
        return int(look(database, sql)[0][0]) >= least
    except sqlite3.Error:  # the schema is being made at this moment
        return False


def contradictions(project: Project, verified: Ended) -> list[str]:
    """What is wrong with a database that nobody works on any more, a line each."""
    if project.server is not None:
        from tests.kits.server_facts import contradictions_of  # here: it needs the driver

        return contradictions_of(project.server.url, verified)
    found = [] if verified.code == 0 else [f"verify: {verified.out}{verified.err}"]
    with closing(sqlite3.connect(project.file)) as db:
        found += [f"integrity: {row}" for (row,) in db.execute("pragma integrity_check")
                  if row != "ok"]  # fmt: skip
        found += [f"foreign key: {row}" for row in db.execute("pragma foreign_key_check")]
        found += [
            f"{n} x {what}"
            for what, sql in (
                ("running", "select count(*) from work where state = 'running'"),
                ("worker left", "select count(*) from workers"),
                ("item without a state", "select count(*) from items where id not in"
                                         " (select item_id from work)"),
                ("second copy", "select count(*) - count(distinct input) from items"
                                " where parent_id is null and sample_of is null"),
            )
            for (n,) in db.execute(sql)
            if n
        ]  # fmt: skip
    locks = [file.name for file in project.path.glob("*.db-*") if not file.name.endswith("-gate")]
    return found + [f"left behind: {name}" for name in sorted(locks)]


def exported(project: Project) -> list[dict[str, Any]]:
    """The export's lines, as any other run would give them."""
    return [without_times(line) for line in project.export()]
