"""Running a peer's commands, each in a process group of its own, and what that took."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.peers.peers import ROOT

_TAIL_CHARS = 600


@dataclass(frozen=True)
class Server:
    """A running `bench.peers.server`."""

    port: int

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def ledger(self) -> dict[str, int]:
        return self._get("ledger")

    def reset(self) -> None:
        self._get("reset")

    def kill(self, group: int, at_answers: int) -> None:
        """SIGKILL for that process group with the answer of that number."""
        self._get(f"kill/{group}/{at_answers}")

    def refuse(self, share: float) -> None:
        """That share of the calls, from now until the next reset."""
        self._get(f"refuse/{share}")

    def _get(self, path: str) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}") as told:
            found: dict[str, int] = json.load(told)
        return found


@contextmanager
def serving(latency_s: float, spread: float, cpu: int) -> Iterator[Server]:
    command = [sys.executable, "-m", "bench.peers.server", "--cpu", str(cpu)]
    command += ["--latency", str(latency_s), "--spread", str(spread)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield Server(int(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Ran:
    """One command. CPU and memory are of the process and the children that it waited for: CPU of
    all together, memory of the biggest. A negative exit code is the signal that killed it. `tail`
    is the end of what it printed, if it didn't end well."""

    command: str
    began_ns: int
    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    exit_code: int
    timed_out: bool
    results: int | None
    tail: str

    @property
    def well(self) -> bool:
        return self.exit_code == 0


def run_all(
    commands: tuple[list[str], ...],
    work_dir: Path,
    env: dict[str, str],
    limit_s: float,
    kill: tuple[Server, int] | None = None,
) -> list[Ran]:
    """One after another, until one doesn't end well. `kill` has the server kill the group that is
    running when it gives the answer of that number."""
    ran = []
    for command in commands:
        ran.append(_run(command, work_dir, env, limit_s, kill))
        if not ran[-1].well:
            break
    return ran


def _run(
    command: list[str],
    work_dir: Path,
    env: dict[str, str],
    limit_s: float,
    kill: tuple[Server, int] | None,
) -> Ran:
    output = work_dir / "output.txt"
    with output.open("wb") as file:
        began_ns = time.monotonic_ns()
        process = subprocess.Popen(
            command, cwd=work_dir, env=env, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
        group = process.pid
        if kill:
            kill[0].kill(group, kill[1])
        late = threading.Event()

        def too_late() -> None:
            late.set()
            os.killpg(group, signal.SIGKILL)

        timer = threading.Timer(limit_s, too_late)
        timer.start()
        _, status, usage = os.wait4(group, 0)
        wall_s = (time.monotonic_ns() - began_ns) / 1e9
        timer.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    _end_stragglers(group)
    text = output.read_text(errors="replace")
    results = re.findall(r"^results: (\d+)$", text, re.MULTILINE)
    return Ran(
        command=" ".join(Path(part).name if part.startswith("/") else part for part in command),
        began_ns=began_ns,
        wall_s=wall_s,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_rss_mb=usage.ru_maxrss / 1024,
        exit_code=process.returncode,
        timed_out=late.is_set(),
        results=int(results[-1]) if results else None,
        tail=text[-_TAIL_CHARS:] if process.returncode else "",
    )


def _end_stragglers(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # as it should be
