"""The write gate and the workers' locks, between real processes."""

import contextlib
import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from batchgen.errors import StoreBusyError, StoreError
from batchgen.export.tail import Tail
from batchgen.store import open_store
from batchgen.store.sqlite import gate as gate_module
from batchgen.store.sqlite.gate import Gate, OwnerLock, machine

# Prints a line once it holds the gate, and lets go when its stdin ends.
HOLD = """
import sys
from pathlib import Path
from batchgen.store.sqlite.gate import Gate
gate = Gate(Path(sys.argv[1]))
with gate.hold():
    print("held", flush=True)
    sys.stdin.read()
gate.close()
"""

# Adds one to a number in a file, many times: two at once would lose some.
COUNT = """
import sys
from pathlib import Path
from batchgen.store.sqlite.gate import Gate
gate, file = Gate(Path(sys.argv[1])), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.read()
for _ in range(int(sys.argv[3])):
    with gate.hold():
        number = int(file.read_text())
        file.write_text(f"{number + 1:9}")
gate.close()
"""

HOLD_OWN = """
import sys
from pathlib import Path
from batchgen.store.sqlite.gate import OwnerLock
lock = OwnerLock(Path(sys.argv[1]))
print(lock.acquire() and "held", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def process(script: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A Python process that has printed its first line."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as started:
        try:
            assert started.stdout is not None
            assert started.stdout.readline().strip()
            yield started
        finally:
            started.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "batchgen.db"


@contextlib.contextmanager
def open_gate(path: Path, deadline_s: float = 60.0) -> Iterator[Gate]:
    gate = Gate(path, deadline_s)
    try:
        yield gate
    finally:
        gate.close()


def test_two_processes_never_hold_the_gate_at_once(path: Path, tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")
    with process(COUNT, path, file, 500) as one, process(COUNT, path, file, 500) as other:
        for each in (one, other):
            assert each.stdin is not None
            each.stdin.close()
        assert (one.wait(), other.wait()) == (0, 0)
    assert int(file.read_text()) == 1000


def test_two_threads_never_hold_one_gate_at_once(path: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(200):
            with gate.hold():
                inside += 1
                most = max(most, inside)
                os.sched_yield()
                inside -= 1

    with open_gate(path) as gate:
        threads = [threading.Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == 1


def test_a_gate_that_stays_closed_is_an_error_that_names_the_holder(path: Path) -> None:
    with process(HOLD, path) as holder, open_gate(path, deadline_s=0) as gate:
        with pytest.raises(StoreBusyError) as caught, gate.hold():
            pass
        assert str(caught.value) == (
            f"{path}-gate: another process has kept the database locked for 0 s "
            f"(pid {holder.pid}). Let it finish, continue it if it is stopped (fg), or end it."
        )


def test_a_holder_that_is_killed_frees_the_gate(path: Path) -> None:
    with process(HOLD, path) as holder, open_gate(path, deadline_s=0) as gate:
        holder.send_signal(signal.SIGKILL)
        assert holder.wait() == -signal.SIGKILL
        with gate.hold():
            pass


def test_the_gate_opens_when_its_holder_lets_go(path: Path) -> None:
    with process(HOLD, path) as holder, open_gate(path) as gate:
        assert holder.stdin is not None
        holder.stdin.close()
        with gate.hold():
            assert path.with_name("batchgen.db-gate").read_text().split() == [
                *("pid", str(os.getpid())),
                *("turn", "2"),
            ]


def test_the_gate_opens_after_an_exception_inside(path: Path) -> None:
    with open_gate(path) as gate, open_gate(path, deadline_s=0) as other:
        with pytest.raises(ZeroDivisionError), gate.hold():
            _ = 1 / 0
        with other.hold():
            pass


def test_a_gate_whose_file_was_deleted_still_lets_one_in_at_a_time(path: Path) -> None:
    with open_gate(path) as old:
        path.with_name("batchgen.db-gate").unlink()
        with (
            open_gate(path, deadline_s=0) as new,
            old.hold(),
            pytest.raises(StoreBusyError),
            new.hold(),
        ):
            pass


def test_a_gate_whose_directory_was_deleted_says_so_each_time(tmp_path: Path) -> None:
    place = tmp_path / "deleted"
    place.mkdir()
    gate = Gate(place / "work.db")
    shutil.rmtree(place)
    for _ in range(2):
        with pytest.raises(StoreError, match="cannot make this lock file"), gate.hold():
            pass
    gate.close()


def test_a_full_disk_does_not_keep_the_gate_closed(path: Path) -> None:
    """What is written into lock files is only for messages."""
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from batchgen.store.sqlite.gate import Gate, OwnerLock\n"
        "path = Path(sys.argv[1]); gate = Gate(path); lock = OwnerLock(path.with_name('own'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "with gate.hold(): print(lock.acquire(), lock.holder())\n"
        "lock.release(); gate.close()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("True holder unknown\n", "")


def test_a_place_where_no_lock_file_can_be_made_is_an_error_with_words(tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        Gate(tmp_path / "missing" / "batchgen.db")
    assert str(caught.value) == (
        f"{tmp_path}/missing/batchgen.db-gate: cannot make this lock file (No such file or "
        "directory). batchgen needs to write in the directory of the database."
    )


# OwnerLock


def test_an_owner_lock_is_held_by_one(path: Path) -> None:
    one, other = OwnerLock(path), OwnerLock(path)
    assert one.acquire() is True
    assert other.acquire() is False
    assert other.holder() == f"pid {os.getpid()}"
    one.release()
    assert other.acquire() is True
    other.release()


def test_who_asks_whether_a_lock_is_held_neither_takes_nor_makes_it(path: Path) -> None:
    lock = OwnerLock(path)
    assert (OwnerLock(path).is_held(), path.exists()) == (False, False)
    assert lock.acquire()
    assert (OwnerLock(path).is_held(), lock.is_held()) == (True, True)
    lock.release()
    path.touch()  # as its owner's death leaves it
    with path.open("rb") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        assert OwnerLock(path).is_held() is False


def test_an_owner_lock_is_refused_to_another_process_while_its_owner_lives(path: Path) -> None:
    lock = OwnerLock(path)
    with process(HOLD_OWN, path) as owner:
        assert lock.acquire() is False
        assert lock.holder() == f"pid {owner.pid}"
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert path.exists()
        assert lock.acquire() is True
    lock.release()
    assert not path.exists()


def test_releasing_removes_the_file_and_is_harmless_twice(path: Path) -> None:
    lock = OwnerLock(path)
    lock.release()
    assert lock.acquire() is True
    lock.release()
    lock.release()
    assert not path.exists()


def test_releasing_a_lock_that_was_not_won_leaves_the_owner_alone(path: Path) -> None:
    owner, other = OwnerLock(path), OwnerLock(path)
    owner.acquire()
    other.acquire()
    other.release()
    assert path.exists()
    assert OwnerLock(path).acquire() is False
    owner.release()


def test_a_lock_on_a_file_that_its_owner_just_removed_is_taken_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, next_one = OwnerLock(path), OwnerLock(path)
    owner.acquire()
    really_open = gate_module._open_lock_file

    def open_while_the_owner_leaves(lock_path: Path, mode: int) -> IO[bytes]:
        file = really_open(lock_path, mode)
        owner.release()
        return file

    monkeypatch.setattr(gate_module, "_open_lock_file", open_while_the_owner_leaves)
    assert next_one.acquire() is True
    assert OwnerLock(path).acquire() is False
    next_one.release()


def test_an_owner_that_goes_leaves_the_lock_file_of_another_alone(path: Path) -> None:
    """As when somebody deleted the database with all that belongs to it, and began anew."""
    old, new = OwnerLock(path), OwnerLock(path)
    assert old.acquire() is True
    path.unlink()
    assert new.acquire() is True
    old.release()
    assert new.is_held() is True
    new.release()
    assert not path.exists()


async def test_a_worker_does_not_take_the_lock_file_of_another_for_its_own(path: Path) -> None:
    other = OwnerLock(path.with_name(f"{path.name}-worker-1"))
    assert other.acquire() is True
    async with open_store(path, create=True) as store:
        with pytest.raises(StoreBusyError, match=rf"at this place before \(pid {os.getpid()}\)"):
            async with store.seat(1, 60, 3):
                pass
        assert await store.workers() == []
    other.release()


def test_a_lock_file_that_cannot_be_removed_does_no_harm(path: Path) -> None:
    path.mkdir()
    OwnerLock(path).remove()


def test_a_machine_is_the_same_in_every_process() -> None:
    script = "from batchgen.store.sqlite.gate import machine; print(machine())"
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert printed.stdout.strip() == str(machine())
    assert re.fullmatch(r"[0-9a-f-]{36}", machine()[1])


# What a forked child gets

FORK = """
import os, sys, time
from pathlib import Path
from batchgen.export.tail import Tail
from batchgen.store import open_store
from batchgen.store.sqlite.gate import Gate, OwnerLock
path = Path(sys.argv[1])
gate, lock, tail = Gate(path), OwnerLock(path.with_name("own")), Tail.open(path.with_name("live"))
assert lock.acquire() and tail
with gate.hold():
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    print("forked", flush=True)
    time.sleep(600)
