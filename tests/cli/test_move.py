"""The database moved to a server and back: nothing is another one afterwards, and never do two
databases work."""

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.errors import MovedError
from batchgen.simulate import Simulator
from batchgen.store import OtherRecipe, open_store
from batchgen.store.postgres.migrate import migrations as of_postgres
from batchgen.store.sqlite.gate import OwnerLock
from batchgen.store.tables import OF_FILES, OF_THE_LIVING, TABLES
from tests.cli.test_steps import topics
from tests.kits.killed_move import POINTS
from tests.kits.postgres import Cluster, execute
from tests.kits.project import Project
from tests.kits.table import RECIPE
from tests.kits.typist import Ended

pytestmark = pytest.mark.only_sqlite("it moves between a file and a server by itself")

CODE = """\
def size(text):
    return {"n": 1, "text": text}

def score(item, values):
    return 10 / (int(item["topic"].split()[-1]) - 3)
"""
STEPS = """\
output_data: {experiment_name: demo}
steps:
  - {name: draft, user: {text: "Write about {topic}"}, parser: "code.py:size", value: parsed.n}
  - {name: score, function: "code.py:score"}
  - {name: critique, when: score < 0, user: {text: "Mend {topic}, of {draft}"}}
"""


@pytest.fixture
def there(postgres_server: Cluster) -> Iterator[PostgresAddress]:
    """An empty database on it."""
    address = postgres_server.new_database("template0")
    yield address
    postgres_server.drop(address)


