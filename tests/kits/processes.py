"""Starts commands as processes of their own: warm ones, that need not import everything anew.

Importing batchgen and what it stands on takes a second of CPU, and the tests start hundreds of
processes. So each test runner has one process that has imported it all, and forks for each command.
What it forks is a process as any other, with its own pid, signals, files and exit code, but for
what Python does at its start, and it is no child of the test runner. The worker processes that a
warm `--processes` command starts are warm too, from a forking process of its own. Where any of that
matters, a test starts a fresh one.
"""

import asyncio
import atexit
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, Protocol

from batchgen import cli
from batchgen.cli import worker_process

_ROOT = Path(__file__).parents[2]
_REQUEST_BYTES = 1 << 18
_EXIT_CODE = struct.Struct("i")


class Process(Protocol):
    """What the tests use of a process, fresh (`asyncio.subprocess.Process`) or warm."""

    @property
    def pid(self) -> int: ...
    @property
    def returncode(self) -> int | None: ...

    stdin: asyncio.StreamWriter | None
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    async def wait(self) -> int: ...
    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]: ...  # noqa: A002
    def send_signal(self, signal: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class WarmProcess:
    """A process that was forked."""

    def __init__(self, pid: int, exit_code: asyncio.StreamReader) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self._end = asyncio.create_task(self._ended(exit_code), name=f"end of {pid}")

    async def _ended(self, exit_code: asyncio.StreamReader) -> None:
        words = await exit_code.read()  # to the end, so that the pipe is closed
        (self.returncode,) = _EXIT_CODE.unpack(words)

    async def wait(self) -> int:
        await asyncio.shield(self._end)
        assert self.returncode is not None
        return self.returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:  # noqa: A002
        if self.stdin is not None:
            self.stdin.write(input or b"")
            self.stdin.close()
        out, err, _ = await asyncio.gather(_rest(self.stdout), _rest(self.stderr), self.wait())
        return out, err

    def send_signal(self, signal: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, signal)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


async def start(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], *, stdin: bool = False,
    terminal: int | None = None, foreground: bool = False, fresh: bool = False,
) -> Process:  # fmt: skip
    """Start `batchgen *arguments`, or a Python file if the first of them is one, with `env` added
    to the environment. Its streams are pipes (stdin only if wanted), or the terminal; in the
    foreground, Ctrl-C there is a signal to it."""
    if fresh or sys.platform != "linux" or any(map(_counts_at_start_only, env)):
        return await _start_fresh(arguments, cwd, env, stdin, terminal, foreground)
    return await _fork(arguments, cwd, {**os.environ, **env}, stdin, terminal, foreground)


def _counts_at_start_only(variable: str) -> bool:
    return variable.startswith(("PYTHON", "LANG", "LC_"))


async def _start_fresh(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: bool,
    terminal: int | None, foreground: bool,
) -> Process:  # fmt: skip
    streams = (asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
               asyncio.subprocess.PIPE, asyncio.subprocess.PIPE)  # fmt: skip
    if terminal is not None:
        streams = (terminal,) * 3
    return await asyncio.create_subprocess_exec(
        sys.executable, *(() if _is_script(arguments) else ("-m", "batchgen")), *arguments,
        cwd=cwd, env={**os.environ, **env},
        stdin=streams[0], stdout=streams[1], stderr=streams[2],
        preexec_fn=_take_the_terminal if foreground else None,
    )  # fmt: skip


def _is_script(arguments: Sequence[str]) -> bool:
    return bool(arguments) and arguments[0].endswith(".py")


def _take_the_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


async def _fork(
    arguments: Sequence[str], cwd: Path, env: Mapping[str, str], stdin: bool,
    terminal: int | None, foreground: bool,
) -> WarmProcess:  # fmt: skip
    request = {
        "arguments": arguments,
        "cwd": str(cwd),
        "env": dict(env),
        "foreground": foreground,
        "blocked": [*signal.pthread_sigmask(signal.SIG_BLOCK, ())],
    }
    told, tells = os.pipe()
    if terminal is not None:
        ours, theirs = [], [os.dup(terminal) for _ in range(3)]
    else:
        reads_in, writes_in = os.pipe()
        (reads_out, writes_out), (reads_err, writes_err) = os.pipe(), os.pipe()
        ours, theirs = [writes_in, reads_out, reads_err], [reads_in, writes_out, writes_err]
    socket.send_fds(_forker(), [json.dumps(request).encode()], [*theirs, tells])
    for fd in (*theirs, tells):
        os.close(fd)
    words = await _reader(told)
    process = WarmProcess(int(await words.readline()), words)
    if ours:
        process.stdin = await _writer(ours[0])
        process.stdout, process.stderr = await _reader(ours[1]), await _reader(ours[2])
        if not stdin:
            process.stdin.close()
            process.stdin = None
    return process


