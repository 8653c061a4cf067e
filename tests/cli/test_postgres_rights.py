"""A user that may look at another one's tables, and not write: what it can do, and is told."""

from collections.abc import Iterator

import pytest

from batchgen.database_address import PostgresAddress, address_of
from tests.kits.postgres import execute
from tests.kits.project import Project

pytestmark = pytest.mark.only_sqlite("it has a server of its own")

LOOKS = (("status",), ("show", "1"), ("failures",), ("experiments",), ("export", "-o", "-"))
NEEDS_SEQUENCES = (("verify",),)
WRITES = (("enqueue", "pool.jsonl"), ("work",), ("export", "-o", "out.jsonl"))


@pytest.fixture
def looker(postgres: PostgresAddress) -> Iterator[PostgresAddress]:
    """A user without any right, yet."""
    role = "looker_" + postgres.url.partition("test_")[2][:8]
    execute(postgres.url, f"create role {role} login")
    yield address_of(postgres.url.replace("batchgen@", f"{role}@"))
    execute(postgres.url, f"drop owned by {role}; drop role {role}")


def let_look(postgres: PostgresAddress, looker: PostgresAddress, *, sequences: bool) -> None:
    role = looker.url.partition("://")[2].partition("@")[0]
    execute(postgres.url, f"grant select on all tables in schema public to {role}")
    if sequences:
        execute(postgres.url, f"grant select on all sequences in schema public to {role}")


async def filled(project: Project, postgres: PostgresAddress) -> None:
    project.pool([{"word": "a"}, {"word": "b"}])
    run = await project.batchgen("--db", postgres.url, "run", "pool.jsonl")
    assert run.code == 0, run.err


@pytest.mark.quick("True")
@pytest.mark.parametrize("sequences", [True, False])
async def test_who_may_only_look_is_told_so(
    project: Project, postgres: PostgresAddress, looker: PostgresAddress, sequences: bool
) -> None:
    await filled(project, postgres)
    let_look(postgres, looker, sequences=sequences)
    for command in (*LOOKS, *(NEEDS_SEQUENCES if sequences else ())):
        looked = await project.batchgen("--db", looker.url, *command)
        assert looked.code == 0, (command, looked.err)
    for command in (*WRITES, *(() if sequences else NEEDS_SEQUENCES)):
        refused = await project.batchgen("--db", looker.url, *command)
        assert refused.code == 1, command
        assert "its user may not use the tables there (permission denied for " in refused.err
        assert "grant OWNER to USER. Who may only read them may only look: " in refused.err
        assert "status, show, failures" in refused.err


async def test_where_it_was_moved_comes_first(
    project: Project, postgres: PostgresAddress, looker: PostgresAddress
) -> None:
    await filled(project, postgres)
    let_look(postgres, looker, sequences=False)
    assert (await project.batchgen("move", postgres.url, "new.db")).code == 0
    for command in (("work",), ("enqueue", "pool.jsonl")):
        refused = await project.batchgen("--db", looker.url, *command)
        assert refused.code == 1
        assert "was moved to " in refused.err
        assert "permission denied" not in refused.err
