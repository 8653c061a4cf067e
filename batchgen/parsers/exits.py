"""A parser, or the function of a step, that ends the process by `os._exit` does not choose the exit
code of the run.

`os._exit` cannot be caught: with 0 it would look as if the run had ended well. So where a parser
calls it, in this very process, the process ends as one that failed, and says why. What kills a
process otherwise, a signal or a crash of native code, tells so by itself. The items that were being
parsed are tried one at a time from then on (store/transactions/queue.py; stored answers that are
parsed again, store/transactions/watch.py).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NoReturn

_runs_in = ContextVar("runs_in", default=(0, ""))  # in which process, and what it is
_end_process = os._exit


@contextmanager
def exit_code_kept(what: str = "a parser") -> Iterator[None]:
    """While inside, `os._exit` in this thread and process ends it with exit code 1."""
    if os._exit is not _exit:
        setattr(os, "_exit", _exit)  # noqa: B010  mypy takes no assignment to it
    token = _runs_in.set((os.getpid(), what))
    try:
        yield
    finally:
        _runs_in.reset(token)


def _exit(status: int) -> NoReturn:
    pid, what = _runs_in.get()
    if pid == os.getpid():  # not in a process that it has forked
        said = (
            f"error: {what} ended the process, by os._exit({status!r}). All answers are kept. Mend "
            "it, or run the same command again: what was being parsed is then tried one at a "
            "time.\n"
        )
        os.write(2, said.encode())
        _end_process(1)
    _end_process(status)
