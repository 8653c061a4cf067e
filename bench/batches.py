"""Provider batches: how fast rows go out in files and come back, and how much memory that takes.

    python -m bench.batches raw-collect URL DATABASE

is the process that collecting is measured against; `run` starts it.
"""

import json
import os
import signal
import sqlite3
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path

from bench.job import write_pool
from bench.measure import Figure, Options, Spent, Table, interleaved, median, spend, start
from bench.project import ROOT, Project, done, make_project

NAME = "batches"
_LINES_A_COMMIT = 500  # as batchgen itself
_GOAL_LINES, _GOAL_MEMORY = 10_000, 1.3
_WORK = ("work", "--batch", "--no-wait")


def run(options: Options) -> Table:
    size = 5_000 if options.quick else 50_000
    bench = _Bench(options.work_dir, rounds=1 if options.quick else 3)
    bench.speed(size)
    bench.memory(size)
    return Table(
        "Provider batches",
        ("requests", "what", "rows/s", "CPU µs/row", "peak RSS MB"),
        tuple(bench.rows),
        tuple(bench.figures),
        (
            "A batch of so many requests, at a provider that has answered all as soon as it is "
            "asked. Whole processes; from their wall time that of one with nothing to do is taken "
            "off. Answers have 1,000 characters, those of the last two rows 4,000.",
            "raw: the same file read from the same provider, each line as JSON by Python's own "
            f"json, and its text into a table of SQLite, {_LINES_A_COMMIT} to a commit.",
        ),
    )


class _Bench:
    def __init__(self, work_dir: Path, rounds: int) -> None:
        self._dir = work_dir
        self._rounds = rounds
        self.rows: list[tuple[str, ...]] = []
        self.figures: list[Figure] = []

    def speed(self, size: int) -> None:
        with _providing(1000) as url:
            project = _project(self._dir / "speed", url, size)
            sent, collected, raw, idle = interleaved(
                self._rounds,
                lambda: self._send(project),
                lambda: project.spend(*_WORK),
                lambda: self._raw(url, project),
                lambda: project.spend(*_WORK),
            )
        start_s = median(one.wall_s for one in idle)
        send_s, collect_s, raw_s = (
            median(one.wall_s for one in several) - off_s
            for several, off_s in ((sent, start_s), (collected, start_s), (raw, 0.0))
        )
        for what, several, took_s in (
            ("sent", sent, send_s), ("collected", collected, collect_s),
            ("raw, collected", raw, raw_s),
        ):  # fmt: skip
            self._tell(size, what, several, took_s)
        lines = size / collect_s
        self.figures += [
            Figure(f"collecting {size:,} answers", lines, "lines/s", f">= {_GOAL_LINES:,}",
                   lines >= _GOAL_LINES),
            Figure(f"collecting {size:,} answers, speed to raw", raw_s / collect_s, "x", "", None),
        ]  # fmt: skip

    def memory(self, size: int) -> None:
        """Of a file of 200 MB, when the size is that of most providers, and of a tenth of it."""
        peaks = []
        for requests in (size // 10, size):
            with _providing(4000) as url:
                project = _project(self._dir / f"memory-{requests}", url, requests)
                sent, collected = self._send(project), project.spend(*_WORK)
            peaks.append(max(sent.peak_rss_mb, collected.peak_rss_mb))
            self._tell(requests, "collected, answers of 4,000", [collected], collected.wall_s)
        ratio = peaks[1] / peaks[0]
        self.figures.append(
            Figure(f"peak memory of {size:,} requests, to a tenth of them", ratio, "x",
                   f"<= {_GOAL_MEMORY}", ratio <= _GOAL_MEMORY)
        )  # fmt: skip

    def _send(self, project: Project) -> Spent:
        for file in project.path.glob("batchgen.db*"):
            file.unlink()
        project.spend("-q", "enqueue", "pool.jsonl")
        return project.spend(*_WORK)

    def _raw(self, url: str, project: Project) -> Spent:
        database = project.path / "raw.db"
        database.unlink(missing_ok=True)
        return done(spend([sys.executable, "-m", "bench.batches", "raw-collect", url, database],
                          cwd=ROOT))  # fmt: skip

    def _tell(self, size: int, what: str, several: list[Spent], took_s: float) -> None:
        cpu_us = median(one.cpu_s for one in several) / size * 1e6
        rss_mb = max(one.peak_rss_mb for one in several)
        self.rows.append(
            (f"{size:,}", what, f"{size / took_s:,.0f}", f"{cpu_us:.0f}", f"{rss_mb:.0f}")
        )


def _project(path: Path, url: str, size: int) -> Project:
    project = make_project(path, url, items=1, parser="raw")
    write_pool(project.pool, size)
    config = project.path / "config.yaml"
    settings = "batch: {max_requests: 50000, max_mb: 1000, probe: false, delete_files: false}\n"
    config.write_text(config.read_text() + settings)
    return project


@contextmanager
def _providing(answer_chars: int) -> Iterator[str]:
    ours, theirs = os.pipe()
    with os.fdopen(ours) as said, os.fdopen(theirs, "wb") as says:
        command = [sys.executable, "-m", "bench.batch_provider", str(answer_chars)]
        running = start(command, cwd=ROOT, stdout=says)
        says.close()
        try:
            yield f"http://127.0.0.1:{int(said.readline())}/v1"
        finally:
            os.kill(running.pid, signal.SIGTERM)
            running.wait()


def raw_collect(url: str, database: str) -> None:
    """The newest batch's answers into a table, with nothing but Python and SQLite."""
    with urllib.request.urlopen(f"{url}/batches") as response:
        file_id = json.load(response)["data"][0]["output_file_id"]
    with (
        closing(sqlite3.connect(database)) as db,
        urllib.request.urlopen(f"{url}/files/{file_id}/content") as lines,
    ):
        db.execute("pragma journal_mode = wal")
        db.execute("create table answers (custom_id text primary key, content text)")
        while chunk := list(islice(lines, _LINES_A_COMMIT)):
            with db:
                db.executemany("insert into answers values (?, ?)", map(_answer, chunk))


def _answer(line: bytes) -> tuple[str, str]:
    found = json.loads(line)
    return found["custom_id"], found["response"]["body"]["choices"][0]["message"]["content"]


if __name__ == "__main__":
    raw_collect(*sys.argv[2:])
