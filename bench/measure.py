"""What every benchmark shares: its options, its figures, and how a process is measured.

A benchmark is a module of this folder with `NAME` and `run(options) -> Table`. Whatever is compared
is measured in one run, by turns, and told as a ratio of medians: a busy machine then slows both.
"""

import json
import os
import pty
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

T = TypeVar("T")

RAW_FILE = "raw.json"
_LOOK_AT_MEMORY_EVERY_S = 0.02


@dataclass(frozen=True)
class Options:
    """`quick`: small sizes, to try it out. `large`: also the sizes that take hours and gigabytes.
    `work_dir` is an empty directory for this benchmark, deleted in the end."""

    quick: bool
    large: bool
    work_dir: Path


@dataclass(frozen=True)
class Figure:
    """One number that a goal is about. `goal` is written as people read it (`<= 0.2`); `met` is
    None when this run cannot tell."""

    what: str
    value: float
    unit: str
    goal: str
    met: bool | None


@dataclass(frozen=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    figures: tuple[Figure, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Spent:
    """What a process took, its own waited-for children included; `peak_rss_mb` is its own alone."""

    wall_s: float
    cpu_s: float
    peak_rss_mb: float
    exit_code: int
    output: str


class Running:
    """A process being measured; `start` makes one. End it, then `wait`."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        output: IO[bytes],
        start_s: float,
        copying: threading.Thread | None,
    ) -> None:
        self.pid = process.pid
        self._copying = copying
        self._process = process
        self._output = output
        self._start_s = start_s
        self._peak_rss_mb = 0.0
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self._sampler.start()

    @property
    def ended(self) -> bool:
        """Whether it has; it is still to be waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def wait(self, timeout_s: float = 900) -> Spent:
        """Until it has ended; one that takes longer than `timeout_s` is killed."""
        killer = threading.Timer(timeout_s, self._process.kill)
        killer.start()
        _, status, usage = os.wait4(self.pid, 0)
        wall_s = time.perf_counter() - self._start_s
        killer.cancel()
        self._ended.set()
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._sampler.join()
        if self._copying:
            self._copying.join(timeout=5)
        self._output.seek(0)
        with self._output:
            output = self._output.read().decode(errors="replace")
        return Spent(
            wall_s=wall_s,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_rss_mb=self._peak_rss_mb or usage.ru_maxrss / 1024,
            exit_code=self._process.returncode,
            output=output,
        )

    def _sample(self) -> None:
        """The kernel's own high-water mark. What wait4 tells is no less than the memory of the
        process that started it, which may be the bigger one."""
        while not self._ended.wait(_LOOK_AT_MEMORY_EVERY_S):
            self._peak_rss_mb = max(self._peak_rss_mb, status_mb(self.pid, "VmHWM"))


def start(
    command: Sequence[str | Path],
    cpu: int | None = None,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: IO[bytes] | None = None,
    terminal: bool = False,
    urgent: bool = False,
) -> Running:
    """Start a process, on one core when `cpu` names it. `env` is added to ours; what it prints is
    kept for `Spent.output`, but for its stdout when that is given. With `terminal` its stderr is a
    terminal of 100 columns, on which batchgen draws its live display. An `urgent` one goes before
    others where the user may say so: for what uses little of a core, but is measured by the clock.
    """
    output = tempfile.TemporaryFile()  # noqa: SIM115  closed by wait
    stderr, copying = _terminal_into(output) if terminal else (output.fileno(), None)
    seen_as = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"} if terminal else {}
    start_s = time.perf_counter()
    process = subprocess.Popen(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **seen_as, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=stdout or output,
        stderr=stderr,
        preexec_fn=lambda: _place(cpu, urgent=urgent),
    )
    if terminal:
        os.close(stderr)
    return Running(process, output, start_s, copying)


def _place(cpu: int | None, *, urgent: bool) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    if urgent:
        try:
            # A niceness would count only among the processes of the same session.
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
        except PermissionError:
            pass  # it is measured all the same


def _terminal_into(output: IO[bytes]) -> tuple[int, threading.Thread]:
    """A terminal for one process to write to; a thread copies what comes out of it."""
    ours, theirs = pty.openpty()

    def copy() -> None:
        with os.fdopen(ours, "rb", buffering=0) as screen:
            try:
                while drawn := screen.read(65536):
                    output.write(drawn)
            except (OSError, ValueError):
                pass  # the process has ended, and its end of the terminal with it

    copying = threading.Thread(target=copy, daemon=True)
    copying.start()
    return theirs, copying


def spend(
    command: Sequence[str | Path],
    cpu: int | None = None,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: IO[bytes] | None = None,
    terminal: bool = False,
    urgent: bool = False,
    timeout_s: float = 900,
) -> Spent:
    """Run a process to its end; as `start`. It may exit with anything: see `exit_code`."""
    running = start(command, cpu, cwd=cwd, env=env, stdout=stdout, terminal=terminal, urgent=urgent)
    return running.wait(timeout_s)


def status_mb(pid: int, field: str) -> float:
    """A size from /proc/<pid>/status, such as VmRSS or VmHWM; 0 when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def cpu_s_of(pid: int, *, of_children: bool = False) -> float:
    """What a process has used of the CPU so far; or those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[13:15] if of_children else fields[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def interleaved(rounds: int, *callables: Callable[[], T]) -> list[list[T]]:
    """Call A B C A B C ...: for each callable, what its rounds gave."""
    results: list[list[T]] = [[] for _ in callables]
    for _ in range(rounds):
        for found, call in zip(results, callables, strict=True):
            found.append(call())
    return results


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def keep_raw(options: Options, numbers: dict[str, Any]) -> None:
    """Keep the single numbers behind a table, for results.json and the plots."""
    (options.work_dir / RAW_FILE).write_text(json.dumps(numbers))
