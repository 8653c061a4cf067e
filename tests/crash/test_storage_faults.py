"""What can go wrong with the file and its disk: a clear line, the right exit code, nothing that was
acknowledged lost, and the same command completes when the fault is gone."""

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGKILL

import pytest

from batchgen.errors import StoreBusyError
from batchgen.items import NewItem, Outcome, Recipe, Release
from batchgen.simulate import Behaviour, Simulator
from batchgen.store import ClaimRequest, OtherRecipe, key_of_content, open_store
from batchgen.store.sqlite.gate import Gate
from tests.kits.crashes import contradictions, exported, said, send, until
from tests.kits.database import locked
from tests.kits.processes import Process
from tests.kits.project import Project, ended
from tests.kits.table import claims, open_table
from tests.kits.typist import Typist

pytestmark = pytest.mark.only_sqlite("stopped where SQLite waits; PostgreSQL has its own")

ITEMS = 12
SLOTS = 3
HOUR_MS = 3_600_000

# The command that gives up earlier: for SQLite's lock, and for a file that stays locked.
IMPATIENT = """
from msgspec.structs import replace
from importlib import import_module
import batchgen.jobs.work, batchgen.worker.store_retries, batchgen.store.sqlite.connection
batchgen.store.sqlite.opening._WRITER_PRAGMAS["busy_timeout"] = 100
made = batchgen.jobs.work.spec_of
for command in ("work", "run"):
    import_module(f"batchgen.cli.{{command}}").spec_of = (
        lambda *a, **k: replace(made(*a, **k), store_retry_s={store_retry_s})
    )
batchgen.worker.store_retries._TRY_AGAIN_S = 0.05
from batchgen.cli import main
main()
"""


@pytest.fixture
def typist(project: Project) -> Typist:
    """Types in the project's directory, in this process."""
    return Typist(project.path, project.env)


def pool(n: int = ITEMS) -> list[dict[str, str]]:
    return [{"word": f"w{number:02}"} for number in range(n)]


async def start_impatient(project: Project, *arguments: str, store_retry_s: float = 60) -> Process:
    script = project.write("impatient.py", IMPATIENT.format(store_retry_s=store_retry_s))
    return await project.start(str(script), *arguments)


async def assert_completed(project: Project, typist: Typist) -> None:
    """The same command again does the rest."""
    again = await typist("run", "pool.jsonl", "-c", str(SLOTS))
    assert again.code == 0, again.err
    assert [line["input"] for line in exported(project)] == pool()
    assert contradictions(project, await typist("verify")) == []


# --- locked by a stranger ---------------------------------------------------------------------


async def test_a_stranger_who_locks_the_file_for_a_while_costs_nothing(
    project: Project, typist: Typist, simulator: Simulator
) -> None:
    """The answers wait in memory; nothing is asked twice."""
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    simulator.hold()
    process = await start_impatient(project, "run", "pool.jsonl", "-c", str(SLOTS))
    await simulator.received(SLOTS)
    with locked(project.database):
        simulator.release()
        await said(process, "answers wait in memory")
    finished = await ended(process)
    assert finished.code == 0, finished.err
    assert simulator.calls == ITEMS
    await assert_completed(project, typist)


async def test_a_stranger_who_locks_the_file_while_calls_are_under_way_costs_none_of_them(
    project: Project, typist: Typist, simulator: Simulator
) -> None:
    """There is nothing to write but the heartbeat."""
    project.config("work: {lease_s: 1}\n")
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    simulator.hold()
    process = await start_impatient(project, "run", "pool.jsonl", "-c", str(SLOTS))
    await simulator.received(SLOTS)
    with locked(project.database):
        await said(process, "Trying again for 60 s")
    simulator.release()
    finished = await ended(process)
    assert finished.code == 0, finished.err
    assert simulator.calls == ITEMS
    await assert_completed(project, typist)


async def test_a_stranger_who_locks_the_file_for_good_ends_the_worker_with_words(
    project: Project, typist: Typist, simulator: Simulator
) -> None:
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    simulator.hold()
    process = await start_impatient(
        project, "run", "pool.jsonl", "-c", str(SLOTS), store_retry_s=0.5
    )
    await simulator.received(SLOTS)
    with locked(project.database):
        simulator.release()
        gave_up = await ended(process)
    assert gave_up.code == 1
    assert gave_up.err.splitlines()[-1] == (
        f"error: {project.database}: locked by another program that is not batchgen (database is "
        "locked). Close it (a SQL shell with an open transaction?). Then run the same command "
        "again."
    )
    await assert_completed(project, typist)
    assert simulator.calls <= ITEMS + SLOTS


