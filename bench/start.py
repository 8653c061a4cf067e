"""How soon batchgen is there: `--help`, and from the start of `work` to its first call."""

import sys
import time
from collections.abc import Callable

from bench.measure import Figure, Options, Spent, Table, interleaved, median, spend
from bench.project import ROOT, Project, Server, done, make_project, serving

NAME = "start"
GOAL_HELP, GOAL_FIRST_CALL_S = 1.5, 1.0


def run(options: Options) -> Table:
    rounds = 5 if options.quick else 20
    bare, help_text = interleaved(
        rounds, _python("-c", "import click, yaml"), _python("-m", "batchgen", "--help")
    )
    with serving() as server:
        project = make_project(options.work_dir / "project", server.base_url, 10 * rounds)
        first_call_s = [first_call(project, server) for _ in range(rounds)]
    ratio = median(s.wall_s for s in help_text) / median(s.wall_s for s in bare)
    first_s = median(first_call_s)
    return Table(
        title=f"Start, {rounds} rounds by turns",
        columns=("what", "ms, median", "ms, best", "CPU ms, median"),
        rows=(
            _row('python -c "import click, yaml"', [s.wall_s for s in bare], bare),
            _row("batchgen --help", [s.wall_s for s in help_text], help_text),
            _row("batchgen work, start to first call", first_call_s, []),
        ),
        figures=(
            Figure("batchgen --help against importing click and yaml", ratio, "x",
                   f"<= {GOAL_HELP:g}", ratio <= GOAL_HELP),
            Figure("start of work to its first call", first_s, "s", f"<= {GOAL_FIRST_CALL_S:g}",
                   first_s <= GOAL_FIRST_CALL_S),
        ),
        notes=("To the first call: from before the process is made to the request's last byte at "
               "the server. Files are in the page cache, bytecode is compiled.",),
    )  # fmt: skip


def first_call(project: Project, server: Server, *options: str) -> float:
    """Seconds from the start of a worker, which then answers ten items, to its first request."""
    server.reset()
    start_ns = time.monotonic_ns()
    project.spend(*options, "work", "-c", "10", "--max-items", "10", urgent=True)
    return float(server.stats()["first_request_ns"] - start_ns) / 1e9


def _python(*arguments: str) -> Callable[[], Spent]:
    return lambda: done(spend([sys.executable, *arguments], cwd=ROOT, urgent=True))


def _row(what: str, seconds: list[float], spent: list[Spent]) -> tuple[str, ...]:
    cpu = f"{1000 * median(s.cpu_s for s in spent):.0f}" if spent else "-"
    return what, f"{1000 * median(seconds):.0f}", f"{1000 * min(seconds):.0f}", cpu