async def _reader(fd: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    return reader


async def _writer(fd: int) -> asyncio.StreamWriter:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, os.fdopen(fd, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


async def _rest(reader: asyncio.StreamReader | None) -> bytes:
    return b"" if reader is None else await reader.read()


_forkers: list[socket.socket] = []


def _forker() -> socket.socket:
    """The socket that the forking process of this test runner, or command, listens to."""
    if not _forkers:
        _forkers.append(_start_forker())
    return _forkers[0]


def _start_forker() -> socket.socket:
    ours, theirs = _socket_pair()
    forker = subprocess.Popen([sys.executable, "-m", __name__], cwd=_ROOT, stdin=theirs.fileno())
    theirs.close()

    def end() -> None:
        ours.close()
        forker.wait()

    atexit.register(end)
    return ours


def _socket_pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class _Forker:
    """Forks until nobody can ask any more."""

    def __init__(self, requests: socket.socket) -> None:
        self._requests = requests
        self._running: dict[int, int] = {}  # pid -> where its exit code goes
        self._died, dies = socket.socketpair()
        self._died.setblocking(False)
        dies.setblocking(False)
        signal.set_wakeup_fd(dies.fileno())
        self._dies = dies
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the test runner

    def next_command(self) -> dict[str, Any]:
        """In the process that is to run it."""
        with selectors.DefaultSelector() as ready:
            ready.register(self._requests, selectors.EVENT_READ)
            ready.register(self._died, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    if key.fileobj is self._died:
                        self._died.recv(4096)
                        self._tell_who_ended()
                    elif request := self._fork():
                        return request

    def _fork(self) -> dict[str, Any] | None:
        message, fds, _, _ = socket.recv_fds(self._requests, _REQUEST_BYTES, 4)
        if not message:
            sys.exit()
        *streams, tells = fds
        if pid := os.fork():
            _tell(tells, b"%d\n" % pid)
            self._running[pid] = tells
            for fd in streams:
                os.close(fd)
            return None
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # also where the tests run under nohup
        for number, fd in enumerate(streams):
            os.dup2(fd, number)
        for one in (self._requests, self._died, self._dies):
            one.close()
        request: dict[str, Any] = json.loads(message)
        return request

    def _tell_who_ended(self) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            tells = self._running.pop(pid)
            _tell(tells, _EXIT_CODE.pack(os.waitstatus_to_exitcode(status)))
            os.close(tells)


def _tell(fd: int, words: bytes) -> None:
    with suppress(BrokenPipeError):  # the test has ended
        os.write(fd, words)


def _become(request: dict[str, Any]) -> None:
    """What Python does at the start of a process."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    if request["foreground"]:
        _take_the_terminal()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    random.seed()
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])


def _import_everything() -> None:
    for folder in ("cli", "display", "export", "jobs", "llm", "worker", "api"):
        package = importlib.import_module(f"batchgen.{folder}")
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"batchgen.{folder}.{module.name}")
    for late in ("genai_prices", "openai", "rich.live", "rich.progress"):
        importlib.import_module(late)
    gc.collect()
    gc.freeze()  # so that the processes share its memory


def _warm_worker_processes() -> None:
    """In a command: the worker processes that it starts are forked, by a process that is made now,
    as a command has threads later."""
    ours, theirs = _socket_pair()
    if not os.fork():
        ours.close()
        _run_next(_Forker(theirs))
    theirs.close()
    _forkers.append(ours)
    asyncio.create_subprocess_exec = _start_worker_process  # type: ignore[assignment]


async def _start_worker_process(*command: str, env: Mapping[str, str], **_: Any) -> WarmProcess:
    """What `asyncio.create_subprocess_exec` returns, as far as a parent uses it."""
    assert command == worker_process.COMMAND
    return await _fork(command, Path.cwd(), env, stdin=True, terminal=None, foreground=False)


def _run_next(forker: _Forker) -> NoReturn:
    """Become the next command that is asked for."""
    request = forker.next_command()
    _become(request)
    arguments = request["arguments"]
    if tuple(arguments) == worker_process.COMMAND:
        worker_process.main()
    if _is_script(arguments):
        sys.argv, sys.path[0] = arguments, str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")
        sys.exit()
    if "--processes" in arguments and not request["foreground"]:
        _warm_worker_processes()
    sys.argv, sys.path[0] = [str(_ROOT / "batchgen/__main__.py"), *arguments], request["cwd"]
    cli.main()


def children_of(pid: int) -> list[int]:
    """Those that it has started, by `ps`, as it is everywhere."""
    told = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    pairs = (line.split() for line in told.stdout.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]


if __name__ == "__main__":
    _import_everything()
    _run_next(_Forker(socket.socket(fileno=os.dup(0))))
