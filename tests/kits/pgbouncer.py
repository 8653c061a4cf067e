"""pgbouncer in transaction mode before a server of the tests, where it is installed."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.kits.machines import free_port
from tests.kits.postgres import Server


@contextmanager
def pooler(server: Server, *, connections: int) -> Iterator[Callable[[str, str], str]]:
    """What gives the URL of a database and a user through it. Each has so many connections to the
    server, which all who come share."""
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
    as_nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, folder / "ini"], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            **as_nobody,  # type: ignore[call-overload]
        )  # fmt: skip
    try:
        _wait_until_it_answers(f"postgresql://batchgen@127.0.0.1:{port}/postgres", folder)
        yield lambda database, user: f"postgresql://{user}@127.0.0.1:{port}/{database}"
    finally:
        process.kill()
        process.wait()
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
