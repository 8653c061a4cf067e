"""Whose process it was that wrote a row, and whether it has ended: told at once on its own machine,
and elsewhere by its lease alone."""

import os
import uuid
from functools import cache
from pathlib import Path


@cache
def this_machine() -> tuple[str, str]:
    """(host name, where pids of this process count). The second is the same for two processes only
    when each can see the other: the machine since it was started, and its namespace of pids, as
    containers of one machine have each their own."""
    host = os.uname().nodename
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return host, f"{boot_id} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return host, f"{host} {uuid.getnode():x}"  # a host's name alone may be another one's, too


def has_ended(boot_id: str, pid: int) -> bool:
    """As far as can be told from here. One that has died, and that its parent has not looked after
    yet, has ended."""
    if boot_id != this_machine()[1]:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return _is_zombie(pid)


def _is_zombie(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] in ("Z", "X")