@pytest.mark.quick("enqueue pool.jsonl", "work")
@pytest.mark.parametrize(
    "command", [("enqueue", "pool.jsonl"), ("work",), ("retry",), ("export",)], ids=" ".join
)
async def test_a_command_that_meets_a_locked_file_says_so_and_changes_nothing(
    project: Project, typist: Typist, command: tuple[str, ...]
) -> None:
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    before = project.query("select * from work")
    with locked(project.database):
        refused = await ended(await start_impatient(project, *command))
    if command == ("retry",):  # nothing had failed, so there was nothing to write
        assert refused.code == 0
    else:
        assert (refused.code, "locked by another program" in refused.err) == (1, True), refused.err
        assert "Traceback" not in refused.err
    assert project.query("select * from work") == before
    await assert_completed(project, typist)


async def test_a_gate_that_stays_closed_is_waited_for_once(
    project: Project, typist: Typist
) -> None:
    """Not again to leave, and to close each connection."""
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    holder, gate = Gate(project.file), Gate(project.file, deadline_s=3)
    with closing(holder), closing(gate), holder.hold():
        with pytest.raises(StoreBusyError), gate.hold():
            pass
        asked_at = time.monotonic()
        with pytest.raises(StoreBusyError), gate.hold():
            pass
        assert time.monotonic() - asked_at < 3


