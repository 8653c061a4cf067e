"""A standby of a server of the tests, which has all that was committed there, and may take over."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.postgres import Server
from tests.kits.postgres_programs import NOBODY, as_user


@contextmanager
def standby_of(primary: Server) -> Iterator[Server]:
    """A commit of the primary waits for it from now on. It becomes the primary by `take_over`."""
    if not primary.program("pg_basebackup").exists():
        pytest.skip("pg_basebackup is not among the programs of this server")
    rules = primary.folder / "data" / "pg_hba.conf"
    rules.write_text(rules.read_text() + "local replication all trust\n")
    primary.execute("select pg_reload_conf()")
    folder = Path(tempfile.mkdtemp(prefix="batchgen-standby-"))
    if os.getuid() == 0:
        os.chown(folder, NOBODY, NOBODY)
    made = Server.of_data(folder, primary)
    try:
        subprocess.run(
            [made.program("pg_basebackup"), "-D", folder / "data", "-R", "-h", primary.folder,
             "-p", str(primary.port), "-U", "batchgen", "-X", "stream", "--checkpoint=fast",
             "--no-sync"],
            check=True, **as_user(),
        )  # fmt: skip
        made.start()
        primary.execute("alter system set synchronous_standby_names = '*'")
        primary.execute("select pg_reload_conf()")
        give_up_at = time.monotonic() + 60
        while primary.execute("select sync_state from pg_stat_replication") != [("sync",)]:
            assert time.monotonic() < give_up_at
            time.sleep(0.05)
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def take_over(standby: Server) -> None:
    standby.execute("alter system set synchronous_standby_names = ''")
    standby.execute("select pg_promote()")
    standby.execute("select pg_reload_conf()")
