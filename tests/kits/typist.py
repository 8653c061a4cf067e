"""Typing commands in this process: far faster than a process each.

For all that neither takes signals nor is killed.
"""

import asyncio
import io
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from batchgen.cli import command
from batchgen.cli.process import exit_code_of
from tests.kits.project import Ended


@dataclass(frozen=True)
class Typist:
    directory: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def type(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] = {}) -> Ended:
        """Run `batchgen *arguments` in the directory."""
        self.monkeypatch.chdir(self.directory)
        self.monkeypatch.setattr(sys, "path", [*sys.path])
        self.monkeypatch.setattr(sys, "argv", ["batchgen", *arguments])
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        for name, value in env.items():
            self.monkeypatch.setenv(name, value)
        self.capsys.readouterr()
        code = exit_code_of(command)
        out, err = self.capsys.readouterr()
        return Ended(code, out, err)

    async def __call__(self, *arguments: str, stdin: bytes = b"") -> Ended:
        """The same while a simulator runs on this event loop."""
        return await asyncio.to_thread(self.type, *arguments, stdin=stdin)
