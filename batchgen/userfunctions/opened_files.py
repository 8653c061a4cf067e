"""The files that a user's module opens while it is imported: what its constants may be made of.

Python tells of each file that is opened by an audit event; a hook for them cannot be removed again,
and does nothing outside of `noting_opened_files`.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

_noted: ContextVar[set[str] | None] = ContextVar("noted", default=None)


@contextmanager
def noting_opened_files() -> Iterator[set[str]]:
    """The absolute paths of what this thread opens to read, while inside."""
    _listen()
    files: set[str] = set()
    token = _noted.set(files)
    try:
        yield files
    finally:
        _noted.reset(token)


@cache
def _listen() -> None:
    sys.addaudithook(_note)


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or (files := _noted.get()) is None:
        return
    path, _, flags = arguments
    if isinstance(path, str) and isinstance(flags, int) and flags & os.O_ACCMODE == os.O_RDONLY:
        files.add(str(Path(path).absolute()))
