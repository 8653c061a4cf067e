"""What holds for the store holds on every engine."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from batchgen.database_address import DatabaseAddress
from tests.kits.table import Table, open_table

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


@pytest.fixture
def table(database: DatabaseAddress) -> Iterator[Table]:
    """Without rows; in the end it must be free of contradictions."""
    with open_table(database) as opened:
        yield opened


@pytest.fixture(scope="module")
def new_table(
    engine: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> NewTable:
    """The same, as often as one is wanted; also for each example of a test."""

    @contextmanager
    def opened() -> Iterator[Table]:
        if engine == "sqlite":
            with open_table(tmp_path_factory.mktemp("table") / "batchgen.db") as table:
                yield table
            return
        server = request.getfixturevalue("postgres_server")
        address = server.new_database()
        with open_table(address) as table:
            yield table
        server.drop(address)

    return opened


@pytest.fixture
def ended_process() -> Iterator["subprocess.Popen[bytes]"]:
    """One that its parent does not look after yet."""
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process
    process.wait()
