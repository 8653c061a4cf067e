"""Power loss, stood in for: the write-ahead log of a whole job, cut after each of its frames.

What a disk holds after a power cut is some prefix of the log (SQLite checks each frame's sum, so a
torn frame ends it). From every prefix the tables must be without contradiction, and a sample of
them must lead to the same export as a run that nobody disturbed.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batchgen.simulate import Simulator
from batchgen.store.sqlite.transaction import SqliteTransaction
from batchgen.store.transactions.verify import verify_tables
from tests.kits.pipelines import KINDS, Pipeline, exported_text
from tests.kits.pipelines import pool as pool_of
from tests.kits.project import Project, without_times

pytestmark = pytest.mark.only_sqlite("stopped where SQLite waits; PostgreSQL has its own")

Words = Callable[[int], Iterator[dict[str, Any]]]
WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
ITEMS = 30
RESUMED = 6


@pytest.fixture
async def whole_wal(project: Project, simulator: Simulator, words: Words) -> tuple[bytes, bytes]:
    """The database and the log of a job with retries in it, of which nothing was checkpointed."""
    simulator.script("Say w3", "500")
    simulator.script("Say w7", "429")
    project.pool(words(ITEMS))
    return await run_and_keep_the_log(project)


async def run_and_keep_the_log(project: Project) -> tuple[bytes, bytes]:
    """Of `pool.jsonl`; the database before it and the log."""
    project.pool([], "empty.jsonl")
    await project.batchgen("enqueue", "empty.jsonl")  # makes the tables
    base = project.file.read_bytes()  # before we have a lock, which closing it would drop
    # As long as somebody reads what was there before it, the log is neither ended nor begun anew.
    reader = sqlite3.connect(project.file, isolation_level=None)
    reader.execute("begin")
    reader.execute("select count(*) from items").fetchall()
    assert (await project.batchgen("run", "pool.jsonl", "-c", "4")).code == 0
    log = Path(f"{project.database}-wal").read_bytes()
    assert project.file.read_bytes() == base
    reader.close()
    return base, log


def frame_ends(log: bytes) -> list[int]:
    page_bytes = int.from_bytes(log[8:12], "big")
    return list(range(WAL_HEADER_BYTES, len(log) + 1, FRAME_HEADER_BYTES + page_bytes))


def lay_out(directory: Path, base: bytes, log: bytes) -> Path:
    """A database as a power cut would leave it."""
    directory.mkdir()
    database = directory / "batchgen.db"
    database.write_bytes(base)
    Path(f"{database}-wal").write_bytes(log)
    return database


def problems_of(database: Path) -> list[str]:
    connection = sqlite3.connect(database)
    try:
        return verify_tables(SqliteTransaction(connection))
    finally:
        connection.close()


@pytest.mark.slow
async def test_every_prefix_of_the_log_is_without_contradiction(
    whole_wal: tuple[bytes, bytes], tmp_path: Path
) -> None:
    assert problems_of_prefixes(*whole_wal, tmp_path) == {}


def problems_of_prefixes(base: bytes, log: bytes, tmp_path: Path) -> dict[int, list[str]]:
    """By where the log was cut."""
    ends = frame_ends(log)
    assert len(ends) > 50
    found = {}
    for end in ends:
        for cut in (end, end + 1000):  # after a frame, and in the middle of the next
            directory = tmp_path / f"cut{cut}"
            if problems := problems_of(lay_out(directory, base, log[:cut])):
                found[cut] = problems
            shutil.rmtree(directory)
    return found


async def test_a_sample_of_prefixes_leads_to_the_same_export(
    whole_wal: tuple[bytes, bytes], project: Project, simulator: Simulator, tmp_path: Path
) -> None:
    base, log = whole_wal
    calm = [without_times(line) for line in project.export()]
    ends = frame_ends(log)
    for end in ends[:: len(ends) // RESUMED]:
        resumed = Project(tmp_path / f"resumed{end}", project.base_url)
        lay_out(resumed.path, base, log[:end])
        resumed.config()
        resumed.write("prompts/user_prompts/default.txt", "Say {word}\n")
        resumed.write("pool.jsonl", (project.path / "pool.jsonl").read_bytes())
        assert (await resumed.batchgen("run", "pool.jsonl")).code == 0
        lines = [without_times(line) for line in resumed.export()]
        assert [line["response"] for line in lines] == [line["response"] for line in calm]
        assert (await resumed.batchgen("verify")).code == 0


@pytest.mark.quick("function")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
async def test_every_prefix_of_the_log_has_whole_chains(
    project: Project, simulator: Simulator, kind: Pipeline, slow: bool
) -> None:
    """No done row without all that follows it, and none of it twice; and from some of the prefixes
    the chains end as they did."""
    kind.set_up(project)
    project.pool(pool_of(ITEMS if slow else 8))
    base, log = await run_and_keep_the_log(project)
    calm = exported_text(project)
    assert problems_of_prefixes(base, log, project.path) == {}
    ends = frame_ends(log)
    for end in ends[:: len(ends) // (RESUMED if slow else 2)]:
        resumed = Project(project.path / f"resumed{end}", project.base_url)
        lay_out(resumed.path, base, log[:end])
        kind.set_up(resumed)
        resumed.write("pool.jsonl", (project.path / "pool.jsonl").read_bytes())
        assert (await resumed.batchgen("run", "pool.jsonl")).code == 0
        assert exported_text(resumed) == calm
        assert (await resumed.batchgen("verify")).code == 0
