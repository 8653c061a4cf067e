"""How soon batchgen is there: `--help`, `status`, and `work` at its first call."""

import sys
import time
from collections.abc import Callable

from bench.measure import Figure, Options, Spent, Table, interleaved, median, spend
from bench.project import ROOT, Project, Server, done, make_project, serving

NAME = "start"
GOAL_HELP, GOAL_STATUS, GOAL_FIRST_CALL = 1.1, 1.3, 1.1


def run(options: Options) -> Table:
    rounds = 5 if options.quick else 20
    with serving() as server:
        project = make_project(options.work_dir / "project", server.base_url, 10 * rounds)
        first_call_s: list[float] = []

        def work() -> Spent:
            spent, seconds = _to_first_call(project, server)
            first_call_s.append(seconds)
            return spent

        small, large, help_text, status, worked = interleaved(
            rounds,
            _python("-c", "import click, yaml"),
            _python("-c", "import openai"),
            _python("-m", "batchgen", "--help"),
            lambda: project.spend("status", urgent=True),
            work,
        )
    return Table(
        title=f"Start, {rounds} rounds by turns",
        columns=("what", "ms, median", "ms, best", "CPU ms, median"),
        rows=(
            _row('python -c "import click, yaml"', small),
            _row("batchgen --help", help_text),
            _row("batchgen status", status),
            _row('python -c "import openai"', large),
            _row("batchgen work, start to first call", worked, first_call_s),
        ),
        figures=(
            _figure("batchgen --help against importing click and yaml", help_text, small,
                    GOAL_HELP),
            _figure("batchgen status against importing click and yaml", status, small,
                    GOAL_STATUS),
            _figure_of("start of work to its first call against importing openai",
                       median(first_call_s) / median(s.wall_s for s in large), GOAL_FIRST_CALL),
        ),
        notes=(
            "To the first call: from before the process is made to the request's last byte at the "
            "server. The others are whole commands, their end included. Files are in the page "
            "cache, bytecode is compiled. The CPU of work is that of ten items.",
        ),
    )  # fmt: skip


def first_call(project: Project, server: Server, *options: str) -> float:
    """Seconds from the start of a worker, which then answers ten items, to its first request."""
    return _to_first_call(project, server, *options)[1]


def _to_first_call(project: Project, server: Server, *options: str) -> tuple[Spent, float]:
    server.reset()
    start_ns = time.monotonic_ns()
    spent = project.spend(*options, "work", "-c", "10", "--max-items", "10", urgent=True)
    return spent, float(server.stats()["first_request_ns"] - start_ns) / 1e9


def _python(*arguments: str) -> Callable[[], Spent]:
    return lambda: done(spend([sys.executable, *arguments], cwd=ROOT, urgent=True))


def _figure(what: str, spent: list[Spent], baseline: list[Spent], goal: float) -> Figure:
    ratio = median(s.wall_s for s in spent) / median(s.wall_s for s in baseline)
    return _figure_of(what, ratio, goal)


def _figure_of(what: str, ratio: float, goal: float) -> Figure:
    return Figure(what, ratio, "x", f"<= {goal:g}", ratio <= goal)


def _row(what: str, spent: list[Spent], seconds: list[float] | None = None) -> tuple[str, ...]:
    seconds = seconds or [s.wall_s for s in spent]
    cpu_ms = 1000 * median(s.cpu_s for s in spent)
    return what, f"{1000 * median(seconds):.0f}", f"{1000 * min(seconds):.0f}", f"{cpu_ms:.0f}"
