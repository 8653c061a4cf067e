"""What the tests stand on: real files, real processes, and the simulated model as a real server.

The server is the point of synchronisation: `await simulator.received(7)`, `simulator.hold()`, then
act. Nothing sleeps to wait for something.
"""

import gc
import os
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from batchgen.simulate import Simulator
from tests.kits.project import Project
from tests.kits.terminal import Terminal
from tests.kits.typist import Typist

if TYPE_CHECKING:
    from batchgen.database_address import PostgresAddress
    from tests.kits.postgres import Cluster

_STORE = Path(__file__).parent / "store"
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 6 << 30  # three times what the tests write

# A busy machine is no failure, so nothing has a deadline.
settings.register_profile("fast", max_examples=20, deadline=None)
settings.register_profile("slow", max_examples=400, deadline=None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also what is proven by quantity")
    parser.addoption(
        "--engine", choices=("chosen", "sqlite", "postgres", "both"),
        help="where commands keep their database (default: in SQLite, and those tests that are "
        "marked on_both_engines on PostgreSQL too; with --slow, both)",
    )  # fmt: skip


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads its option
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: runs with --slow only")
    config.addinivalue_line(
        "markers",
        "quick(*names): of its cases those whose ids have one of these, the others are slow",
    )
    config.addinivalue_line("markers", "on_both_engines: also without --slow, or though it is slow")
    config.addinivalue_line("markers", "only_sqlite(reason): is not true of PostgreSQL")
    gc.set_threshold(20_000, 20, 100)  # there are so many objects that a look takes long
    # A shell's background job ignores it, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.load_profile("slow" if config.getoption("--slow") else "fast")
    if config.getoption("--slow"):
        config.option.timeout = 1800
    elif config.option.basetemp is None:
        _keep_files_in_memory(config)


def _keep_files_in_memory(config: pytest.Config) -> None:
    """While the tests run, if there is room: each commits dozens of times, and would wait for the
    disk each time. What a killed process has written stays there as it does on a disk."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES:
        made = config.option.basetemp = tempfile.mkdtemp(prefix="batchgen-tests-", dir=_MEMORY)
        config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "engine" not in metafunc.fixturenames or _STORE in metafunc.definition.path.parents:
        return  # the store's tests say by themselves on which they run
    engines = _engines(metafunc.config, metafunc.definition)
    if engines != ["sqlite"]:
        metafunc.parametrize("engine", engines, indirect=True)


def _engines(config: pytest.Config, test: pytest.Item) -> list[str]:
    """On which a test of commands runs. What only PostgreSQL is asked for, SQLite's own tests are
    left out of."""
    wanted = config.getoption("--engine")
    if wanted is None:
        wanted = "both" if config.getoption("--slow") else "chosen"
    if wanted == "chosen":
        wanted = "both" if test.get_closest_marker("on_both_engines") else "sqlite"
    engines = ["sqlite", "postgres"] if wanted == "both" else [wanted]
    is_for_one = test.get_closest_marker("slow") and not test.get_closest_marker("on_both_engines")
    if test.get_closest_marker("only_sqlite") or is_for_one:
        engines = [one for one in engines if one == "sqlite"]
    return engines


@pytest.hookimpl(tryfirst=True)  # before others leave out what is not chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    are_some_left_out = config.getoption("lf") or any("[" in argument for argument in config.args)
    if not are_some_left_out:
        _prove_that_quick_cases_are_there(items)
    slow = bool(config.getoption("--slow"))
    left_out = [item for item in items if _is_left_out(item, slow=slow)]
    if left_out:
        items[:] = [item for item in items if not _is_left_out(item, slow=slow)]
        config.hook.pytest_deselected(items=left_out)


def _is_left_out(item: pytest.Item, *, slow: bool) -> bool:
    """A mark of one case of a test counts as well."""
    case = getattr(item, "callspec", None)
    is_served = case is not None and case.params.get("engine") == "postgres"
    return (is_served and item.get_closest_marker("only_sqlite") is not None) or (
        not slow and (item.get_closest_marker("slow") is not None or not _is_quick(item))
    )


def _is_quick(item: pytest.Item) -> bool:
    marker = item.get_closest_marker("quick")
    return marker is None or any(_has(item, name) for name in marker.args)


def _has(item: pytest.Item, name: str) -> bool:
    """Whether its id is or has this: "gather" and "gather-4" are in [kill-gather-4]."""
    case = getattr(item, "callspec", None)
    return case is not None and f"-{name}-" in f"-{case.id}-"


def _prove_that_quick_cases_are_there(items: list[pytest.Item]) -> None:
    """So that a case that is renamed does not take its test out of the quick set in silence."""
    cases: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("quick"):
            cases.setdefault(item.nodeid.partition("[")[0], []).append(item)
    missing = [
        f"{test}: there is no case {name!r} to be quick"
        for test, those in cases.items()
        for marker in those[0].iter_markers("quick")
        for name in marker.args
        if not any(_has(item, name) for item in those)
    ]
    if missing:
        raise pytest.UsageError("\n".join(missing))


@pytest.fixture
def slow(request: pytest.FixtureRequest) -> bool:
    """Whether to prove by quantity."""
    return bool(request.config.getoption("--slow"))


def pytest_report_header() -> str:
    return f"SQLite {sqlite3.sqlite_version}"


@pytest.fixture(autouse=True)
def clean_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """No setting of the developer's own reaches a test, and no test leaves anything at home."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
    for name in list(os.environ):
        if name.startswith(("BATCHGEN_", "OPENAI_", "PG")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    server = Simulator()
    async with server.running():
        yield server


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """What keeps the database of commands."""
    return str(getattr(request, "param", "sqlite"))


@pytest.fixture
def server(
    engine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> "PostgresAddress | None":
    """Where commands keep their database if they are not told otherwise; None: in a file beside the
    config."""
    if engine == "sqlite":
        return None
    address: PostgresAddress = request.getfixturevalue("postgres")
    monkeypatch.setenv("BATCHGEN_DATABASE", address.url)
    return address


@pytest.fixture
async def project(
    tmp_path: Path, simulator: Simulator, server: "PostgresAddress | None"
) -> AsyncIterator[Project]:
    """On the simulated model: template "Say {word}", parser raw. No process outlives it."""
    made = Project(tmp_path, simulator.base_url, server=server)
    made.config()
    made.write("prompts/user_prompts/default.txt", "Say {word}\n")
    yield made
    for process in made.running:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()  # also of one that ended, so that its pipes are closed


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    made = Terminal()
    yield made
    made.close()


@pytest.fixture
def batchgen(project: Project) -> Typist:
    """Commands typed in the project's directory, in this process."""
    return Typist(project.path, project.env)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator["Cluster"]:
    """A real server, one for the whole session. Where there is none its tests are skipped, but not
    where all is to be proven."""
    from tests.kits.postgres import cluster  # here: most tests need no driver
    from tests.kits.postgres_programs import NoPostgresError

    try:
        with cluster() as made:
            yield made
    except NoPostgresError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))


@pytest.fixture
def postgres(postgres_server: "Cluster") -> Iterator["PostgresAddress"]:
    """A database of its own on it, with our tables."""
    address = postgres_server.new_database()
    yield address
    postgres_server.drop(address)


@pytest.fixture
def words() -> Callable[[int], Iterator[dict[str, str]]]:
    """Flat items for the project's template: {"word": "w0"}, {"word": "w1"}..."""
    return lambda n: ({"word": f"w{number}"} for number in range(n))
