"""The disk that a run takes, while an export reads all along."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure import Figure, Options, Table, start
from bench.project import Project, done, make_project, serving

NAME = "disk"
SLOTS = 100
GOAL_WAL_MB, GOAL_RATIO = 64, 1.3
_LOOK_EVERY_S = 0.02
_SIZES = """
select (select sum(length(cast(input as blob))) from items),
       (select sum(length(cast(response as blob))) from attempts),
       (select sum(length(cast(body as blob))) from attempts),
       (select sum(length(cast(coalesce(parsed, spans) as blob))) from results)
"""


def run(options: Options) -> Table:
    items = 5_000 if options.quick else 200_000 if options.large else 40_000
    rows, figures = [], []
    for parser in ("raw", "tag:draft"):
        with serving() as server:
            path = options.work_dir / parser.replace(":", "-")
            project = make_project(path, server.base_url, items, parser)
            exports, wal_mb = _work_beside_exports(project)
        inputs, texts, rests, parsed = (n or 0 for n in project.query(_SIZES)[0])
        size = sum(file.stat().st_size for file in project.path.glob("batchgen.db*"))
        received = inputs + texts + rests
        rows.append((
            parser, str(exports), f"{wal_mb:.1f}", *(_per_item(n, items) for n in (
                inputs, texts, rests, parsed, size)), f"{size / (inputs + texts):.2f}",
            f"{size / received:.2f}",
        ))  # fmt: skip
        figures.append(Figure(f"peak WAL, parser {parser}", wal_mb, "MB", f"<= {GOAL_WAL_MB}",
                              wal_mb <= GOAL_WAL_MB))  # fmt: skip
        figures.append(Figure(
            f"disk against inputs and answers as received, parser {parser}", size / received, "x",
            f"<= {GOAL_RATIO:g}", size / received <= GOAL_RATIO,
        ))  # fmt: skip
    return Table(
        title=f"Disk over {items} items, with an export reading all along",
        columns=("parser", "exports beside it", "peak WAL MB", "input B per item", "answer's text",
                 "rest of the answer", "parsed", "disk", "disk / (input + text)",
                 "disk / (input + answer as received)"),
        rows=tuple(rows),
        figures=tuple(figures),
        notes=(
            "`batchgen export -o -` runs again and again while the worker does; the WAL's file is "
            "looked at fifty times a second. Disk is the database and what lies beside it when "
            "the worker has ended.",
            "An answer as received is its text and the rest of the JSON that the server sent, "
            "which is kept too. With `tag:` the parsed text is stored beside the whole one, with "
            "`raw` they are the same.",
        ),
    )  # fmt: skip


def _work_beside_exports(project: Project) -> tuple[int, float]:
    """How many exports read meanwhile, and the WAL's largest size."""
    running = project.start("work", "-c", str(SLOTS))
    with _exporting_again_and_again(project) as exports:
        peak = 0
        wal = project.path / "batchgen.db-wal"
        pause = threading.Event()
        while not running.ended:
            try:
                peak = max(peak, wal.stat().st_size)
            except FileNotFoundError:
                pass
            pause.wait(_LOOK_EVERY_S)
    done(running.wait())
    return len(exports), peak / 2**20


@contextmanager
def _exporting_again_and_again(project: Project) -> Iterator[list[int]]:
    """The exit codes of the exports so far."""
    codes: list[int] = []
    stop = threading.Event()

    def export() -> None:
        command = [*project.command, "export", "-o", "-"]
        with (project.path / "export.jsonl").open("wb") as file:
            while not stop.is_set():
                file.seek(0)
                codes.append(done(start(command, cwd=project.path, stdout=file).wait()).exit_code)

    thread = threading.Thread(target=export)
    thread.start()
    try:
        yield codes
    finally:
        stop.set()
        thread.join()


def _per_item(size: int, items: int) -> str:
    return f"{size / items:.0f}"
