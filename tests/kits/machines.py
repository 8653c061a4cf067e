"""Several machines in one: each has its own network, host name and pids, by namespaces of Linux.

The test's own process is the machine where the servers are, at addresses that all can reach. Each
machine has two wires to it: one to the database and one to the model, and each can be cut, as a
cable is: nobody is told.
"""

import asyncio
import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.kits.processes import Process
from tests.kits.project import Project

_ROOT = Path(__file__).parents[2]
_APART = ("--net", "--uts", "--pid", "--mount")


class NoMachinesError(Exception):
    """None can be made here; the words say why."""


class Machine:
    """`cut` and `mend` are about its wire to the database."""

    def __init__(self, name: str, network: "Network") -> None:
        self.name = name
        self.cuts = 0
        self._network = network
        self._first = subprocess.Popen(
            ["unshare", *_APART, "--mount-proc", "--fork", "--kill-child", "sh", "-c",
             f"hostname {name} && ip link set lo up && exec sleep 86400"],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            self._pid = _child_of(self._first.pid)
            self._wire = self._lay(network.database)
            self._lay(network.model)
        except BaseException:
            self.lose_power()
            raise

    async def start(self, project: Project, *arguments: str) -> asyncio.subprocess.Process:
        """Start a command in the project's directory, which all machines share. Signals to it
        go by `signal_to`."""
        process = await asyncio.create_subprocess_exec(
            "nsenter", "--target", str(self._pid), *_APART, f"--wd={project.path}",
            sys.executable, "-m", "batchgen", *arguments,
            env={**os.environ, **project.env, "PYTHONPATH": str(_ROOT)},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        project.running.append(process)
        return process

    def cut(self) -> None:
        self.cuts += 1
        _run("ip", "link", "set", self._wire, "down")

    def mend(self) -> None:
        _run("ip", "link", "set", self._wire, "up")

    def lose_power(self) -> None:
        """All its processes are gone, and its network."""
        self._first.kill()
        self._first.wait()

    def _lay(self, place: str) -> str:
        """A wire to an address of the servers' machine; its end there."""
        number = next(self._network.numbers)
        ours, theirs = f"bg{os.getpid() % 100_000}a{number}", f"bg{os.getpid() % 100_000}b{number}"
        prefix = f"{self._network.prefix}.{number}"
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns",
             str(self._pid))  # fmt: skip
        _run("ip", "addr", "add", f"{prefix}.1/30", "dev", ours)
        _run("ip", "link", "set", ours, "up")
        self._inside("ip", "addr", "add", f"{prefix}.2/30", "dev", theirs)
        self._inside("ip", "link", "set", theirs, "up")
        self._inside("ip", "route", "add", place, "via", f"{prefix}.1")
        return ours

    def _inside(self, *command: str) -> None:
        _run("nsenter", "--target", str(self._pid), "--net", *command)


class Network:
    """`database` and `model` are where the machines find these."""

    def __init__(self) -> None:
        self.prefix = f"10.{random.randrange(128, 224)}"  # a test beside us has another one
        self.numbers = itertools.count(random.randrange(100))
        self.machines: list[Machine] = []
        number = next(self.numbers)
        self.database, self.model = (f"{self.prefix}.{number}.{last}" for last in (1, 2))
        for place in (self.database, self.model):
            _run("ip", "addr", "add", f"{place}/32", "dev", "lo")

    def machine(self, name: str) -> Machine:
        made = Machine(name, self)
        self.machines.append(made)
        return made

    def close(self) -> None:
        for machine in self.machines:
            machine.lose_power()
        for place in (self.database, self.model):
            _run("ip", "addr", "del", f"{place}/32", "dev", "lo")


@contextmanager
def network() -> Iterator[Network]:
    """Raises NoMachinesError."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if sys.platform != "linux" or os.geteuid() != 0 or missing:
        raise NoMachinesError("machines of one's own take root on Linux, ip, unshare and nsenter")
    made = Network()
    try:
        yield made
    finally:
        made.close()


def signal_to(process: Process, signum: signal.Signals) -> None:
    """To what `Machine.start` has started, which may have ended. Who stands before it is stopped
    with it, and wakes it up."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError, NoMachinesError):
        os.kill(_child_of(process.pid), signum)
        if signum == signal.SIGCONT:
            os.kill(process.pid, signum)


def free_port(host: str) -> int:
    with socket.socket() as free:
        free.bind((host, 0))
        return int(free.getsockname()[1])


def _child_of(pid: int) -> int:
    """The first process of the machine, or what runs there: unshare and nsenter have one child."""
    give_up_at = time.monotonic() + 10
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while time.monotonic() < give_up_at:
        try:
            found = children.read_text().split()
        except FileNotFoundError:
            break
        if found and _is_ready(int(found[0])):
            return int(found[0])
        time.sleep(0.01)
    raise NoMachinesError("no namespaces can be made here")


def _is_ready(pid: int) -> bool:
    """Whether it is what it was started for, and no longer `sh`, `unshare` or `nsenter`."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return False
    return name not in ("unshare", "nsenter", "sh")


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoMachinesError(f"{' '.join(command)}: {done.stderr.strip()}")