@pytest.fixture
async def rich(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two experiments. The first: steps, samples, items that failed, rows that are stale. The
    other: items that are done and such as are not, and files that were written."""
    kept = tmp_path_factory.getbasetemp() / "rich"
    if kept.exists():
        shutil.copytree(kept, project.path, dirs_exist_ok=True)
        project.config()
    else:
        await fill(project)
        shutil.copytree(project.path, kept)
    return project


async def fill(project: Project) -> None:
    project.write("code.py", CODE)
    project.config(STEPS)
    project.pool(topics(5))
    await well(project, "run", "pool.jsonl", "--samples", "2", code=3)
    project.write("code.py", CODE.replace('"n": 1', '"n": 1 + len(text) % 2'))
    await well(project, "reparse", "--step", "draft", "--all")
    project.config()
    project.pool([{"id": f"w{n}", "word": f"w{n}"} for n in range(12)])
    await well(project, "enqueue", "pool.jsonl")
    await well(project, "work", "--experiment", "default", "--max-items", "7", "-o", "live.jsonl")
    await well(project, "export", "--experiment", "default", "-o", "some.jsonl")
    await well(project, "review", "w1", "--reject")
    await well(project, "review", "w1", "--accept", "--note", "good", "--edit", '"better"')


async def well(project: Project, *command: str, code: int = 0) -> Ended:
    ended = await project.batchgen(*command)
    assert ended.code == code, ended.err or ended.out
    return ended


def rows_of(database: Path) -> dict[str, list[Any]]:
    """All that a move takes, and the numbers that were given out."""
    with closing(sqlite3.connect(database)) as db:
        found = {
            table: db.execute(f"select * from {table} order by {order}").fetchall()
            for table, order in TABLES.items()
        }
        found["numbers"] = db.execute("select * from sqlite_sequence order by name").fetchall()
    return found


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_there_and_back_nothing_is_another(rich: Project, there: PostgresAddress) -> None:
    before = rows_of(rich.file)
    assert all(before[table] for table in ("reviews", "results", "exports"))
    moved = await well(rich, "move", "batchgen.db", there.url)
    assert moved.out.splitlines()[0] == (
        f"Moved {len(before['work'])} rows from batchgen.db to {there.name}, "
        f"{sum(row[2] == 'done' for row in before['work'])} of them done; the copy is proven."
    )
    said = [await well(rich, *where, "verify") for where in ((), ("--db", there.url))]
    moved_line, _, well_line = said[0].out.partition("\n")
    assert moved_line.startswith(f"This database was moved to {there.name}, and takes no more work")
    told = await well(rich, "verify", "--json")
    assert json.loads(told.out)["moved_to"] == there.name
    assert well_line.partition("(")[0] == said[1].out.partition("(")[0]
    back = rich.path / "back.db"
    await well(rich, "move", there.url, "back.db")
    assert rows_of(back) == before
    assert (await well(rich, "--db", "back.db", "verify")).code == 0


@pytest.mark.slow
async def test_from_any_kind_to_any_kind(
    rich: Project, there: PostgresAddress, postgres_server: Cluster
) -> None:
    before = rows_of(rich.file)
    elsewhere = postgres_server.new_database("template0")
    places = ["batchgen.db", "other.db", there.url, elsewhere.url, "back.db"]
    for old, new in pairwise(places):
        await well(rich, "move", old, new)
        await well(rich, "--db", new, "verify")
        refused = await rich.batchgen("--db", old, "work")
        assert refused.code == 1
        assert "takes no more work" in refused.err
    assert rows_of(rich.path / "back.db") == before
    postgres_server.drop(elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "default"])
async def test_the_export_is_the_same_on_all_three(
    rich: Project, there: PostgresAddress, name: str
) -> None:
    written = []
    for step, database in enumerate(("batchgen.db", there.url, "back.db")):
        if step:
            await well(rich, "move", ("batchgen.db", there.url)[step - 1], database)
        await well(rich, "--db", database, "export", "--experiment", name, "-o", f"{step}.jsonl")
        written.append((rich.path / f"{step}.jsonl").read_bytes())
    assert written[0] == written[1] == written[2]
    assert written[0].count(b"\n") > 1


async def test_work_goes_on_where_it_stopped(
    rich: Project, there: PostgresAddress, simulator: Simulator
) -> None:
    await well(rich, "move", "batchgen.db", there.url)
    calls = simulator.calls
    await well(rich, "--db", there.url, "run", "pool.jsonl")
    assert simulator.calls == calls + 5
    await well(rich, "--db", there.url, "verify")


@pytest.mark.quick("True")
@pytest.mark.parametrize("to_server", [True, False])
async def test_the_old_one_takes_no_more_work(
    rich: Project, there: PostgresAddress, simulator: Simulator, to_server: bool
) -> None:
    old, new = ("batchgen.db", there.url) if to_server else (there.url, "new.db")
    if not to_server:
        await well(rich, "move", "batchgen.db", there.url)
    await well(rich, "move", old, new)
    calls = simulator.calls
    rich.pool([{"word": "another"}], "more.jsonl")
    host = os.uname().nodename
    name = there.url if to_server else f"{rich.path / 'new.db'} on {host}"
    for command in (
        ("work",), ("enqueue", "more.jsonl"), ("run", "more.jsonl"),
        ("retry", "--experiment", "demo"), ("experiments", "rename", "demo", "other"),
        ("experiments", "delete", "demo", "--yes"),
        ("reparse", "--experiment", "demo", "--step", "draft", "--all", "--parser", "raw"),
    ):  # fmt: skip
        refused = await rich.batchgen("--db", old, *command)
        assert refused.code == 1, (command, refused)
        assert f"was moved to {name}, and takes no more work. Go on there" in refused.err, command
    assert simulator.calls == calls
    said = await well(rich, "--db", old, "status", "--experiment", "default")
    assert said.out.startswith(f"This database was moved to {name}, and takes no more work")
    told = json.loads((await well(rich, "--db", old, "status", "--json")).out)
    assert told["moved_to"] == name
    there_now = await well(rich, "--db", new, "status", "--json")
    assert "moved_to" not in json.loads(there_now.out)
    await well(rich, "--db", old, "export", "--experiment", "default", "-o", "x.jsonl")
    again = await rich.batchgen("move", old, new)
    assert again.code == 0
    assert again.out.splitlines()[0].endswith("already.")
    elsewhere = await rich.batchgen("move", old, "elsewhere.db")
    assert elsewhere.code == 2
    assert f"was moved to {name}." in elsewhere.err


@pytest.mark.quick("True")
@pytest.mark.parametrize("to_server", [True, False])
async def test_who_had_it_open_before_is_refused_too(
    rich: Project, there: PostgresAddress, to_server: bool
) -> None:
    old, new = ("batchgen.db", there.url) if to_server else (there.url, "new.db")
    if not to_server:
        await well(rich, "move", "batchgen.db", there.url)
    async with open_store(rich.file if to_server else there) as store:
        assert sum((await store.counts()).reasons.values()) > 0
        await (await rich.start("move", old, new)).wait()
        with pytest.raises(MovedError):
            async with store.seat(1, 30.0, 3):
                pass
        with pytest.raises(MovedError):
            await store.rename_experiment(1, "another")


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_it_waits_for_workers_to_be_stopped(
    project: Project, there: PostgresAddress, simulator: Simulator
) -> None:
    project.pool([{"word": "w"}])
    await well(project, "enqueue", "pool.jsonl")
    simulator.hold()
    worker = await project.start("work")
    await simulator.received(1)
    refused = await project.batchgen("move", "batchgen.db", there.url)
    assert refused.code == 2
    assert f"batchgen.db: is at work: worker 1 (pid {worker.pid} on " in refused.err
    assert "batchgen --db batchgen.db stop --wait" in refused.err
    worker.send_signal(signal.SIGKILL)
    await worker.wait()
    await well(project, "move", "batchgen.db", there.url)
    simulator.release()
    await well(project, "--db", there.url, "work")
    outcomes = execute(there.url, "select outcome from attempts order by seq")
    assert outcomes == [("unknown",), ("answered",)]


async def test_it_waits_for_enqueueing(rich: Project, there: PostgresAddress) -> None:
    lock = OwnerLock(rich.path / "batchgen.db-enqueue")
    assert lock.acquire()
    refused = await rich.batchgen("move", "batchgen.db", there.url)
    lock.release()
    assert refused.code == 2
    assert "batchgen.db: another batchgen is enqueueing into it" in refused.err
    await well(rich, "move", "batchgen.db", there.url)


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_one_that_is_refused_leaves_no_file_behind(
    rich: Project, there: PostgresAddress
) -> None:
    async def is_refused(source: str) -> None:
        refused = await rich.batchgen("move", source, "new.db")
        assert refused.code == 2
        assert "another batchgen is enqueueing" in refused.err
        assert list(rich.path.glob("new.db*")) == []

    lock = OwnerLock(rich.path / "batchgen.db-enqueue")
    assert lock.acquire()
    await is_refused("batchgen.db")
    lock.release()
    await well(rich, "move", "batchgen.db", there.url)
    async with open_store(there) as store, store.enqueueing("e", RECIPE, OtherRecipe.STOP):
        await is_refused(there.url)
    await well(rich, "move", there.url, "new.db")


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_it_goes_into_an_empty_database_alone(
    rich: Project, there: PostgresAddress, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    await well(rich, "--db", str(other / "batchgen.db"), "enqueue", "pool.jsonl")
    refused = await rich.batchgen("move", "batchgen.db", str(other / "batchgen.db"))
    assert refused.code == 2
    assert "is not empty (its table parsers has rows)" in refused.err
    refused = await rich.batchgen("move", "batchgen.db", "./batchgen.db")
    assert refused.code == 2
    refused = await rich.batchgen("move", "none.db", there.url)
    assert refused.code == 2
    assert "none.db: no such database" in refused.err
    refused = await rich.batchgen("move", "batchgen.db", "postgresql://a:secret@host:x/b")
    assert refused.code == 2
    assert "secret" not in refused.err
    await well(rich, "move", "batchgen.db", there.url)  # nothing of it did any harm


@pytest.mark.slow
@pytest.mark.on_both_engines
@pytest.mark.parametrize("to_server", [True, False])
async def test_what_was_moved_away_is_to_be_removed_before_another_trip(
    rich: Project, there: PostgresAddress, to_server: bool
) -> None:
    await well(rich, "move", "batchgen.db", there.url)
    await well(rich, "move", there.url, "back.db")
    again = there.url if to_server else "batchgen.db"
    refused = await rich.batchgen("move", "back.db", again)
    assert refused.code == 2
    went = f"{rich.path / 'back.db'} on " if to_server else there.name
    assert f"is not empty: it was moved to {went}" in refused.err
    assert "drop schema NAME cascade; create schema NAME" in refused.err
    if to_server:
        execute(there.url, "drop schema public cascade; create schema public")
    else:
        (rich.path / "batchgen.db").unlink()
    await well(rich, "move", "back.db", again)
    await well(rich, "--db", again, "verify")


async def test_u0000_is_replaced_and_told(rich: Project, there: PostgresAddress) -> None:
    with closing(sqlite3.connect(rich.file)) as db, db:
        ((seq, answer),) = db.execute(
            "select max(seq), response from attempts where outcome = 'answered'"
        )
        # As long as it was: how long answers are is counted.
        change = "update attempts set response = char(0) || ? || char(0) where seq = ?"
        db.execute(change, [answer[1:-1], seq])
    moved = await well(rich, "move", "batchgen.db", there.url)
    assert "1 text had the character U+0000" in moved.err
    found = execute(there.url, "select response from attempts order by seq desc limit 1")
    assert found == [(f"\ufffd{answer[1:-1]}\ufffd",)]


async def test_what_is_contradictory_is_not_moved(rich: Project, there: PostgresAddress) -> None:
    with closing(sqlite3.connect(rich.file)) as db, db:
        db.execute("update counters set n = n + 1 where state = 'pending'")
    refused = await rich.batchgen("move", "batchgen.db", there.url)
    assert refused.code == 1
    assert "batchgen.db: not moved, as the copy would not be whole: " in refused.err
    assert execute(there.url, "select count(*) from items") == [(0,)]
    await well(rich, "work", "--max-items", "1")


@pytest.mark.quick("between the commits-False", "proving-True")
@pytest.mark.parametrize("to_server", [True, False])
@pytest.mark.parametrize("point", POINTS)
async def test_killed_at_any_moment_one_of_them_works(
    rich: Project, there: PostgresAddress, point: str, to_server: bool
) -> None:
    before = rows_of(rich.file)
    old, new = ("batchgen.db", there.url) if to_server else (there.url, "new.db")
    if not to_server:
        await well(rich, "move", "batchgen.db", there.url)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.kits.killed_move",
        rich.path / old if to_server else old, new if to_server else rich.path / new,
        point, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert await process.wait() == -signal.SIGKILL
    work = ("work", "--max-items", "1")
    worked = [await rich.batchgen("--db", one, *work) for one in (old, new)]
    codes = [one.code for one in worked]
    if point == "between the commits":
        assert codes[0] == 1
        assert "begin the same move again" in worked[0].err
        assert codes[1] == 2
    else:
        assert codes == ([1, 0] if point == "at the end" else [0, 2])
    await well(rich, "move", old, new)
    await well(rich, "--db", new, "verify")
    await well(rich, "--db", new, "work")
    assert len(before["items"]) > 20


def test_each_table_is_moved_or_known_to_stay() -> None:
    """A table, or a column, that only one engine has would not be moved."""
    stay = {*OF_THE_LIVING, "moves", "new_item_keys", "schema_version", "leases", "commits"}
    texts = [Path(file).read_text() for file in of_postgres()]
    assert texts
    golden = (Path(__file__).parents[1] / "store" / "golden" / "schema.sql").read_text()
    known = {*TABLES, *stay}
    for text in (golden, *texts):
        tables = {
            line.split()[2].removesuffix("_by_worker")
            for line in text.splitlines()
            if line.lower().startswith("create table ")
        }
        assert tables <= known, tables - known
    assert set(OF_FILES) < set(TABLES)


def test_both_engines_have_the_same_columns(postgres: PostgresAddress, tmp_path: Path) -> None:
    from batchgen.store.postgres.moving import open_source as on_server
    from batchgen.store.sqlite.moving import open_target as in_file

    with in_file(tmp_path / "batchgen.db") as file, on_server(postgres) as there:
        for table in TABLES:
            assert sorted(file.columns(table)) == sorted(there.columns(table)), table
