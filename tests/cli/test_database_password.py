"""The password of a database's address is in no list of processes, no file and no text of ours."""

import os
from pathlib import Path

import pytest

from batchgen.database_address import PostgresAddress
from batchgen.simulate import Simulator
from tests.kits.database import look
from tests.kits.postgres import Cluster
from tests.kits.project import Project, ended
from tests.kits.terminal import Terminal
from tests.kits.typist import Ended, Typist

PASSWORD = "s3cret-Word:/@%"
PLAIN, QUOTED = "s3cret-Word", "s3cret-Word%3A"


@pytest.fixture
def guarded(project: Project, postgres_server: Cluster, postgres: PostgresAddress) -> Project:
    """Its database is on a server that asks for a password."""
    project.server = postgres_server.asking_for_a_password(postgres, PASSWORD)
    return project


def places_with_the_password(project: Project, *seen: Ended) -> list[str]:
    """Every file of the project, every text of a command, and every table, that has it."""
    files = (file for file in sorted(project.path.rglob("*")) if file.is_file())
    found = [file.name for file in files if PLAIN.encode() in file.read_bytes()]
    found += [text for one in seen for text in (one.out, one.err) if PLAIN in text]
    tables = project.query("select tablename from pg_tables where schemaname = 'public'")
    for (table,) in tables:
        rows = project.query(f"select count(*) from {table} t where t::text like '%{PLAIN}%'")
        found += [table for (n,) in rows if n]
    return found


def seen_from_outside(pid: int) -> bytes:
    """What the list of processes says of it, to everybody and to the user."""
    proc = Path(f"/proc/{pid}")
    return (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()


@pytest.mark.quick("environment")
@pytest.mark.parametrize("given", ["config", "environment", "option"])
async def test_it_is_nowhere_while_workers_work_and_after(
    guarded: Project, batchgen: Typist, simulator: Simulator, given: str
) -> None:
    assert guarded.server is not None
    url = guarded.server.url
    guarded.config(f"parser: raw\n{f'database: {url}' if given == 'config' else ''}\n")
    guarded.env |= {"BATCHGEN_DATABASE": url} if given == "environment" else {}
    option = ["--db", url] if given == "option" else []
    guarded.pool({"word": f"w{number}"} for number in range(6))
    simulator.hold()
    work = await guarded.start(
        *option, "-v", "run", "pool.jsonl", "--processes", "2", "-c", "4", fresh=True
    )
    await simulator.received(4)
    children = [pid for (pid,) in look(guarded.server, "select pid from workers")]
    assert len(children) == 2
    assert work.pid not in children
    assert not any(PLAIN.encode() in seen_from_outside(pid) for pid in children)
    simulator.release()
    worked = await ended(work)
    assert worked.code == 0, worked.err
    seen = [
        await batchgen(*option, *command)
        for command in [
            ["-v", "status"], ["status", "--json"], ["failures"], ["show", "1", "--json"],
            ["export", "--force"], ["experiments"], ["verify"], ["show", "99"],
            ["work", "--experiment", "other"], ["export", "--experiment", "other"],
        ]
    ]  # fmt: skip
    assert [one.code for one in seen] == [0] * 7 + [2] * 3
    written = ["config.yaml"] if given == "config" else []
    assert places_with_the_password(guarded, worked, *seen) == written


async def test_what_is_to_be_typed_again_has_the_address_without_it(
    guarded: Project, batchgen: Typist
) -> None:
    assert guarded.server is not None
    bare = guarded.server.url.replace(":s3cret-Word%3A%2F%40%25", "")
    assert "s3cret" not in bare
    empty = await batchgen("--db", guarded.server.url, "status")
    assert f"(batchgen --db {bare} enqueue)" in empty.out
    os.environ["PGPASSWORD"] = PASSWORD
    assert (await batchgen("--db", bare, "status")).code == 0


async def test_a_wrong_one_is_refused_in_one_line_without_it(
    guarded: Project, batchgen: Typist
) -> None:
    assert guarded.server is not None
    wrong = guarded.server.url.replace("Word", "Worm")
    user = guarded.server.name.split("/")[2].partition(":")[0]
    for command in (["status"], ["work"], ["enqueue", "pool.jsonl"]):
        guarded.pool([{"word": "a"}])
        refused = await batchgen("--db", wrong, *command)
        assert (refused.code, refused.out) == (1, "")
        assert refused.err == (
            f"error: {guarded.server.name}: the password of {user} is wrong, or it has no role "
            f"{user}. It is taken from the address, from PGPASSWORD, or from ~/.pgpass.\n"
        )


@pytest.mark.slow
@pytest.mark.on_both_engines
async def test_the_dashboard_is_headed_without_it(guarded: Project, terminal: Terminal) -> None:
    assert guarded.server is not None
    url = guarded.server.url
    watching = await terminal.start(guarded, "status", "--watch", BATCHGEN_DATABASE=url)
    await terminal.shows(r"postgresql://clerk_\w+:\*\*\*@")
    watching.terminate()
    await terminal.last_lines(watching)
    assert PLAIN not in terminal.raw
