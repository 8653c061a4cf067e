"""How far a long command is: a line on a terminal, written anew twice a second; else nothing."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Generic, TypeVar

from batchgen.cli.session import Session
from batchgen.cli.terminal import is_terminal, show_progress

T = TypeVar("T")

_EVERY_S = 0.5


@contextmanager
def showing_progress(session: Session, so_far: Callable[[], str]) -> Iterator[None]:
    """While inside, `so_far` is asked what to show, on a thread, so that it is shown also while the
    job computes. What takes less than half a second shows nothing."""
    is_dumb = os.environ.get("TERM") in ("dumb", "unknown")
    if session.quiet or is_dumb or not is_terminal(sys.stderr):
        yield
        return
    is_over = threading.Event()
    showing = threading.Thread(target=_show, args=(so_far, is_over), name="progress", daemon=True)
    showing.start()
    try:
        yield
    finally:
        is_over.set()
        showing.join()
        with suppress(OSError):
            show_progress("")


def _show(so_far: Callable[[], str], is_over: threading.Event) -> None:
    with suppress(OSError):  # the terminal is gone
        while not is_over.wait(_EVERY_S):
            show_progress(so_far())


class Latest(Generic[T]):
    """What a job told last."""

    def __init__(self, value: T) -> None:
        self.value = value

    def put(self, value: T) -> None:
        self.value = value


class Pace:
    """So many a second, since it was made."""

    def __init__(self) -> None:
        self._began_at = time.monotonic()

    def of(self, n: int) -> str:
        """`12,000 a second`."""
        return f"{n / max(time.monotonic() - self._began_at, 0.001):,.0f} a second"