# --- the disk ---------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of three megabytes: the answers, what is logged of them, and the export have room."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no small disk here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def fill(disk: Path) -> Path:
    """Take what is left of it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            return filler


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)


async def test_a_disk_that_fills_up_keeps_answers_in_memory_until_there_is_room(
    project: Project, typist: Typist, simulator: Simulator, small_disk: Path
) -> None:
    project.config(f"database: {small_disk}/batchgen.db\n")
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    simulator.hold()
    process = await start_impatient(project, "run", "pool.jsonl", "-c", str(SLOTS))
    await simulator.received(SLOTS)
    filler = fill(small_disk)
    long = "An answer that needs room. " * 2000
    simulator.script("Say w", *[Behaviour.ok(long)] * ITEMS)
    simulator.release()
    await said(process, "make room. Trying again")
    filler.unlink()
    finished = await ended(process)
    assert finished.code == 0, finished.err
    assert simulator.calls == ITEMS
    assert (await typist("verify")).code == 0


async def test_a_disk_that_stays_full_ends_the_worker_with_words_and_loses_nothing_committed(
    project: Project, typist: Typist, simulator: Simulator, small_disk: Path
) -> None:
    project.config(f"database: {small_disk}/batchgen.db\n")
    project.pool(pool())
    assert (await typist("enqueue", "pool.jsonl")).code == 0
    assert (await typist("work", "--max-items", "3")).code == 0
    simulator.hold()
    process = await start_impatient(project, "work", "-c", str(SLOTS), store_retry_s=0.5)
    await simulator.received(3 + SLOTS)
    filler = fill(small_disk)
    simulator.script("Say w", *[Behaviour.ok("An answer that needs room. " * 2000)] * ITEMS)
    simulator.release()
    gave_up = await ended(process)
    assert gave_up.code == 1
    assert gave_up.err.splitlines()[-1].startswith(f"error: {small_disk}/batchgen.db: ")
    assert (
        "Everything committed is safe; make room. Then run the same command again." in gave_up.err
    )
    assert "Traceback" not in gave_up.err
    filler.unlink()
    again = await typist("run", "pool.jsonl", "-c", str(SLOTS))
    assert again.code == 0, again.err
    assert [line["input"] for line in exported(project)] == pool()
    assert (await typist("verify")).code == 0
    assert simulator.calls <= ITEMS + SLOTS


async def test_an_enqueue_on_a_full_disk_says_so_and_goes_on_when_there_is_room(
    project: Project, typist: Typist, small_disk: Path
) -> None:
    project.config(f"database: {small_disk}/batchgen.db\n")
    project.pool({"word": f"w{number:05} {'x' * 200}"} for number in range(15_000))
    refused = await typist("enqueue", "pool.jsonl")
    assert refused.code == 1
    assert "disk is full" in refused.err
    assert "Traceback" not in refused.err
    grow(small_disk)
    assert (await typist("enqueue", "pool.jsonl")).code == 0
    status = (await typist("status", "--json")).json
    assert status["total"]["pending"] == 15_000
    assert (await typist("verify")).code == 0


async def test_a_directory_that_cannot_be_written_is_refused_with_words(
    project: Project, typist: Typist
) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can become somebody who may not write here")
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    for directory in (project.path, *project.path.parents):
        if directory.stat().st_uid == 0 and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    before = project.file.read_bytes()
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups",
        sys.executable, "-m", "batchgen", "run", "pool.jsonl",
        cwd=project.path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    refused = await ended(process)
    if "ModuleNotFoundError" in refused.err or "can't open" in refused.err:
        pytest.skip("nobody may not read this Python")
    assert refused.code == 1, refused.err
    assert refused.err == (
        f"error: {project.database}-gate: cannot make this lock file (Permission denied). "
        "batchgen needs to write in the directory of the database. Name another database with "
        "--db.\n"
    )
    assert project.file.read_bytes() == before
    await assert_completed(project, typist)


async def test_a_directory_that_has_become_read_only_is_named(
    project: Project, typist: Typist
) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("only root can lay down the powers that root has")
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    project.path.chmod(0o555)
    process = await asyncio.create_subprocess_exec(
        "setpriv", "--bounding-set=-dac_override,-dac_read_search",
        sys.executable, "-m", "batchgen", "status",
        cwd=project.path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    refused = await ended(process)
    project.path.chmod(0o755)
    if "setpriv" in refused.err:
        pytest.skip(refused.err)
    assert (refused.code, refused.err) == (
        1,
        f"error: {project.path}: cannot write to it (attempt to write a readonly database). "
        "Check its permissions.\n",
    )


# --- the file ---------------------------------------------------------------------------------


@pytest.mark.quick("replaced")
@pytest.mark.parametrize("how", ["moved", "replaced"])
async def test_a_database_that_goes_away_under_a_worker_and_is_put_back_costs_nothing(
    project: Project, typist: Typist, simulator: Simulator, how: str
) -> None:
    project.pool(pool())
    assert (await typist("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    process = await start_impatient(project, "work", "-c", str(SLOTS))
    await simulator.received(SLOTS)
    aside = project.path / "aside.db"
    project.file.rename(aside)
    if how == "replaced":
        project.file.write_bytes(b"something else")
    simulator.release()
    await said(process, GONE.format(project.database))
    if how == "replaced":
        assert project.file.read_bytes() == b"something else"
    aside.replace(project.file)
    assert (await ended(process)).code == 0
    assert simulator.calls == ITEMS
    await assert_completed(project, typist)


GONE = (
    "warning: {}: the database was deleted or replaced while in use. "
    "What was committed is in the old file; put it back, or start again. "
    "Trying again for 60 s; answers wait in memory."
)


async def test_a_lock_file_that_somebody_removes_makes_no_worker_dead(
    project: Project, typist: Typist, simulator: Simulator
) -> None:
    project.pool(pool())
    assert (await typist("enqueue", "pool.jsonl")).code == 0
    simulator.hold()
    first = await project.start("work", "-c", str(SLOTS))
    await simulator.received(SLOTS)
    (project.path / "batchgen.db-worker-1").unlink()
    second = await project.start("work", "-c", str(SLOTS))
    await simulator.received(2 * SLOTS)
    simulator.release()
    assert [(await ended(process)).code for process in (first, second)] == [0, 0]
    assert simulator.calls == ITEMS
    await assert_completed(project, typist)


def break_writing(project: Project, table: str, change: str) -> None:
    """Make this change of the table fail for good, and all else go on."""
    with closing(sqlite3.connect(project.file)) as db:
        db.execute(
            f"create trigger broken before {change} on {table}"
            " begin select raise(abort, 'out of order'); end"
        )


async def with_calls_in_flight(project: Project, simulator: Simulator) -> Process:
    """A worker with a budget, whose calls cost a dollar at most."""
    price = {"input_usd_per_mtok": 0, "output_usd_per_mtok": 10_000}
    project.config("work: {lease_s: 1}\n", price=price, max_tokens=100)
    project.pool(pool())
    await project.batchgen("enqueue", "pool.jsonl")
    simulator.hold()
    worker = await project.start("work", "-c", str(SLOTS), "--max-cost", "50")
    await simulator.received(SLOTS)
    return worker


UNKNOWN = "select count(*), sum(cost_usd) from attempts where outcome = 'unknown'"


async def test_a_worker_that_cannot_keep_its_lease_leaves_its_calls_as_unknown_ones(
    project: Project, simulator: Simulator
) -> None:
    worker = await with_calls_in_flight(project, simulator)
    break_writing(project, "workers", "update")
    failed = await ended(worker)
    assert failed.code == 1
    assert f"error: {project.database}: out of order\n" in failed.err
    assert project.query(UNKNOWN) == [(SLOTS, pytest.approx(SLOTS))]
    assert project.query("select state, crashes, count(*) from work group by 1, 2") == [
        ("pending", 0, ITEMS)
    ]
    for table in ("reservations", "workers"):
        assert project.query(f"select count(*) from {table}") == [(0,)]
    assert (await project.batchgen("verify")).code == 0


async def test_a_worker_that_cannot_write_its_answers_leaves_them_to_be_known_as_unknown(
    project: Project, simulator: Simulator, typist: Typist
) -> None:
    worker = await with_calls_in_flight(project, simulator)
    break_writing(project, "attempts", "insert")
    simulator.release()
    failed = await ended(worker)
    assert failed.code == 1
    assert "Traceback" not in failed.err
    assert project.query("select count(*) from reservations") == [(SLOTS,)]
    with closing(sqlite3.connect(project.file)) as db:
        db.execute("drop trigger broken")
    await assert_completed(project, typist)
    assert project.query(UNKNOWN) == [(SLOTS, pytest.approx(SLOTS))]


async def test_a_copy_that_is_restored_beside_the_log_of_a_crash_is_not_worked_on(
    project: Project, typist: Typist, simulator: Simulator
) -> None:
    """SQLite would mix the two until both are damaged, with all that was paid for meanwhile."""
    project.pool({"word": f"w{n}"} for n in range(400))
    assert (await typist("enqueue", "pool.jsonl")).code == 0
    copy = project.file.read_bytes()
    await typist("work", "-c", "20", "--max-items", "200")
    worker = await project.start("work", "-c", "20")
    await simulator.received(300)
    worker.kill()
    await worker.wait()
    crashed, log = project.file.read_bytes(), project.path / "batchgen.db-wal"
    left, calls = log.read_bytes(), simulator.calls
    project.file.write_bytes(copy)
    for command in ("status", "work", "verify"):
        refused = await typist(command)
        assert refused.code == 1
        assert "it and its log (batchgen.db-wal) do not belong together" in refused.err
    assert (project.file.read_bytes(), log.read_bytes()) == (copy, left)
    assert simulator.calls == calls

    project.file.write_bytes(crashed)
    assert (await typist("status")).code == 0


async def test_a_database_cut_short_is_refused_and_left_as_it_is(
    project: Project, typist: Typist
) -> None:
    project.pool(pool())
    await typist("run", "pool.jsonl")
    whole = project.file.read_bytes()
    for size in (100, len(whole) // 2, len(whole) - 1000):
        project.file.write_bytes(whole[:size])
        for command in ("run pool.jsonl", "verify"):
            refused = await typist(*command.split())
            assert refused.code == 1, (size, command, refused)
            assert "Traceback" not in refused.err
            assert "malformed" in refused.err + refused.out or "damaged" in refused.err, refused
    project.file.write_bytes(whole)
    await assert_completed(project, typist)


async def test_a_database_of_a_newer_batchgen_is_left_alone_by_a_worker(
    project: Project, typist: Typist
) -> None:
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    with closing(sqlite3.connect(project.file)) as db:
        (version,) = db.execute("pragma user_version").fetchone()
        db.execute("pragma user_version = 99")
    refused = await typist("work")
    assert refused.code == 1
    assert "made by a newer batchgen (schema 99; this one knows " in refused.err
    with closing(sqlite3.connect(project.file)) as db:
        db.execute(f"pragma user_version = {version}")
    await assert_completed(project, typist)


# --- the clock --------------------------------------------------------------------------------


def test_after_the_clock_is_set_back_the_rate_limit_does_not_wait_for_the_old_time(
    tmp_path: Path,
) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        table.enqueue("a", "b", "c", "d")
        worker = table.join()
        assert len(table.exchange(worker, want=2, rpm=2).items) == 1
        table.now -= HOUR_MS
        assert table.exchange(worker, want=2, rpm=2).items == []
        table.now += 31_000
        assert len(table.exchange(worker, want=2, rpm=2).items) == 1


def test_a_clock_set_on_lets_no_more_out_at_once_than_ever(tmp_path: Path) -> None:
    with open_table(tmp_path / "batchgen.db") as table:
        table.enqueue("a", "b", "c", "d")
        worker = table.join()
        assert len(table.exchange(worker, want=2, rpm=2).items) == 1
        table.now += HOUR_MS
        assert len(table.exchange(worker, want=2, rpm=2).items) == 1


# The command on a machine whose clock is set back while the file "set-back" is there.
SET_BACK = """
import os, time
true_time_ns = time.time_ns
time.time_ns = lambda: true_time_ns() - (3_600_000_000_000 if os.path.exists("set-back") else 0)
from batchgen.cli import main
main()
"""


async def start_with_that_clock(project: Project, *arguments: str) -> Process:
    return await project.start(str(project.write("set_back.py", SET_BACK)), *arguments)


async def assert_nobody_waits_for_the_old_time(*processes: Process) -> None:
    async with asyncio.timeout(60):  # far more than it takes, and far less than an hour
        assert [(await ended(process)).code for process in processes] == [0] * len(processes)


@pytest.mark.slow
async def test_a_clock_set_back_under_two_workers_makes_nobody_dead_and_costs_no_call(
    project: Project, typist: Typist, simulator: Simulator
) -> None:
    project.config("work: {lease_s: 2}\n")
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    simulator.hold()
    workers = [
        await start_with_that_clock(project, "work", "-c", str(SLOTS), "--rpm", "1000")
        for _ in range(2)
    ]
    await simulator.received(2 * SLOTS)
    half_an_hour_ago = time.time_ns() // 1_000_000 - HOUR_MS // 2
    project.write("set-back", "")
    have_beaten = f"select count(*) from workers where lease_until < {half_an_hour_ago}"
    await until(project.database, have_beaten, 2)
    simulator.release()
    await assert_nobody_waits_for_the_old_time(*workers)
    assert simulator.calls == ITEMS
    (project.path / "set-back").unlink()
    await assert_completed(project, typist)


async def test_a_worker_that_died_before_the_clock_was_set_back_is_taken_over_at_once(
    project: Project, typist: Typist, simulator: Simulator
) -> None:
    """Its lease runs for another hour and a minute."""
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    simulator.hold()
    dead = await start_with_that_clock(project, "work", "-c", str(SLOTS))
    await simulator.received(SLOTS)
    send(dead, SIGKILL)
    await dead.wait()
    project.write("set-back", "")
    heir = await start_with_that_clock(project, "work", "-c", str(SLOTS))
    simulator.release()
    await assert_nobody_waits_for_the_old_time(heir)
    assert simulator.calls == ITEMS + SLOTS
    (project.path / "set-back").unlink()
    await assert_completed(project, typist)


# All for the same reason: the time of the next try is in the table, by the old clock.
@pytest.mark.quick("500, then a restart")
@pytest.mark.parametrize(
    ("trouble", "killed"),
    [
        (Behaviour.error(500, headers={"retry-after-ms": "1500"}), False),
        (Behaviour.error(500, headers={"retry-after-ms": "1500"}), True),
        (Behaviour.error(429, headers={"retry-after-ms": "1500"}), False),
        (Behaviour.error(503), False),
    ],
    ids=["500", "500, then a restart", "429", "503"],
)
async def test_a_try_that_was_due_in_a_moment_is_so_after_the_clock_was_set_back(
    project: Project, typist: Typist, simulator: Simulator, trouble: Behaviour, killed: bool
) -> None:
    simulator.script("Say w", trouble)
    project.pool(pool())
    await typist("enqueue", "pool.jsonl")
    worker = await start_with_that_clock(project, "work", "-c", str(SLOTS))
    await until(project.database, "select count(*) from work where available_at > 0")
    if killed:
        send(worker, SIGKILL)
        await worker.wait()
    project.write("set-back", "")
    if killed:
        worker = await start_with_that_clock(project, "work", "-c", str(SLOTS))
    async with asyncio.timeout(60):  # the clock was set back by an hour
        assert (await ended(worker)).code == 0
    assert simulator.calls <= ITEMS + 1 + (SLOTS if killed else 0)


async def test_a_clock_that_jumps_makes_nobody_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set on by an hour, or after a night with the lid closed, every lease has run out."""
    path = tmp_path / "batchgen.db"
    jumped_ms = [0]
    monkeypatch.setattr(
        "batchgen.store.transactions.seat.now_ms",
        lambda: time.time_ns() // 1_000_000 + jumped_ms[0],
    )
    async with open_store(path, create=True) as one, open_store(path) as two:
        recipe = Recipe(system=None, user=None, model="m", params={})
        async with one.enqueueing("e", recipe, OtherRecipe.STOP) as into:
            content = '{"a": 1}'
            key = key_of_content(into.experiment_id, into.variant, content.encode())
            await one.add_items(into, [NewItem(key, content, None, "here")])
        async with one.seat(1, 60, 3) as worker, two.seat(1, 60, 3) as other:
            (item,) = (await worker.exchange([], claims(1))).items
            for jumped_ms[0] in (HOUR_MS, -HOUR_MS):
                assert await other.heartbeat() is True
                assert (await other.exchange([], claims(1))).items == []
                assert await worker.heartbeat() is True
            done = await worker.exchange([Outcome(item, (), Release())], ClaimRequest())
            assert done.lost == []
