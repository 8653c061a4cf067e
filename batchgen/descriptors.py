"""Open files of the process: how many there may be, and which a forked child must not keep.

A lock on a file belongs to its open description, which a forked child shares: a parser that starts
a process by fork, and ends before it, would leave all its locks behind. Across `exec` nothing is
kept anyway.
"""

import os
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

from batchgen.errors import UsageError

# For the database, the log, the live file, the modules and templates that are read late, and the
# event loop; a parser may open some, too.
_BESIDE_CALLS = 100
# No process needs more, and some systems say "unlimited".
_MOST_WANTED = 65_536


class Closable(Protocol):
    def close(self) -> object: ...


_locks: WeakSet[Closable] = WeakSet()


def close_in_children(lock: Closable) -> None:
    """In a child that is forked from now on, `lock` is closed at once; twice must do no harm."""
    _locks.add(lock)


def _close_all() -> None:
    for lock in list(_locks):
        with suppress(OSError):
            lock.close()


os.register_at_fork(after_in_child=_close_all)


def allow_calls(calls: int) -> None:
    """Let this process have enough open files for so many calls at once: each needs a connection,
    and an answer that finds none left would be paid for in vain.

    Raises UsageError, with the numbers, where the system does not allow as many.
    """
    import resource  # here: most commands make no calls

    needed = calls + _BESIDE_CALLS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MOST_WANTED if hard == resource.RLIM_INFINITY else hard
    if needed > most:
        raise UsageError(
            f"{calls} calls at once need {needed} open files, and the system allows this process "
            f"{most} (ulimit -Hn). Take at most {max(1, most - _BESIDE_CALLS)}, or more processes."
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        _raise_soft_limit(min(most, _MOST_WANTED), needed, hard)


def _raise_soft_limit(wanted: int, needed: int, hard: int) -> None:
    import resource

    for limit in (wanted, needed):  # macOS: not above kern.maxfilesperproc, whatever the hard one
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return
