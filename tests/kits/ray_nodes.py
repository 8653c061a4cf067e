"""A Ray cluster of two nodes on this machine, in a process of its own.

It says its address, and follows orders on stdin, a line each; it answers each with a line:

    lose     a node is lost, with all that runs on it
    drain    a node is about to go, as if it were preempted
"""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
CPUS = 2

# Ray goes by the address of the machine, which it asks a server of the internet for. This is how it
# is told to stay on loopback. The nodes do not count anything either.
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "PYTHONPATH": str(_ROOT),
}


class RayNodes:
    """The process, seen from outside. `directory` is where Ray writes."""

    def __init__(self, process: asyncio.subprocess.Process, address: str, directory: Path) -> None:
        self._process = process
        self.address = address
        self.directory = directory

    @property
    def env(self) -> dict[str, str]:
        """What a driver needs."""
        return {**ENVIRONMENT, "RAY_ADDRESS": self.address}

    async def order(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())
        await _line(self._process)


@asynccontextmanager
async def ray_nodes() -> AsyncIterator[RayNodes]:
    # Short, as sockets are in it.
    directory = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", __name__, directory, cwd=_ROOT, env={**os.environ, **ENVIRONMENT},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield RayNodes(process, await _line(process), directory)
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.communicate()
        shutil.rmtree(directory, ignore_errors=True)


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async with asyncio.timeout(300):
        line = await process.stdout.readline()
    assert line, "the cluster has ended"
    return line.decode().strip()


def main(directory: str) -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray prints, too
    cluster = import_module("ray.cluster_utils").Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "temp_dir": directory},
    )
    nodes = [cluster.add_node(num_cpus=CPUS) for _ in range(2)]
    print(cluster.address, file=out, flush=True)
    for word in map(str.strip, sys.stdin):
        if word == "lose":
            _lose(cluster, nodes.pop())
        elif word == "drain":
            _drain(cluster.address, nodes.pop().node_id)
        print(word, file=out, flush=True)
    cluster.shutdown()


def _lose(cluster: Any, node: Any) -> None:
    """Power off: nothing on it has the time for anything."""
    raylet = node.all_processes["raylet"][0].process.pid
    for pid in [raylet, *_descendants(raylet)]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


def _descendants(pid: int) -> Iterator[int]:
    for file in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(file.read_text().rpartition(")")[2].split()[1]) == pid:
                child = int(file.parent.name)
                yield child
                yield from _descendants(child)


def _drain(address: str, node: str) -> None:
    client = import_module("ray._raylet").GcsClient(address=address)
    preempted = 2  # DRAIN_NODE_REASON_PREEMPTION
    in_a_minute = int(time.time() * 1000) + 60_000
    accepted, why = client.drain_node(node, preempted, "a test", in_a_minute)
    assert accepted, why


if __name__ == "__main__":
    main(sys.argv[1])
