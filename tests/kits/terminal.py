"""A terminal, with batchgen in it."""

import asyncio
import os
import pty
import re
import termios
from typing import Any

import pytest

from tests.kits.processes import Process, start
from tests.kits.project import Project

COLOUR = re.compile(r"\x1b\[[0-9;]*(3[0-7]|4[0-7]|9[0-7]|38;5;\d+)[0-9;]*m")
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
CTRL_C = b"\x03"


def plain(text: str) -> str:
    """Without the terminal's control sequences."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


class Terminal:
    """A pseudo-terminal of 24 lines and 80 columns, on which one types and reads."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty()
        termios.tcsetwinsize(self._theirs, (24, 80))
        os.set_blocking(self._ours, False)
        self._written = b""
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._ours, self._read)

    async def start(
        self, project: Project, *arguments: str, foreground: bool = False, **env: str
    ) -> Process:
        """Start batchgen here; in the foreground, Ctrl-C is a signal to it."""
        process = await start(
            arguments, project.path, {"TERM": "xterm-256color", **env},
            terminal=self._theirs, foreground=foreground,
        )  # fmt: skip
        project.running.append(process)
        return process

    def type(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def settings(self) -> list[Any]:
        """Echo, line editing, what its keys do..."""
        return termios.tcgetattr(self._theirs)

    @property
    def raw(self) -> str:
        """All that was ever written to it."""
        return self._written.decode(errors="replace")

    async def shows(self, pattern: str) -> None:
        """Until something that fits was on the screen."""
        try:
            async with asyncio.timeout(60):
                while not re.search(pattern, plain(self.raw)):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pytest.fail(f"it never showed {pattern!r}, but: {plain(self.raw)}")

    async def last_lines(self, process: Process) -> list[str]:
        """Wait for the end; what it printed last."""
        await process.wait()
        self._read()
        return [line.rstrip() for line in plain(self.raw).replace("\r", "\n").splitlines()]

    def _read(self) -> None:
        try:
            while more := os.read(self._ours, 65536):
                self._written += more
        except BlockingIOError:
            pass
        self._changed.set()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self._theirs)
