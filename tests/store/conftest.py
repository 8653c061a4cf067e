"""What holds for the store holds on every engine."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from batchgen.database_address import DatabaseAddress
from tests.kits.engines import PostgresEngine, postgres_engine
from tests.kits.postgres import Cluster
from tests.kits.table import Table, open_table, sound_table

NewTable = Callable[[], AbstractContextManager[Table]]


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> DatabaseAddress:  # fmt: skip
    """Where one is that nobody has used yet."""
    is_file = engine == "sqlite"
    where: DatabaseAddress = (
        tmp_path / "batchgen.db" if is_file else request.getfixturevalue("postgres")
    )
    return where


@pytest.fixture(scope="session")
def standing(postgres_server: Cluster) -> Iterator[PostgresEngine]:
    """A database of PostgreSQL's with its connections, for one test after another."""
    address = postgres_server.new_database()
    with postgres_engine(address) as engine:
        yield engine
    postgres_server.drop(address)


@pytest.fixture
def table(engine: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    """Without rows; in the end it must be free of contradictions. It is where `database` says, for
    a test that wants to know."""
    if "database" in request.fixturenames:
        with open_table(request.getfixturevalue("database")) as opened:
            yield opened
    else:
        with _unused_table(engine, request, tmp_path) as opened:
            yield opened


@pytest.fixture(scope="module")
def new_table(
    engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NewTable:
    """The same, one after another; also for each example of a test."""
    return lambda: _unused_table(engine, request, tmp_path_factory.mktemp("table"))


@contextmanager
def _unused_table(engine: str, request: pytest.FixtureRequest, place: Path) -> Iterator[Table]:
    if engine == "sqlite":
        with open_table(place / "batchgen.db") as opened:
            yield opened
    else:
        standing: PostgresEngine = request.getfixturevalue("standing")
        standing.empty()
        with sound_table(standing) as opened:
            yield opened


@pytest.fixture
def ended_process() -> Iterator["subprocess.Popen[bytes]"]:
    """One that its parent does not look after yet."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process
    process.wait()
