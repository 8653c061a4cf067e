"""A worker on a node of a Ray cluster, seen from that node. What passes between it and the driver
is in `ray_cluster`."""

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from msgspec import Struct

from batchgen import __version__

_CHUNK_BYTES = 64 * 1024
_LONGEST_LINE = 1024 * 1024


class NodeNeeds(Struct, frozen=True):
    """What must be on a node that is to work: these paths, and the same batchgen. `machine`: it
    must be that one, as the database is a file there."""

    paths: tuple[str, ...]
    machine: str | None = None
    version: str = __version__

    def missing_here(self) -> str | None:
        """What of it this node does not have."""
        if self.version != __version__:
            return f"it has batchgen {__version__}, and here is {self.version}"
        if self.machine not in (None, this_machine()):
            return (
                "it is another machine, and a SQLite database is for one; a database of PostgreSQL "
                "is for any number (postgresql://...)"
            )
        absent = next((path for path in self.paths if not Path(path).exists()), None)
        return absent and f"{absent} is not there; each node needs the files of the project"


def this_machine() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return os.uname().nodename


def missing_here(needs: NodeNeeds) -> str | None:
    """`NodeNeeds.missing_here`, as a task of Ray's."""
    return needs.missing_here()


class Assignment(Struct, frozen=True):
    """What a node is given: `task` is a `WorkerTask` as JSON, for a process started with `-m
    module`, in this directory, with `environment` added to the node's. It has secrets, so it goes
    as the argument of a call, which Ray shows nobody and writes nowhere."""

    task: Mapping[str, Any]
    module: str
    directory: str
    environment: Mapping[str, str]
    needs: NodeNeeds

    def __repr__(self) -> str:
        return f"Assignment({self.module!r})"


class Begun(Struct, frozen=True):
    """Where a worker has begun, by the number of the node; `missing`: why it has not."""

    host: str
    node: str = ""
    pid: int = 0
    missing: str | None = None


class NodeWorker:
    """The actor of one worker: a child process like those of `--processes`, which drains when its
    standard input ends. So it drains however the actor ends: when the driver is killed, when the
    node leaves the cluster, and when Ray kills the actor."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self._is_drained = False

    async def begin(self, given: Assignment) -> Begun:
        host = os.uname().nodename
        if missing := given.needs.missing_here():
            return Begun(host, missing=missing)
        self._process = process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", given.module,
            cwd=given.directory, env={**os.environ, **given.environment},
            stdin=PIPE, stdout=PIPE, stderr=PIPE, limit=_LONGEST_LINE,
            start_new_session=True,  # it hears nothing of the terminal in which the node is
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(json.dumps(given.task).encode() + b"\n")
        if self._is_drained:
            process.stdin.close()
        node = import_module("ray").get_runtime_context().get_node_id()
        return Begun(host, node, process.pid)

    async def words(self) -> bytes:
        """What it has said since; nothing: it has ended."""
        assert self._process is not None
        assert self._process.stderr is not None
        return await self._process.stderr.read(_CHUNK_BYTES)

    async def result(self) -> tuple[bytes, int]:
        """The line of its `TaskResult`, and its exit code."""
        assert self._process is not None
        assert self._process.stdout is not None
        return await self._process.stdout.read(), await self._process.wait()

    async def drain(self) -> None:
        self._is_drained = True
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def leave(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGUSR1)


def environment_of_nodes(environment: Mapping[str, str]) -> dict[str, str]:
    """What of it the workers on nodes are to have, too: libpq's, which may be how to get into the
    database, and what functions of the user's may ask a model with. Settings are in the task; all
    else is the node's own, such as its PATH and its proxy."""
    return {
        name: value for name, value in environment.items() if name.startswith(("PG", "OPENAI_"))
    }


def needed_paths(directory: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """The folder of the project, the one that commands are typed in, and these files."""
    return tuple(dict.fromkeys(map(str, (directory, Path.cwd(), *files))))
