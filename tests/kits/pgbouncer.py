"""pgbouncer in transaction mode before a server of the tests, where it is installed."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.kits.machines import free_port
from tests.kits.postgres import Server


class Pooler:
    def __init__(self, program: str, folder: Path, port: int) -> None:
        self._command = (program, str(folder / "ini"))
        self._folder, self._port = folder, port

    def url(self, database: str, user: str) -> str:
        """Of a database through it."""
        return f"postgresql://{user}@127.0.0.1:{self._port}/{database}"

    def start(self) -> None:
        user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []}
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                **(user if os.getuid() == 0 else {}),
            )  # fmt: skip
        _wait_until_it_answers(self.url("postgres", "batchgen"), self._folder)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def pooler(server: Server, *, connections: int) -> Iterator[Pooler]:
    """Each database and user has so many connections to the server, which all who come share."""
    program = shutil.which("pgbouncer") or shutil.which("/usr/sbin/pgbouncer")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    folder, port = Path(tempfile.mkdtemp(prefix="batchgen-pgbouncer-")), free_port("127.0.0.1")
    (folder / "users").write_text('"worker" ""\n"batchgen" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n* = host={server.folder} port={server.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {folder}/users\npool_mode = transaction\nmax_client_conn = 500\n"
        f"default_pool_size = {connections}\nignore_startup_parameters = extra_float_digits\n"
    )
    folder.chmod(0o755)
    made = Pooler(program, folder, port)
    try:
        made.start()
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)


def _wait_until_it_answers(url: str, folder: Path) -> None:
    give_up_at = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as exc:
            if time.monotonic() > give_up_at:
                raise AssertionError(f"{exc}\n{(folder / 'log').read_text()}") from exc
            time.sleep(0.05)
        else:
            return