"""


def test_a_forked_child_that_outlives_its_parent_keeps_none_of_its_locks(path: Path) -> None:
    with process(FORK, path) as parent:
        parent.kill()
        parent.wait()
        with open_gate(path, deadline_s=10) as gate, gate.hold():
            pass
        assert OwnerLock(path.with_name("own")).is_held() is False
        tail = Tail.open(path.with_name("live"))
        assert tail is not None
        tail.close()


def test_a_gate_that_the_system_has_no_lock_for_is_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOLCK: the kernel is short of something. Answers wait in memory for such errors."""
    with open_gate(path) as gate:
        monkeypatch.setattr(fcntl, "flock", no_lock)
        with pytest.raises(StoreBusyError, match="No locks available"), gate.hold():
            pass


def test_a_gate_that_cannot_be_unlocked_is_let_go_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_gate(path) as gate:
        with gate.hold():
            monkeypatch.setattr(fcntl, "flock", no_lock)
        monkeypatch.undo()
        with process(HOLD, path):
            pass


def no_lock(*_: object) -> None:
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def test_an_owner_is_not_taken_for_dead_where_the_system_cannot_tell(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = OwnerLock(path)
    assert lock.acquire()
    monkeypatch.setattr(fcntl, "flock", no_lock)
    assert lock.is_held() is True
    lock.release()
