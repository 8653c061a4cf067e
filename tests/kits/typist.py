"""Commands typed in this process, which is far faster than a process each.

What a new process would have for itself is as new here: the directory, the environment, the three
streams, the path that modules are found on, and the modules found in the directory. What it cannot
have is signals, a terminal, and an end by violence: those need a process, see `Project.process`.
"""

import asyncio
import gc
import io
import json
import os
import runpy
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import patch

from batchgen.cli import command
from batchgen.cli.process import exit_code_of

_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Ended:
    """A command that ended. A negative code is the signal that killed its process."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Typist:
    """Types in one directory, with these variables added to the environment; on a `terminal` that
    has this encoding, or with its output in files."""

    directory: Path
    env: Mapping[str, str] = field(default_factory=dict)
    terminal: str | None = None

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run `batchgen *arguments` while a simulator runs on this event loop."""
        return await asyncio.to_thread(self.type, *arguments, stdin=stdin)

    def type(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """Run `batchgen *arguments`."""
        out, err = self._output(), self._output(errors="backslashreplace")
        with self._like_a_new_process(["batchgen", *arguments], _stream(stdin), out, err):
            code = exit_code_of(command)
        return Ended(code, _written(out), _written(err))

    def _output(self, errors: str = "strict") -> io.TextIOWrapper:
        if self.terminal is None:
            return _stream()
        return _TerminalStream(io.BytesIO(), self.terminal, errors, write_through=True)

    def script(self, name: str) -> None:
        """Run a Python file of the directory."""
        with self._like_a_new_process([name], _stream(), _stream(), sys.stderr):
            runpy.run_path(name, None, "__main__")

    @contextmanager
    def _like_a_new_process(
        self, argv: list[str], stdin: TextIO, stdout: TextIO, stderr: TextIO
    ) -> Iterator[None]:
        if not _one_at_a_time.acquire(blocking=False):
            raise RuntimeError("Two commands at once need a process each.")
        before, interval = Path.cwd(), sys.getswitchinterval()
        modules = {*sys.modules}
        threshold = gc.get_threshold()
        try:
            os.chdir(self.directory)
            with (
                patch.dict(os.environ, self.env),
                patch.multiple(
                    sys, argv=argv, stdin=stdin, stdout=stdout, stderr=stderr, path=[*sys.path]
                ),
            ):
                yield
        finally:
            os.chdir(before)
            sys.setswitchinterval(interval)
            gc.set_threshold(*threshold)
            gc.unfreeze()
            _forget_modules(self.directory, sys.modules.keys() - modules)
            _one_at_a_time.release()


def _forget_modules(directory: Path, imported: Iterable[str]) -> None:
    inside = f"{directory}{os.sep}"
    for name in imported:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(inside):
            del sys.modules[name]


class _TerminalStream(io.TextIOWrapper):
    def isatty(self) -> bool:
        return True


def _stream(content: bytes = b"") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", write_through=True)


def _written(stream: io.TextIOWrapper) -> str:
    assert isinstance(stream.buffer, io.BytesIO)
    return stream.buffer.getvalue().decode(stream.encoding)
