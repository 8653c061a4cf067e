"""batchgen's command line under a profiler; run by bench/profiling.py.

    python -m bench.profile_probe sample OUT.json work -c 100
    python -m bench.profile_probe trace OUT.pstats work -c 100

`sample` looks where every thread is after each millisecond of CPU that the process used: cheap, so
that the shares are true. `trace` is cProfile, of the event loop's thread and of the others apart:
it counts calls, but makes small functions look dear.
"""

import cProfile
import json
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

EVERY_S = 0.001
# Where a thread has nothing to do.
_WAITING = {
    ("selectors", "EpollSelector.select"),
    ("aiosqlite.core", "_connection_worker_thread"),
    ("batchgen.parsers.runner", "_Thread._work"),
    ("threading", "Condition.wait"),
}
Stack = tuple[tuple[str, str], ...]  # (module, function), the innermost first


def main() -> None:
    how, out, *sys.argv[1:] = sys.argv[1:]
    from batchgen.cli import main

    (sample if how == "sample" else trace)(main, Path(out))


def sample(command: Any, out: Path) -> None:
    stacks: Counter[tuple[str, Stack]] = Counter()

    def look(_: int, frame: FrameType | None) -> None:
        main_stack = _stack(frame)
        if main_stack[0] not in _WAITING:
            stacks["event loop", main_stack] += 1
            return
        here = threading.get_ident()
        for thread, other in sys._current_frames().items():  # noqa: SLF001
            stack = _stack(other)
            if thread != here and stack[0] not in _WAITING:
                stacks["other threads", stack] += 1
                return
        stacks["event loop", main_stack] += 1

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        command()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        out.write_text(json.dumps([[who, stack, n] for (who, stack), n in stacks.items()]))


def _stack(frame: FrameType | None) -> Stack:
    """Down to the event loop's turn: what is below is the same for all."""
    found = []
    while frame is not None and frame.f_code.co_name != "_run_once":
        found.append((frame.f_globals.get("__name__", "?"), frame.f_code.co_qualname))
        frame = frame.f_back
    return tuple(found) or (("asyncio.base_events", "BaseEventLoop._run_once"),)


def trace(command: Any, out: Path) -> None:
    profiles = {"event loop": cProfile.Profile()}
    run_thread = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        profile = profiles.setdefault(thread.name, cProfile.Profile())
        try:
            profile.runcall(run_thread, thread)
        except ValueError:  # from Python 3.12 on, one thread at a time
            run_thread(thread)

    if sys.version_info < (3, 12):
        setattr(threading.Thread, "run", run)  # noqa: B010  a method, to mypy
    try:
        profiles["event loop"].runcall(command)
    finally:
        for number, (name, profile) in enumerate(profiles.items()):
            if profile.getstats():
                profile.dump_stats(out.with_name(f"{number} {name}.pstats"))


if __name__ == "__main__":
    main()
