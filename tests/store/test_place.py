"""Where a database may be: one file, one name, on a disk of this machine."""

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchgen.errors import StoreError, StoreRefusedError
from batchgen.store import open_store
from batchgen.store.sqlite.place import network_file_system
from batchgen.store.sqlite.problems import store_error
from tests.kits.project import Project
from tests.kits.typist import Ended

pytestmark = pytest.mark.only_sqlite("it is about files")

# Opens a database, says so, and keeps it open until its stdin ends.
OPEN = """
import asyncio, sys
from pathlib import Path
from batchgen.store import open_store
async def main():
    async with open_store(Path(sys.argv[1])) as store:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)
asyncio.run(main())
"""


def opened(path: Path) -> "subprocess.Popen[str]":
    started = subprocess.Popen(
        [sys.executable, "-c", OPEN, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "open\n"
    return started


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    path = tmp_path / "batchgen.db"
    async with open_store(path, create=True):
        pass
    return path


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_by_a_link_it_has_the_name_of_its_target(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link.db"
    link.symlink_to("../batchgen.db")
    async with open_store(link) as store:
        assert store.name == str(path)
    assert [one.name for one in (tmp_path / "elsewhere").iterdir()] == ["link.db"]


async def test_a_link_to_nothing_yet_makes_its_target(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("new.db")
    async with open_store(tmp_path / "link.db", create=True) as store:
        assert store.name == str(tmp_path / "new.db")


async def test_links_in_a_circle_are_refused(project: Project) -> None:
    (project.path / "a").symlink_to("b")
    (project.path / "b").symlink_to("a")
    refused = await project.batchgen("--db", "a", "status")
    assert refused.code == 2
    assert "Traceback" not in refused.err


async def test_a_second_hard_link_is_refused_under_either_name(project: Project) -> None:
    project.pool([{"word": "x"}])
    assert (await project.batchgen("enqueue", "pool.jsonl")).code == 0
    os.link(project.file, project.path / "other.db")
    for name in ("batchgen.db", "other.db"):
        refused = await project.batchgen("--db", name, "work")
        assert refused.code == 1
        assert refused.err.startswith(f"error: {project.path / name}: the file has 2 names"), name
    (project.path / "other.db").unlink()
    assert (await project.batchgen("work")).code == 0


@pytest.mark.parametrize("how", ["rename", "link"])
async def test_a_new_name_while_it_is_in_use_is_refused(
    path: Path, tmp_path: Path, how: str
) -> None:
    new = tmp_path / "new.db"
    with opened(path) as user:
        if how == "link":
            os.link(path, new)
            path.unlink()
        else:
            path.rename(new)
        with pytest.raises(StoreError, match="in use under another name"):
            async with open_store(new):
                pass
        user.communicate("")
    async with open_store(new):
        pass


async def test_a_new_name_while_this_process_uses_it_is_refused(path: Path) -> None:
    async with open_store(path):
        new = path.rename(path.with_name("new.db"))
        with pytest.raises(StoreError, match="in use under another name"):
            async with open_store(new):
                pass
    async with open_store(new), open_store(new):
        pass


async def test_its_directory_may_have_another_name(path: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with opened(path) as user:
        async with open_store(tmp_path / "link" / "batchgen.db"):
            pass
        user.communicate("")


@pytest.fixture
def mounted_alone(path: Path, tmp_path: Path) -> Iterator[Path]:
    """The file once more, without its directory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    alone = tmp_path / "alone.db"
    alone.touch()
    done = subprocess.run(["mount", "--bind", path, alone], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"no mount here: {done.stderr.decode().strip()}")
    yield alone
    subprocess.run(["umount", alone], check=True)


async def test_a_mount_of_the_file_alone_is_refused(mounted_alone: Path) -> None:
    with pytest.raises(StoreError, match="mounted alone"):
        async with open_store(mounted_alone):
            pass


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [
        *((kind, True) for kind in ("nfs4", "lustre", "gpfs", "beegfs", "wekafs", "9p", "ceph")),
        *((f"fuse.{kind}", True) for kind in ("juicefs", "gcsfuse", "s3fs", "of-tomorrow")),
        ("fuse", True),
        *((kind, False) for kind in ("ext4", "xfs", "tmpfs", "overlay", "fuseblk")),
        *((f"fuse.{kind}", False) for kind in ("gocryptfs", "mergerfs")),
    ],
)
def test_a_disk_of_another_machine_is_told_by_its_kind(kind: str, foreign: bool) -> None:
    table = f"/dev/a / ext4 rw 0 0\nsource /my\\040data {kind} rw 0 0\n".encode()
    found = network_file_system(Path("/my data/project/batchgen.db"), table)
    assert found == (kind if foreign else None)
    assert network_file_system(Path("/mydata/batchgen.db"), table) is None


async def test_what_is_made_is_for_its_owner_alone(project: Project) -> None:
    project.pool([{"word": "x"}])
    old_umask = os.umask(0o022)
    try:
        ran: Ended = await project.batchgen("run", "pool.jsonl")
        await project.batchgen("work", "-o", "live.jsonl")
    finally:
        os.umask(old_umask)
    assert ran.code == 0
    made = [
        project.file, project.path / "batchgen.db-gate", project.path / "live.jsonl",
        project.path / "output" / "default.jsonl", *(project.path / "logs").iterdir(),
    ]  # fmt: skip
    assert [(path.name, mode_of(path)) for path in made if mode_of(path) != 0o600] == []


async def test_a_database_that_its_owner_shares_is_shared_with_all_that_belongs_to_it(
    tmp_path: Path,
) -> None:
    path = tmp_path / "batchgen.db"
    path.touch()
    path.chmod(0o660)
    async with open_store(path, create=True) as store, store.seat(1, 60, 3) as seat:
        beside = [path.with_name(f"batchgen.db-{name}") for name in ("gate", "wal", "shm")]
        beside.append(path.with_name(f"batchgen.db-worker-{seat.id}"))
        assert [mode_of(one) for one in (path, *beside)] == [0o660] * 5


def test_a_value_that_is_refused_is_told_from_a_database_that_cannot_be_used(
    tmp_path: Path,
) -> None:
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("create table t (n integer check (n > 0)) strict")
        for value in (-1, "many", 2**63 - 0.0):
            with pytest.raises(sqlite3.Error) as caught:
                db.execute("insert into t values (?)", [value])
            assert isinstance(store_error(caught.value, tmp_path), StoreRefusedError)
    db.close()
