"""What the options of batchgen itself say, and how a command talks and runs.

Nearly every command has a `Session` as its first argument.
"""

import os
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from batchgen.cli.terminal import print_json, say
from batchgen.config import Config, load
from batchgen.errors import UsageError

__all__ = ["Session", "counted", "print_json", "run_async"]


class Session(Struct, frozen=True):
    """What the options of batchgen itself say, each by its name."""

    config_path: Path | None = None
    database: str | None = None
    verbose: bool = False
    quiet: bool = False

    def config(self, options: Mapping[str, str] = {}, **flags: Any) -> Config:
        """The settings, with the flags that were given on top, by `options` if these name them.
        Raises ConfigError, and UsageError for a database without a name: a shell's variable that is
        not set must not lead to the default one."""
        if self.database == "":
            raise UsageError("--db: is empty. Name a file or postgresql://..., or leave it out.")
        given = {name: value for name, value in flags.items() if value is not None}
        if self.database is not None:
            given["database"] = self.database
        return load(
            self.config_path, env=os.environ, overrides=given, options=options, cwd=Path.cwd()
        )

    def say(self, message: str) -> None:
        """Talk: to stderr, not when quiet."""
        if not self.quiet:
            say(message)

    def warn(self, message: str) -> None:
        """What the user must know even when quiet."""
        say(f"warning: {message}")


def counted(n: int, noun: str) -> str:
    """`1 item`, `2 items`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def run_async(job: Coroutine[Any, Any, int]) -> int:
    """Run it to its exit code."""
    import asyncio  # here: what only reads does without, and it is half of a short command

    try:
        return asyncio.run(job)
    except KeyboardInterrupt:  # Ctrl-C in a job that has nothing to drain
        return 130
